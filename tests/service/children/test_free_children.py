import asyncio

import pytest

from service.children.free_children import FreeChildren
from service.errors import Unavailable
from tests.serving import in_loop


class Child:
    """An audio child of which nothing is asked."""


async def waiting(free: FreeChildren, count: int) -> list[asyncio.Task[Child]]:
    tasks = [asyncio.create_task(free.take()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


@in_loop
async def test_children_and_those_who_wait_meet_in_the_order_in_which_they_came() -> None:
    free, a, b = FreeChildren(), Child(), Child()
    free.give(a)
    free.give(b)
    assert [await free.take(), await free.take()] == [a, b]
    first, second = await waiting(free, 2)
    free.give(b)
    assert await first is b
    assert not second.done()
    free.give(a)
    assert await second is a


@in_loop
async def test_who_leaves_is_passed_over_and_loses_no_child() -> None:
    free, a, b = FreeChildren(), Child(), Child()
    gone, called, patient = await waiting(free, 3)
    gone.cancel()
    await asyncio.wait([gone])
    free.give(a)
    called.cancel()  # a child was given to it already
    await asyncio.wait([called])
    assert called.cancelled()
    assert await patient is a
    (leaves,) = await waiting(free, 1)
    free.give(b)
    leaves.cancel()
    await asyncio.wait([leaves])
    assert await free.take() is b


@in_loop
async def test_a_child_that_ended_is_given_to_nobody() -> None:
    free, a, b = FreeChildren(), Child(), Child()
    free.give(a)
    free.give(b)
    free.remove(a)
    free.remove(a)
    assert await free.take() is b
    (task,) = await waiting(free, 1)
    assert not task.done()
    task.cancel()


@in_loop
async def test_all_who_wait_are_refused_each_with_an_error_of_its_own_and_those_who_come_later_are_not() -> None:
    free = FreeChildren()
    gone, left, first, second = await waiting(free, 4)
    gone.cancel()
    left.cancel()
    await asyncio.wait([gone])
    free.refuse(lambda: Unavailable("no child", code="no_decoder"))
    errors = []
    for task in (first, second):
        with pytest.raises(Unavailable) as caught:
            await task
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    (task,) = await waiting(free, 1)
    free.give(child := Child())
    assert await task is child


@in_loop
async def test_who_was_refused_and_leaves_gives_nothing_back() -> None:
    free = FreeChildren()
    (task,) = await waiting(free, 1)
    free.refuse(lambda: Unavailable("no child", code="no_decoder"))
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    (task,) = await waiting(free, 1)
    assert not task.done()
    task.cancel()

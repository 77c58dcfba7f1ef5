import asyncio

import pytest

from service.errors import Unavailable
from service.lifecycle import DrainTimes, Lifecycle, State
from tests.fakes import FakeAudioPool, FakeWorkerPool
from tests.serving import in_loop


def make(audio=None, workers=None, notice=0.0, seconds=5.0):
    audio, workers = audio or FakeAudioPool(), workers or FakeWorkerPool()
    return Lifecycle(audio, workers, DrainTimes(notice, seconds)), audio, workers


async def until(condition, seconds=3.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  a condition of others has no event
            await asyncio.sleep(0.01)


def refusal(lifecycle):
    with pytest.raises(Unavailable) as caught:
        lifecycle.check_ready()
    return caught.value.code


@in_loop
async def test_it_starts_becomes_ready_and_stops():
    lifecycle, audio, workers = make(workers=FakeWorkerPool(warm_delay=0.1))
    assert refusal(lifecycle) == "starting"
    lifecycle.start()
    await until(lambda: lifecycle.state is State.READY)
    lifecycle.check_ready()
    lifecycle.check_open()
    assert (lifecycle.alive, lifecycle.ready, lifecycle.ending, lifecycle.aborting) == (True, True, False, False)
    await lifecycle.stop()
    assert (lifecycle.ready, lifecycle.ending) == (False, True)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert refusal(lifecycle) == "draining"
    assert workers.stopped_with == 1.0
    assert not audio.ready


@in_loop
@pytest.mark.parametrize(
    "pools",
    [
        {"workers": FakeWorkerPool(failure="weights are wrong")},
        {"workers": FakeWorkerPool(start_error=ValueError("weights are wrong"))},
        {"audio": FakeAudioPool(start_error=OSError("weights are wrong"))},
    ],
)
async def test_a_pool_that_can_never_start_ends_the_process(pools, caplog):
    lifecycle, _, _ = make(**pools)
    with caplog.at_level("ERROR", logger="service"):
        lifecycle.start()
        await until(lambda: lifecycle.exit_code is not None)
    assert lifecycle.exit_code == 1
    assert refusal(lifecycle) == "draining"
    (record,) = caplog.records
    assert "weights are wrong" in record.fields["detail"]
    lifecycle.begin_drain()  # a signal comes too late to change that
    await until(lambda: lifecycle.aborting)
    assert (lifecycle.exit_code, lifecycle.finished) == (1, True)
    await lifecycle.stop()


@in_loop
async def test_a_failure_after_the_start_does_not_end_the_process():
    lifecycle, audio, workers = make()
    lifecycle.start()
    await until(lambda: lifecycle.state is State.READY)
    audio.ready = False
    assert refusal(lifecycle) == "no_worker"
    audio.ready = True
    lifecycle.check_ready()
    workers.failure, workers.ready = "gone", False
    await asyncio.sleep(0.4)
    assert lifecycle.exit_code is None
    assert refusal(lifecycle) == "no_worker"
    await lifecycle.stop()


@in_loop
async def test_draining_is_unready_at_once_and_closes_after_the_notice():
    lifecycle, _, _ = make(notice=0.2)
    lifecycle.start()
    await until(lambda: lifecycle.state is State.READY)
    lifecycle.begin_drain()
    assert refusal(lifecycle) == "draining"
    await asyncio.sleep(0.1)
    assert lifecycle.exit_code is None
    await until(lambda: lifecycle.exit_code == 0)
    assert not lifecycle.finished
    await lifecycle.stop()


@in_loop
async def test_without_having_been_ready_there_is_nobody_to_give_notice_to():
    lifecycle, _, _ = make(notice=60.0, seconds=120.0, workers=FakeWorkerPool(warm_delay=60.0))
    lifecycle.start()
    await asyncio.sleep(0)
    lifecycle.begin_drain()
    await until(lambda: lifecycle.exit_code == 0, 1.0)
    await lifecycle.stop()


@in_loop
async def test_what_is_left_when_the_time_is_up_is_cancelled():
    lifecycle, _, _ = make(seconds=0.2)

    async def request():
        with lifecycle.request():
            await asyncio.sleep(60)

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    assert lifecycle.in_flight == 1
    lifecycle.begin_drain()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lifecycle.aborting
    assert lifecycle.in_flight == 0
    await until(lambda: lifecycle.finished)
    await lifecycle.stop()


@in_loop
async def test_a_request_in_flight_has_the_time_of_the_drain_to_end():
    lifecycle, _, _ = make(seconds=60.0)

    async def request():
        with lifecycle.request():
            await until(lambda: lifecycle.exit_code == 0)
            await asyncio.sleep(0.1)
            return "answer"

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    lifecycle.begin_drain()
    assert await task == "answer"
    assert (lifecycle.aborting, lifecycle.finished) == (False, False)
    await lifecycle.stop()


@in_loop
async def test_a_second_signal_ends_everything_at_once():
    lifecycle, _, workers = make(notice=60.0, seconds=120.0)
    lifecycle.start()
    await until(lambda: lifecycle.state is State.READY)
    lifecycle.begin_drain()
    await asyncio.sleep(0.01)
    lifecycle.begin_drain()
    await until(lambda: lifecycle.finished, 1.0)
    assert lifecycle.exit_code == 0
    await lifecycle.stop()
    assert workers.stopped_with == 0.0


@in_loop
async def test_without_a_beat_it_is_not_alive():
    now = 0.0
    lifecycle = Lifecycle(FakeAudioPool(), FakeWorkerPool(), DrainTimes(0.0, 1.0), clock=lambda: now)
    assert lifecycle.alive
    now = 5.1
    assert not lifecycle.alive


@in_loop
async def test_a_drain_lets_work_in_for_as_long_as_it_was_told():
    now = 100.0
    lifecycle = Lifecycle(FakeAudioPool(), FakeWorkerPool(), DrainTimes(60.0, 90.0, 2.0), clock=lambda: now)
    lifecycle.start()
    await until(lambda: lifecycle.state is State.READY)
    lifecycle.begin_drain()
    assert refusal(lifecycle) == "draining"
    lifecycle.check_open()
    now = 102.0
    with pytest.raises(Unavailable):
        lifecycle.check_open()
    await lifecycle.stop()


@in_loop
async def test_an_interrupt_lets_nothing_in():
    lifecycle = Lifecycle(FakeAudioPool(), FakeWorkerPool(), DrainTimes(60.0, 90.0, 30.0))
    lifecycle.start()
    await until(lambda: lifecycle.state is State.READY)
    lifecycle.begin_drain(with_notice=False)
    with pytest.raises(Unavailable):
        lifecycle.check_open()
    await lifecycle.stop()

from hypothesis import given, settings
from hypothesis import strategies as st

from service.scheduler import Scheduler


def _scheduler(owed: int = 0) -> Scheduler:
    return Scheduler(steps_between_encodes=owed)


def test_requests_take_turns_window_by_window() -> None:
    scheduler = _scheduler()
    scheduler.add("long", None)
    order = scheduler.admit(1, rows=1, running=False)
    scheduler.add("short", None)
    scheduler.requeue("long")
    for _ in range(3):
        (request_id,) = scheduler.admit(1, rows=1, running=True)
        order.append(request_id)
        if request_id == "long":
            scheduler.requeue("long")
    assert order == ["long", "short", "long", "long"]


def test_running_rows_are_owed_steps_before_the_next_window() -> None:
    scheduler = _scheduler(owed=2)
    scheduler.add("a", None)
    scheduler.add("b", None)
    assert scheduler.admit(1, rows=1, running=False) == ["a"]
    assert scheduler.admit(1, rows=1, running=True) == []
    scheduler.stepped()
    assert scheduler.admit(1, rows=1, running=True) == []
    scheduler.stepped()
    assert scheduler.admit(1, rows=1, running=True) == ["b"]


def test_nobody_is_owed_steps_when_nothing_runs() -> None:
    scheduler = _scheduler(owed=5)
    for name in "abc":
        scheduler.add(name, None)
    assert scheduler.admit(8, rows=8, running=False) == ["a", "b", "c"]


def test_a_deadline_passes_once_it_is_reached() -> None:
    scheduler = _scheduler()
    scheduler.add("early", 5.0)
    scheduler.add("never", None)
    assert scheduler.late(4.9) == []
    assert scheduler.late(5.0) == ["early"]
    scheduler.remove("early")
    assert (scheduler.late(9.0), scheduler.waiting) == ([], 1)


def test_a_suspect_runs_alone() -> None:
    scheduler = _scheduler()
    for name in "abc":
        scheduler.add(name, None)
    assert scheduler.admit(2, rows=2, running=False) == ["a", "b"]
    scheduler.suspect("a")
    scheduler.suspect("b")
    assert scheduler.admit(4, rows=4, running=False) == ["a"]
    assert scheduler.admit(4, rows=4, running=True) == []
    assert scheduler.admit(4, rows=4, running=False) == ["b"]
    assert scheduler.admit(4, rows=4, running=True) == ["c"]


@settings(max_examples=200, deadline=None)
@given(windows=st.lists(st.integers(1, 6), min_size=1, max_size=8), free=st.integers(1, 4))
def test_nobody_starves_and_turns_differ_by_one(windows: list[int], free: int) -> None:
    scheduler = _scheduler()
    left = {str(i): count for i, count in enumerate(windows)}
    turns = dict.fromkeys(left, 0)
    for name in left:
        scheduler.add(name, None)
    while left:
        for name in scheduler.admit(free, rows=free, running=False):
            turns[name] += 1
            left[name] -= 1
            if left[name]:
                scheduler.requeue(name)
            else:
                scheduler.remove(name)
                del left[name]
        waiting = [turns[name] for name in left]
        assert not waiting or max(waiting) - min(waiting) <= 1
    assert turns == {str(i): count for i, count in enumerate(windows)}
    assert scheduler.waiting == 0


def test_windows_that_found_no_room_wait_before_the_others_in_their_order() -> None:
    scheduler = _scheduler()
    for name in "abc":
        scheduler.add(name, None)
    assert scheduler.admit(2, rows=2, running=False) == ["a", "b"]
    scheduler.put_back(["a", "b"])
    assert [scheduler.admit(1, rows=1, running=False) for _ in range(3)] == [["a"], ["b"], ["c"]]


def test_a_request_that_is_not_ready_waits_for_no_window_but_can_be_late() -> None:
    scheduler = _scheduler()
    scheduler.add("a", 5.0, queue=False)
    assert (scheduler.admit(1, rows=1, running=False), scheduler.waiting, scheduler.late(5.0)) == ([], 0, ["a"])
    scheduler.requeue("a")
    assert scheduler.admit(1, rows=1, running=False) == ["a"]


def test_a_wide_window_waits_for_its_rows_and_nobody_overtakes_it() -> None:
    scheduler = Scheduler(steps_between_encodes=1)
    for name, width in (("a", 1), ("wide", 5), ("b", 1), ("c", 2)):
        scheduler.add(name, None, width=width)
    assert scheduler.admit(8, rows=4, running=False) == ["a"]
    assert scheduler.admit(8, rows=4, running=False) == []
    assert scheduler.admit(8, rows=7, running=False) == ["wide", "b"]
    scheduler.remove("wide")
    assert scheduler.admit(8, rows=2, running=False) == ["c"]

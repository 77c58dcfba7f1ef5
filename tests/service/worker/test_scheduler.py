from collections.abc import Sized

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.worker.scheduler import Scheduler

PLACES = 8


def _scheduler(owed: int = 0) -> Scheduler:
    return Scheduler(steps_between_encodes=owed, steps_between_lanes=owed)


def _add(scheduler: Scheduler, name: str, deadline: float | None = None, *, width: int = 1) -> None:
    """A request whose first window waits at once."""
    scheduler.add(name, deadline, width=width)
    scheduler.requeue(name)


def _admit(scheduler: Scheduler, free: int, *, running: bool) -> list[str]:
    """Admit to a batch in which every window ends at once."""
    chosen = scheduler.admit(free, rows=free, running=running, places=PLACES)
    for name in chosen:
        scheduler.ended(name)
    return chosen


def test_requests_take_turns_window_by_window() -> None:
    scheduler = _scheduler()
    _add(scheduler, "long")
    order = _admit(scheduler, 1, running=False)
    _add(scheduler, "short")
    scheduler.requeue("long")
    for _ in range(3):
        (request_id,) = _admit(scheduler, 1, running=True)
        order.append(request_id)
        if request_id == "long":
            scheduler.requeue("long")
    assert order == ["long", "short", "long", "long"]


def _order(scheduler: Scheduler, count: int) -> list[str]:
    """Who has the next windows, one at a time; each has as many as it is asked for."""
    order = []
    for _ in range(count):
        (name,) = _admit(scheduler, 1, running=False)
        scheduler.requeue(name)
        order.append(name)
    return order


def test_of_equal_turns_the_earliest_deadline_is_first_and_none_is_last() -> None:
    scheduler = _scheduler()
    for name, deadline in (("never", None), ("late", 9.0), ("nor", None), ("soon", 3.0), ("middle", 5.0)):
        _add(scheduler, name, deadline)
    round_of_all = ["soon", "middle", "late", "never", "nor"]
    assert _order(scheduler, 10) == round_of_all * 2


def test_a_deadline_takes_no_turn_from_those_in_the_round_before() -> None:
    scheduler = _scheduler()
    for name in ("a", "b", "c"):
        _add(scheduler, name)
    assert _order(scheduler, 1) == ["a"]
    _add(scheduler, "hasty", 1.0)
    assert _order(scheduler, 7) == ["b", "c", "hasty", "a", "b", "c", "hasty"]


def test_who_has_had_no_window_is_before_who_has_whatever_their_deadlines() -> None:
    scheduler = _scheduler()
    _add(scheduler, "long", 5.0)
    assert scheduler.admit(1, rows=1, running=False, places=PLACES) == ["long"]
    _add(scheduler, "short", 9.0)
    scheduler.ended("long")
    scheduler.requeue("long")
    assert _order(scheduler, 4) == ["short", "long", "long", "short"]


def test_who_comes_again_and_again_with_early_deadlines_keeps_nobody_out() -> None:
    scheduler = _scheduler()
    _add(scheduler, "patient")
    order = []
    for number in range(12):
        for name in (f"hasty {number}", f"hastier {number}"):
            _add(scheduler, name, float(number))
        (name,) = _admit(scheduler, 1, running=False)
        order.append(name)
        if name == "patient":
            scheduler.requeue(name)
    assert order.count("patient") >= 2
    assert order.index("patient") <= 2


def test_running_rows_are_owed_steps_before_the_next_window() -> None:
    scheduler = _scheduler(owed=2)
    _add(scheduler, "a")
    _add(scheduler, "b")
    assert _admit(scheduler, 1, running=False) == ["a"]
    assert _admit(scheduler, 1, running=True) == []
    scheduler.stepped()
    assert _admit(scheduler, 1, running=True) == []
    scheduler.stepped()
    assert _admit(scheduler, 1, running=True) == ["b"]


def test_nobody_is_owed_steps_when_nothing_runs() -> None:
    scheduler = _scheduler(owed=5)
    for name in "abc":
        _add(scheduler, name)
    assert _admit(scheduler, 8, running=False) == ["a", "b", "c"]


def test_a_deadline_passes_once_it_is_reached() -> None:
    scheduler = _scheduler()
    _add(scheduler, "early", 5.0)
    _add(scheduler, "never")
    assert scheduler.late(4.9) == []
    assert scheduler.late(5.0) == ["early"]
    scheduler.remove("early")
    assert (scheduler.late(9.0), scheduler.waiting) == ([], 1)


def test_a_suspect_runs_alone() -> None:
    scheduler = _scheduler()
    for name in "abc":
        _add(scheduler, name)
    assert scheduler.admit(2, rows=2, running=False, places=PLACES) == ["a", "b"]
    scheduler.suspect("a")
    scheduler.suspect("b")
    assert _admit(scheduler, 0, running=False) == []
    assert _admit(scheduler, 4, running=False) == ["a"]
    assert _admit(scheduler, 4, running=True) == []
    assert _admit(scheduler, 4, running=False) == ["b"]
    assert _admit(scheduler, 4, running=True) == ["c"]


@settings(max_examples=200, deadline=None)
@given(windows=st.lists(st.integers(1, 6), min_size=1, max_size=8), free=st.integers(1, 4))
def test_nobody_starves_and_turns_differ_by_one(windows: list[int], free: int) -> None:
    scheduler = _scheduler()
    left = {str(i): count for i, count in enumerate(windows)}
    turns = dict.fromkeys(left, 0)
    for name in left:
        _add(scheduler, name)
    while left:
        for name in _admit(scheduler, free, running=False):
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
        _add(scheduler, name)
    assert scheduler.admit(2, rows=2, running=False, places=PLACES) == ["a", "b"]
    scheduler.put_back(["a", "b"])
    assert [_admit(scheduler, 1, running=False) for _ in range(3)] == [["a"], ["b"], ["c"]]


def test_a_request_that_is_not_ready_waits_for_no_window_but_can_be_late() -> None:
    scheduler = _scheduler()
    scheduler.add("a", 5.0, width=1)
    assert (_admit(scheduler, 1, running=False), scheduler.waiting, scheduler.late(5.0)) == ([], 0, ["a"])
    scheduler.requeue("a")
    assert _admit(scheduler, 1, running=False) == ["a"]


@pytest.mark.parametrize(("places", "kept"), [(2, 1), (3, 1), (8, 2), (16, 4)])
def test_a_long_file_alone_has_all_places_but_a_quarter(places: int, kept: int) -> None:
    scheduler = Scheduler(steps_between_encodes=0, steps_between_lanes=32)
    _add(scheduler, "long")
    scheduler.requeue("long", 20)
    assert scheduler.admit(places, rows=places, running=False, places=places) == ["long"] * (places - kept)
    assert scheduler.admit(kept, rows=kept, running=False, places=places) == []
    assert scheduler.waiting == 20 - (places - kept)
    _add(scheduler, "short")
    assert scheduler.admit(kept, rows=kept, running=False, places=places) == ["short"]


def test_a_long_file_has_its_share_again_however_its_windows_left() -> None:
    def admit(free: int) -> int:
        return len(scheduler.admit(free, rows=free, running=False, places=8))

    scheduler = _scheduler()
    _add(scheduler, "long")
    scheduler.requeue("long", 20)
    assert admit(8) == 6
    scheduler.ended("long")
    assert admit(8) == 1
    scheduler.put_back(["long"] * 6)
    assert admit(8) == 6
    for _ in range(6):
        scheduler.suspect("long")
    for _ in range(6):
        assert admit(8) == 1
        scheduler.ended("long")
    assert admit(8) == 6


def test_windows_of_a_long_file_that_wait_take_turns_with_others() -> None:
    scheduler = _scheduler()
    _add(scheduler, "long")
    _add(scheduler, "other")
    scheduler.requeue("long", 9)
    order = []
    for _ in range(8):
        (name,) = _admit(scheduler, 1, running=False)
        if name == "other":
            scheduler.requeue(name)
        order.append(name)
    assert order == ["long", "other"] * 4


def test_who_waited_before_all_others_once_takes_its_turns_again() -> None:
    scheduler = _scheduler()
    for name in ("a", "b"):
        _add(scheduler, name)
    assert _order(scheduler, 6) == ["a", "b"] * 3
    assert scheduler.admit(1, rows=1, running=False, places=PLACES) == ["a"]
    scheduler.put_back(["a"])
    assert _order(scheduler, 6) == ["a", "b"] * 3


def test_no_more_windows_than_are_free_enter_whatever_rows_there_are() -> None:
    scheduler = _scheduler()
    for name in "abc":
        _add(scheduler, name)
    assert scheduler.admit(2, rows=8, running=False, places=PLACES) == ["a", "b"]


def test_a_request_whose_windows_are_all_under_way_waits_for_none() -> None:
    scheduler = _scheduler()
    scheduler.add("under way", None, width=1)
    scheduler.requeue("under way", 0)
    assert (_admit(scheduler, 1, running=False), scheduler.waiting) == ([], 0)
    scheduler.requeue("under way", 2)
    scheduler.requeue("under way", 0)
    assert (_admit(scheduler, 1, running=False), scheduler.waiting) == ([], 0)


def test_a_request_is_here_once_and_nothing_is_left_of_it() -> None:
    scheduler = _scheduler()
    assert _admit(scheduler, 1, running=False) == []
    for name in ("waits", "runs", "suspect"):
        _add(scheduler, name, 1.0)
        with pytest.raises(ValueError, match=name):
            scheduler.add(name, None, width=1)
    assert _order(scheduler, 3) == ["waits", "runs", "suspect"]
    scheduler.turn(0.0)
    assert scheduler.admit(4, rows=4, running=False, places=PLACES)
    _add(scheduler, "unheard", 1.0)
    scheduler.expect("unheard", 30.0)
    scheduler.suspect("suspect")
    scheduler.turn(1.0)
    for name in ("waits", "runs", "suspect", "unheard", "unknown"):
        scheduler.remove(name)
        assert name not in (*scheduler.late(9.0), *scheduler.hopeless(9.0))
    assert (scheduler.waiting, _admit(scheduler, 4, running=False)) == (0, [])
    parts = {**vars(scheduler), **vars(scheduler._times)}
    assert not [name for name, part in parts.items() if isinstance(part, Sized) and len(part)]


def test_the_other_suspects_go_on_when_one_is_over() -> None:
    scheduler = _scheduler()
    for name in "abc":
        _add(scheduler, name)
    assert scheduler.admit(3, rows=3, running=False, places=PLACES) == ["a", "b", "c"]
    for name in "abc":
        scheduler.suspect(name)
    scheduler.remove("b")
    assert scheduler.waiting == 2
    assert [_admit(scheduler, 4, running=False) for _ in range(3)] == [["a"], ["c"], []]


def test_a_long_file_has_a_further_window_beside_others_only_after_many_steps_and_up_to_its_share() -> None:
    scheduler = Scheduler(steps_between_encodes=1, steps_between_lanes=3)
    for name in ("long", "short"):
        _add(scheduler, name)
    scheduler.requeue("long", 20)
    assert scheduler.admit(1, rows=1, running=False, places=8) == ["long"]
    scheduler.stepped()
    assert scheduler.admit(8, rows=8, running=True, places=8) == ["short"]
    seen = []
    for _ in range(12):
        scheduler.stepped()
        seen.append(scheduler.admit(1, rows=1, running=True, places=8))
    assert seen == [[], [], ["long"], [], [], ["long"], *[[]] * 6]
    scheduler.ended("short")
    scheduler.remove("short")
    assert scheduler.admit(8, rows=8, running=True, places=8) == ["long"] * 3


def test_a_suspect_of_many_windows_runs_each_of_them_alone() -> None:
    scheduler = _scheduler()
    _add(scheduler, "long")
    scheduler.requeue("long", 5)
    assert scheduler.admit(3, rows=3, running=False, places=8) == ["long"] * 3
    for _ in range(3):
        scheduler.suspect("long")
    scheduler.requeue("long", 5)
    assert scheduler.waiting == 5
    for _ in range(3):
        assert _admit(scheduler, 8, running=False) == ["long"]
    assert scheduler.admit(8, rows=8, running=False, places=8) == ["long"] * 2


def test_windows_of_one_request_that_found_no_room_are_counted_again() -> None:
    scheduler = _scheduler()
    for name in ("long", "other"):
        _add(scheduler, name)
    scheduler.requeue("long", 5)
    assert scheduler.admit(3, rows=3, running=False, places=16) == ["long", "other", "long"]
    scheduler.put_back(["long", "other", "long"])
    assert scheduler.waiting == 6
    assert scheduler.admit(2, rows=2, running=False, places=16) == ["long", "other"]


def test_a_wide_window_waits_for_its_rows_and_nobody_overtakes_it() -> None:
    scheduler = _scheduler(owed=1)
    for name, width in (("a", 1), ("wide", 5), ("b", 1), ("c", 2)):
        _add(scheduler, name, width=width)
    assert scheduler.admit(8, rows=4, running=False, places=PLACES) == ["a"]
    assert scheduler.admit(8, rows=4, running=False, places=PLACES) == []
    assert scheduler.admit(8, rows=7, running=False, places=PLACES) == ["wide", "b"]
    scheduler.remove("wide")
    assert scheduler.admit(8, rows=2, running=False, places=PLACES) == ["c"]


def test_a_long_file_with_beams_has_its_share_of_rows() -> None:
    scheduler = _scheduler()
    _add(scheduler, "long", width=5)
    scheduler.requeue("long", 9)
    assert scheduler.admit(8, rows=16, running=False, places=16) == ["long"] * 2

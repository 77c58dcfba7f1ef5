"""service/worker/service_times.py through the scheduler, on a simulated clock."""

import math
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from service.worker.scheduler import Scheduler

PLACES = 16
STEP = 0.01
ROW = 0.001
"""Seconds of a step, and what each row adds to it."""


@dataclass(frozen=True)
class Recording:
    """Audio seconds, decode steps of each window, rows of the batch."""

    seconds: float
    steps: int = 100
    width: int = 1

    @property
    def windows(self) -> int:
        return math.ceil(self.seconds / 30)


USUAL = Recording(30.0)
ALONE = USUAL.steps * (STEP + ROW)
"""Seconds that it takes when nobody else is there."""


@dataclass
class Worker:
    """A worker without a model: a step a turn for every row, and no clock but its own."""

    scheduler: Scheduler = field(default_factory=lambda: Scheduler(steps_between_encodes=1, steps_between_lanes=1))
    now: float = 1000.0

    def serve(self, *recordings: Recording) -> None:
        """These come at once; done when all of them are."""
        waiting = {str(number): recording for number, recording in enumerate(recordings)}
        windows = {name: recording.windows for name, recording in waiting.items()}
        running: dict[str, int] = {}
        for name, recording in waiting.items():
            self.scheduler.add(name, None, width=recording.width)
            self.scheduler.expect(name, recording.seconds)
            self.scheduler.requeue(name)
        while any(windows.values()):
            self.scheduler.turn(self.now)
            rows = PLACES - sum(waiting[name].width for name in running)
            for name in self.scheduler.admit(rows, rows=rows, running=bool(running), places=PLACES):
                running[name] = waiting[name].steps
            self.scheduler.stepped()
            seconds = STEP + ROW * sum(waiting[name].width for name in running)
            running = {name: left - 1 for name, left in running.items()}
            for name in [name for name, left in running.items() if not left]:
                del running[name]
                self.end(name, waiting[name], windows)
            self.now += seconds

    def end(self, name: str, recording: Recording, windows: dict[str, int]) -> None:
        self.scheduler.ended(name)
        windows[name] -= 1
        if windows[name]:
            self.scheduler.requeue(name)
        else:
            self.scheduler.finish(name, recording.seconds, self.now)
            self.scheduler.remove(name)

    def sheds(self, seconds: float, left: float) -> bool:
        """Whether a recording that waits is given up when it has so much time left."""
        self.scheduler.add("asks", self.now + left, width=1)
        self.scheduler.expect("asks", seconds)
        self.scheduler.requeue("asks")
        answer = self.scheduler.hopeless(self.now)
        self.scheduler.remove("asks")
        assert answer in ([], ["asks"])
        return bool(answer)


def experienced(*recordings: Recording) -> Worker:
    """A worker that has done these, one after the other."""
    worker = Worker()
    for recording in recordings:
        worker.serve(recording)
    return worker


def test_who_cannot_make_it_is_given_up_and_who_can_is_kept() -> None:
    worker = experienced(*[USUAL] * 8)
    assert worker.sheds(30.0, 0.9 * ALONE)
    assert not worker.sheds(30.0, ALONE)
    assert worker.sheds(600.0, 0.9 * 20 * ALONE)
    assert not worker.sheds(600.0, 20 * ALONE)


def test_nobody_is_given_up_before_enough_was_measured() -> None:
    worker = experienced(*[USUAL] * 4)
    assert not worker.sheds(3600.0, 0.001)
    worker.serve(USUAL)
    assert worker.sheds(3600.0, 0.001)


def test_nobody_is_given_up_by_what_was_measured_long_ago() -> None:
    worker = experienced(*[USUAL] * 8)
    worker.now += 599
    assert worker.sheds(30.0, 0.5)
    worker.now += 1
    assert not worker.sheds(30.0, 0.5)
    worker.serve(USUAL)
    assert not worker.sheds(30.0, 0.5)


def test_a_few_of_late_do_not_speak_for_what_was_long_ago() -> None:
    worker = experienced(*[USUAL] * 4)
    worker.now += 300
    worker.serve(USUAL)
    assert worker.sheds(30.0, 0.5)
    worker.now += 400
    worker.serve(USUAL)
    assert not worker.sheds(30.0, 0.5)


def test_outliers_change_nothing() -> None:
    slow = Recording(30.0, steps=20_000)
    worker = experienced(slow, *[USUAL] * 4, slow, *[USUAL] * 12, slow)
    assert worker.sheds(30.0, 0.9 * ALONE)
    assert not worker.sheds(30.0, ALONE)


def test_dear_options_say_nothing_of_cheap_ones() -> None:
    worker = experienced(*[Recording(30.0, steps=600)] * 16, *[USUAL] * 4)
    assert not worker.sheds(30.0, ALONE)
    assert not experienced(*[Recording(30.0, width=5)] * 8).sheds(30.0, ALONE)


def test_a_machine_that_became_slow_is_known_after_a_while() -> None:
    worker = experienced(*[USUAL] * 8)
    slow = Recording(30.0, steps=300)
    assert not worker.sheds(30.0, ALONE)
    for _ in range(64):
        worker.serve(slow)
    assert worker.sheds(30.0, 2.5 * ALONE)


def test_a_burst_makes_nobody_look_dear_who_may_have_the_machine_alone() -> None:
    worker = Worker()
    for _ in range(3):
        worker.serve(*[USUAL] * 40)
    assert not worker.sheds(30.0, ALONE)
    assert worker.sheds(30.0, USUAL.steps * (STEP / PLACES + ROW) * 0.9)


def test_clips_say_little_of_long_files_and_long_files_of_clips() -> None:
    clip = Recording(3.0, steps=15)
    assert not experienced(*[clip] * 8).sheds(600.0, 20 * ALONE)
    assert experienced(*[clip] * 8).sheds(600.0, 14 * 20 * (STEP + ROW) * 0.9)
    assert not experienced(*[Recording(600.0)] * 8).sheds(3.0, 15 * (STEP + ROW))
    assert not experienced(*[Recording(40.0)] * 8).sheds(60.0, 2 * ALONE)


def test_who_has_begun_is_not_given_up() -> None:
    worker = experienced(*[USUAL] * 8)
    scheduler = worker.scheduler
    scheduler.add("begun", worker.now + 0.5, width=1)
    scheduler.expect("begun", 300.0)
    scheduler.requeue("begun")
    assert scheduler.hopeless(worker.now) == ["begun"]
    assert scheduler.admit(4, rows=4, running=False, places=PLACES) == ["begun"]
    assert scheduler.hopeless(worker.now) == []
    scheduler.put_back(["begun"])
    assert scheduler.hopeless(worker.now) == []
    assert scheduler.late(worker.now + 0.5) == ["begun"]


def test_nobody_is_given_up_without_a_deadline_or_before_it_is_known_what_is_heard() -> None:
    worker = experienced(*[USUAL] * 8)
    worker.scheduler.add("patient", None, width=1)
    worker.scheduler.expect("patient", 3600.0)
    worker.scheduler.add("unheard", worker.now + 0.001, width=1)
    assert worker.scheduler.hopeless(worker.now) == []


def test_what_took_no_time_or_heard_nothing_is_not_counted() -> None:
    worker = experienced(*[USUAL] * 8)
    for number in range(20):
        worker.scheduler.finish(f"at once {number}", 30.0, worker.now)
    worker.scheduler.add("silent", None, width=1)
    worker.scheduler.requeue("silent")
    assert worker.scheduler.admit(1, rows=1, running=False, places=PLACES) == ["silent"]
    worker.now += ALONE
    worker.scheduler.turn(worker.now)
    worker.scheduler.finish("silent", 0.0, worker.now)
    worker.scheduler.remove("silent")
    assert worker.sheds(30.0, 0.9 * ALONE)
    assert not worker.sheds(30.0, ALONE)


LENGTHS = st.floats(0.5, 100.0)


@settings(max_examples=60, deadline=None)
@given(bursts=st.lists(st.lists(LENGTHS, min_size=1, max_size=20), min_size=5, max_size=8), seconds=LENGTHS)
def test_who_would_have_made_it_alone_is_never_given_up(bursts: list[list[float]], seconds: float) -> None:
    """Whatever lengths came in whatever company, where a window costs more the longer it is."""

    def recording(seconds: float) -> Recording:
        windows = math.ceil(seconds / 30)
        return Recording(seconds, steps=math.ceil(5 + 2 * seconds / windows))

    worker = Worker()
    for burst in bursts:
        worker.serve(*(recording(length) for length in burst))
    ours = recording(seconds)
    assert not worker.sheds(seconds, ours.windows * ours.steps * (STEP + ROW))

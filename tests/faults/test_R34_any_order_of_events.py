"""R34: random submissions, cancellations, deadlines and crashes: one end per request, turns in order, nobody starves.

The real scheduler behind the real admission drives simulated slots against a simulated clock; nothing is decoded. Some
requests are long files with several windows that may be decoded at once. Hypothesis looks for a short story that goes
wrong, and one long one of 100,000 steps is drawn at random.
"""

import math
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from model.dims import CHUNK_LENGTH
from service.errors import Unavailable
from service.http.admission import Admission, AdmissionLimits, Permit
from service.worker.scheduler import Scheduler

SLOTS = 4
OWED = 2
LIMIT = 10
"""Requests that admission lets in."""
MAX_LANES = 4
MAX_TICKS = 5
"""That a window takes, and then somebody has the next one."""
MAX_CRASHES = 2
OVERTAKEN = 2
"""By each of the others, at most: in what is left of a round and in the next one."""


@dataclass
class Request:
    windows: int
    """Not done yet."""
    lanes: int
    """How many of them may be decoded at once."""
    deadline: float | None
    permit: Permit
    seconds: float
    crashes: int = 0
    round: int = 0
    """Of its next window if it waits, else of its last one."""
    begun: bool = False


@dataclass
class Slot:
    name: str
    left: int


@dataclass
class Wait:
    """Since when a request without a window in the batch has waited for one."""

    tick: int
    lost: int
    """Windows of others that have to be done once more."""
    overtaken: Counter[str] = field(default_factory=Counter)
    """Windows that others got when it was their turn, less those for which there was no room then."""


class Worker(RuleBasedStateMachine):
    """A worker whose windows take as many ticks as Hypothesis likes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        limits = AdmissionLimits(requests=LIMIT, upload_bytes=1, audio_seconds=1.0)
        self.admission = Admission(limits, clock=lambda: self.now, uniform=lambda low, high: high)
        self.submitted, self.refused, self.ticks = 0, 0, 0
        self.ends: Counter[str] = Counter()
        self.requests: dict[str, Request] = {}
        """Those without an end yet."""
        self.apart: deque[str] = deque()
        """Were in a worker that died: each is run alone."""
        self.outside: deque[str] = deque()
        """Wait for those."""
        self.start()

    def start(self) -> None:
        self.scheduler = Scheduler(steps_between_encodes=OWED, steps_between_lanes=2 * OWED)
        self.inside: set[str] = set()
        self.slots: list[Slot] = []
        self.queue: list[str] = []
        """Who waits, in the order in which they came: our own list, kept by hand."""
        self.round = 0
        self.suspects: list[str] = []
        self.waits: dict[str, Wait] = {}

    @initialize(windows=st.integers(1, 3))
    def first(self, windows: int) -> None:
        self.submit(windows, 1, None)

    @rule(
        windows=st.integers(1, 6),
        lanes=st.integers(1, MAX_LANES),
        patience=st.one_of(st.none(), st.floats(0.5, 20.0)),
    )
    def submit(self, windows: int, lanes: int, patience: float | None) -> None:
        if len(self.requests) == LIMIT:
            with pytest.raises(Unavailable):
                self.admission.enter()
            self.refused += 1
            return
        name = f"r{self.submitted}"
        self.submitted += 1
        deadline = None if patience is None else self.now + patience
        self.requests[name] = Request(windows, lanes, deadline, self.admission.enter(), windows * float(CHUNK_LENGTH))
        self.outside.append(name)
        self.hand_over()

    def hand_over(self) -> None:
        """The pool gives the worker what waits: suspects of a crash one by one, the others together."""
        while not self.inside and self.apart:
            self.enter(self.apart.popleft())
        while self.outside and not self.apart and not any(self.requests[name].crashes for name in self.inside):
            self.enter(self.outside.popleft())

    def enter(self, name: str) -> None:
        self.inside.add(name)
        request = self.requests[name]
        request.round, request.begun = self.round, False
        self.scheduler.add(name, request.deadline, width=1)
        self.scheduler.expect(name, request.seconds)
        self.requeue(name)

    @precondition(lambda self: self.requests)
    @rule(which=st.integers(0, LIMIT - 1))
    def cancel(self, which: int) -> None:
        self.finish(sorted(self.requests)[which % len(self.requests)], "cancelled")

    @rule(seconds=st.floats(0.1, 5.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        late = {n for n, r in self.requests.items() if r.deadline is not None and r.deadline <= self.now}
        assert set(self.scheduler.late(self.now)) == late & self.inside
        for name in [*sorted(late - self.inside), *sorted(late & self.inside)]:  # so that none of the former gets in
            self.finish(name, "late")
        assert self.scheduler.late(self.now) == []
        for name in self.scheduler.hopeless(self.now):
            assert not self.requests[name].begun, "who has begun is not given up"
            assert self.requests[name].deadline is not None, "nor who has all the time there is"
            self.finish(name, "hopeless")

    @rule(ticks=st.integers(1, 4), length=st.integers(1, MAX_TICKS))
    def tick(self, ticks: int, length: int) -> None:
        for _ in range(ticks):
            self.ticks += 1
            self.scheduler.turn(self.now)
            self.await_turns()
            free = SLOTS - len(self.slots)
            for name in self.scheduler.admit(free, rows=free, running=bool(self.slots), places=SLOTS):
                self.admit(name, length)
            self.nobody_waits_too_long()
            self.scheduler.stepped()
            for slot in [slot for slot in self.slots if slot.left <= 1]:
                if slot in self.slots:  # not ended with its request meanwhile
                    self.window_done(slot)
            for slot in self.slots:
                slot.left -= 1

    @precondition(lambda self: len(self.slots) > 1)
    @rule()
    def step_raises(self) -> None:
        names = self.vacate()
        for name in names:
            self.scheduler.suspect(name)
        self.suspects += names
        self.await_turns()

    @precondition(lambda self: len(self.slots) > 1)
    @rule()
    def memory_runs_out(self) -> None:
        names = self.vacate()
        self.scheduler.put_back(names)
        front = list(dict.fromkeys(names))
        for name in front:
            self.requests[name].round = 0
        self.queue = front + [name for name in self.queue if name not in front]
        for wait in self.waits.values():
            wait.overtaken.subtract(names)
        self.await_turns()

    @precondition(lambda self: self.slots)
    @rule()
    def worker_dies(self) -> None:
        """What it had begun is lost, and nobody knows who was to blame: see `service.children.dispatcher`."""
        had = [name for name in self.requests if name in self.inside]
        for name in had:
            self.requests[name].crashes += 1
        self.start()
        guilty = [name for name in had if self.requests[name].crashes == MAX_CRASHES]
        assert len(guilty) <= 1, "suspects are alone"
        self.apart.extend(name for name in had if name not in guilty)
        for name in guilty:
            self.finish(name, "crashed")
        self.hand_over()

    def vacate(self) -> list[str]:
        names = [slot.name for slot in self.slots]
        self.slots = []
        for wait in self.waits.values():
            wait.lost += len(names)
        return names

    def admit(self, name: str, length: int) -> None:
        assert name in self.inside, "nobody who left is let in"
        if self.suspects:
            assert name == self.suspects.pop(0), "suspects first, in order"
            assert not self.slots, "and alone"
        else:
            turns = sorted(self.queue, key=self.turn)
            before = turns[: turns.index(name)]
            assert all(self.running(other) for other in before), "only who has a window is passed over"
            if self.running(name):
                assert self.running(name) < max(1, (SLOTS - 1) // len(self.inside)), "no more than its share"
            self.queue.remove(name)
            self.round = self.requests[name].round = max(self.round, self.requests[name].round)
            for other in self.waits.keys() - {name}:
                self.waits[other].overtaken[name] += 1
        self.requests[name].begun = True
        self.waits.pop(name, None)
        self.slots.append(Slot(name, length))
        assert len(self.slots) <= SLOTS
        self.join(name)

    def turn(self, name: str) -> tuple[int, bool, float]:
        request = self.requests[name]
        return request.round, request.begun, math.inf if request.deadline is None else request.deadline

    def join(self, name: str) -> None:
        if self.waiting(name) and name not in self.queue:
            self.queue.append(name)
            self.requests[name].round += 1

    def running(self, name: str) -> int:
        return [slot.name for slot in self.slots].count(name)

    def waiting(self, name: str) -> int:
        """Windows in the queue; suspects are not."""
        request, apart = self.requests[name], self.running(name) + self.suspects.count(name)
        return max(0, min(request.lanes, request.windows) - apart)

    def requeue(self, name: str) -> None:
        self.scheduler.requeue(name, self.waiting(name) + self.suspects.count(name))
        self.join(name)

    def window_done(self, slot: Slot) -> None:
        self.slots.remove(slot)
        self.scheduler.ended(slot.name)
        request = self.requests[slot.name]
        request.windows -= 1
        if request.windows:
            self.requeue(slot.name)
        else:
            self.scheduler.finish(slot.name, request.seconds, self.now)
            self.finish(slot.name, "done")

    def finish(self, name: str, how: str) -> None:
        """Its one end: there is no second request of this name."""
        self.requests.pop(name).permit.release()
        self.ends[how] += 1
        self.scheduler.remove(name)
        self.inside.discard(name)
        self.waits.pop(name, None)
        self.slots = [slot for slot in self.slots if slot.name != name]
        for line in (self.queue, self.suspects, self.apart, self.outside):
            while name in line:
                line.remove(name)
        self.hand_over()

    @invariant()
    def every_open_request_is_somewhere_and_only_so_many_are(self) -> None:
        places = [*self.queue, *self.suspects, *(slot.name for slot in self.slots)]
        assert set(places) == self.inside
        assert sorted([*self.inside, *self.apart, *self.outside]) == sorted(self.requests), "in one place"
        assert self.submitted == self.ends.total() + len(self.requests), "one end"
        assert self.admission.requests == len(self.requests) <= LIMIT
        waiting = self.scheduler.waiting
        assert waiting == sum(self.waiting(name) for name in self.queue) + len(self.suspects)
        assert waiting <= LIMIT * MAX_LANES

    def await_turns(self) -> None:
        for name in (*self.suspects, *self.queue):
            if name not in self.waits and not self.running(name):
                self.waits[name] = Wait(self.ticks, len(self.suspects))

    def nobody_waits_too_long(self) -> None:
        """Others have two windows each at most before it, and what was lost again: one comes right after the other."""
        for wait in self.waits.values():
            overtaken = wait.overtaken.values()
            assert max(overtaken, default=0) <= OVERTAKEN, "a round's rest and the next one"
            turns = sum(overtaken)
            assert turns <= OVERTAKEN * (LIMIT - 1), "by so many others"
            assert self.ticks - wait.tick < (turns + wait.lost + 1) * MAX_TICKS, "a bounded wait"

    def teardown(self) -> None:
        # Left alone, everybody who has no deadline comes to an end within a bounded time.
        work = sum(request.windows for request in self.requests.values())
        for _ in range((work + len(self.suspects) + 1) * (MAX_TICKS + OWED)):
            self.tick(1, 2)
        assert not self.requests
        assert self.admission.requests == 0


Worker.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestWorker = Worker.TestCase


def test_r34_a_hundred_thousand_steps() -> None:
    draw, worker = random.Random(34), Worker()

    def patience() -> float | None:
        return draw.choice([None, draw.uniform(0.2, 5.0)])

    steps: dict[Callable[[], None], int] = {
        lambda: worker.submit(draw.randint(1, 6), draw.randint(1, MAX_LANES), patience()): 70,
        lambda: worker.tick(draw.randint(1, 4), draw.randint(1, MAX_TICKS)): 100,
        lambda: worker.requests and worker.cancel(draw.randrange(LIMIT)): 4,
        lambda: worker.wait(draw.uniform(0.1, 1.0)): 15,
        lambda: len(worker.slots) > 1 and worker.step_raises(): 2,
        lambda: len(worker.slots) > 1 and worker.memory_runs_out(): 2,
        lambda: worker.slots and worker.worker_dies(): 2,
    }
    for step in draw.choices(list(steps), list(steps.values()), k=100_000):
        step()
        worker.every_open_request_is_somewhere_and_only_so_many_are()
    worker.teardown()
    assert worker.submitted > 10_000
    assert worker.refused > 100, "it was full now and then"
    assert set(worker.ends) == {"done", "cancelled", "late", "hopeless", "crashed"}, "every end there is"

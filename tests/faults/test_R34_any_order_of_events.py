"""R34: random submissions, cancellations, deadlines and crashes: one end per request, turns in order, nobody starves.

The real scheduler drives simulated slots against a simulated clock; nothing is decoded. Some requests are long files
with several windows that may be decoded at once.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.worker.scheduler import Scheduler

SLOTS = 4
OWED = 2


@dataclass
class Request:
    windows: int
    """Not done yet."""
    lanes: int
    """How many of them may be decoded at once."""
    deadline: float | None
    round: int
    """Of its next window if it waits, else of its last one."""
    begun: bool = False
    overtaken: Counter[str] = field(default_factory=Counter)
    """Windows that others got while it waited and had none in work."""
    end: str | None = None


@dataclass
class Slot:
    name: str
    left: int


class Worker(RuleBasedStateMachine):
    """A worker whose windows take as many ticks as Hypothesis likes."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(steps_between_encodes=OWED, steps_between_lanes=2 * OWED)
        self.now = 0.0
        self.requests: dict[str, Request] = {}
        self.slots: list[Slot] = []
        self.queue: list[str] = []
        """Who waits, in the order in which they came: our own list, kept by hand."""
        self.round = 0
        self.suspects: list[str] = []

    @initialize(windows=st.integers(1, 3))
    def first(self, windows: int) -> None:
        self.submit(windows, 1, None)

    @rule(windows=st.integers(1, 6), lanes=st.integers(1, 4), patience=st.one_of(st.none(), st.floats(0.5, 20.0)))
    def submit(self, windows: int, lanes: int, patience: float | None) -> None:
        name = f"r{len(self.requests)}"
        self.requests[name] = Request(windows, lanes, None if patience is None else self.now + patience, self.round)
        self.scheduler.add(name, self.requests[name].deadline)
        self.requeue(name)

    @precondition(lambda self: self.open())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.finish(data.draw(st.sampled_from(sorted(self.open()))), "cancelled")

    @rule(seconds=st.floats(0.1, 5.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        late = {n for n, r in self.open().items() if r.deadline is not None and r.deadline <= self.now}
        assert set(self.scheduler.late(self.now)) == late
        for name in late:
            self.finish(name, "late")
        assert self.scheduler.late(self.now) == []

    @rule(ticks=st.integers(1, 4), length=st.integers(1, 5))
    def tick(self, ticks: int, length: int) -> None:
        for _ in range(ticks):
            free = SLOTS - len(self.slots)
            for name in self.scheduler.admit(free, rows=free, running=bool(self.slots), places=SLOTS):
                self.admit(name, length)
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

    @precondition(lambda self: len(self.slots) > 1)
    @rule()
    def memory_runs_out(self) -> None:
        names = self.vacate()
        self.scheduler.put_back(names)
        front = list(dict.fromkeys(names))
        for name, request in self.requests.items():
            request.round = 0 if name in front else request.round
            request.overtaken.clear()  # they have their windows once more
        self.queue = front + [name for name in self.queue if name not in front]

    def vacate(self) -> list[str]:
        names = [slot.name for slot in self.slots]
        self.slots = []
        return names

    def admit(self, name: str, length: int) -> None:
        assert self.requests[name].end is None, "nobody who left is let in"
        if self.suspects:
            assert name == self.suspects.pop(0), "suspects first, in order"
            assert not self.slots, "and alone"
        else:
            turns = sorted(self.queue, key=self.turn)
            before = turns[: turns.index(name)]
            assert all(self.running(other) for other in before), "only who has a window is passed over"
            if self.running(name):
                assert self.running(name) < max(1, (SLOTS - 1) // len(self.open())), "no more than its share"
            self.queue.remove(name)
            self.round = self.requests[name].round = max(self.round, self.requests[name].round)
            self.overtake(name)
        self.requests[name].begun = True
        self.slots.append(Slot(name, length))
        assert len(self.slots) <= SLOTS
        self.join(name)

    def turn(self, name: str) -> tuple[int, bool, float]:
        request = self.requests[name]
        return request.round, request.begun, math.inf if request.deadline is None else request.deadline

    def overtake(self, name: str) -> None:
        self.requests[name].overtaken.clear()
        for other in self.queue:
            if not self.running(other):
                self.requests[other].overtaken[name] += 1
                assert self.requests[other].overtaken[name] <= 2, "a round's rest and the next one"

    def join(self, name: str) -> None:
        if self.waiting(name) and name not in self.queue:
            self.queue.append(name)
            self.requests[name].round += 1

    def running(self, name: str) -> int:
        return sum(slot.name == name for slot in self.slots)

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
        self.requests[slot.name].windows -= 1
        if self.requests[slot.name].windows:
            self.requeue(slot.name)
        else:
            self.finish(slot.name, "done")

    def finish(self, name: str, how: str) -> None:
        assert self.requests[name].end is None, "one end per request"
        self.requests[name].end = how
        self.scheduler.remove(name)
        self.slots = [slot for slot in self.slots if slot.name != name]
        self.queue = [waiting for waiting in self.queue if waiting != name]
        self.suspects = [waiting for waiting in self.suspects if waiting != name]

    def open(self) -> dict[str, Request]:
        return {name: request for name, request in self.requests.items() if request.end is None}

    @invariant()
    def every_open_request_has_a_window_somewhere(self) -> None:
        places = [*self.queue, *self.suspects, *(slot.name for slot in self.slots)]
        assert set(places) == set(self.open())
        assert self.scheduler.waiting == sum(self.waiting(name) for name in self.queue) + len(self.suspects)

    def teardown(self) -> None:
        # Left alone, everybody who has no deadline comes to an end within a bounded time.
        work = sum(request.windows for request in self.open().values())
        for _ in range((work + len(self.suspects) + 1) * (5 + OWED)):
            self.tick(1, 2)
        assert not self.open()


Worker.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestWorker = Worker.TestCase

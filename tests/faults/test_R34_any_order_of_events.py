"""R34: random submissions, cancellations, deadlines and crashes: one end per request, turns in order, nobody starves.

The real scheduler drives simulated slots against a simulated clock; nothing is decoded.
"""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.scheduler import Scheduler

SLOTS = 3
OWED = 2


@dataclass
class Request:
    windows: int
    deadline: float | None
    end: str | None = None
    turns: int = 0


class Worker(RuleBasedStateMachine):
    """A worker whose windows take as many ticks as Hypothesis likes."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(steps_between_encodes=OWED)
        self.now = 0.0
        self.requests: dict[str, Request] = {}
        self.slots: dict[str, int] = {}
        self.queue: list[str] = []
        """What the order must be: our own list, kept by hand."""
        self.suspects: list[str] = []

    @initialize(windows=st.integers(1, 3))
    def first(self, windows: int) -> None:
        self.submit(windows, None)

    @rule(windows=st.integers(1, 4), patience=st.one_of(st.none(), st.floats(0.5, 20.0)))
    def submit(self, windows: int, patience: float | None) -> None:
        name = f"r{len(self.requests)}"
        self.requests[name] = Request(windows, None if patience is None else self.now + patience)
        self.scheduler.add(name, self.requests[name].deadline)
        self.queue.append(name)

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
            for name in self.scheduler.admit(free, rows=free, running=bool(self.slots)):
                self.admit(name, length)
            self.scheduler.stepped()
            for name in [name for name, left in self.slots.items() if left <= 1]:
                self.window_done(name)
            self.slots = {name: left - 1 for name, left in self.slots.items()}

    @precondition(lambda self: len(self.slots) > 1)
    @rule()
    def step_raises(self) -> None:
        for name in list(self.slots):
            del self.slots[name]
            self.scheduler.suspect(name)
            self.suspects.append(name)

    def admit(self, name: str, length: int) -> None:
        assert name not in self.slots, "one window of a request at a time"
        assert self.requests[name].end is None, "nobody who left is let in"
        if self.suspects:
            assert name == self.suspects.pop(0), "suspects first, in order"
            assert not self.slots, "and alone"
        else:
            assert name == self.queue.pop(0), "first come, first served"
        self.slots[name] = length
        assert len(self.slots) <= SLOTS
        self.requests[name].turns += 1

    def window_done(self, name: str) -> None:
        del self.slots[name]
        request = self.requests[name]
        request.windows -= 1
        if request.windows:
            self.scheduler.requeue(name)
            self.queue.append(name)
        else:
            self.finish(name, "done")

    def finish(self, name: str, how: str) -> None:
        assert self.requests[name].end is None, "one end per request"
        self.requests[name].end = how
        self.scheduler.remove(name)
        self.slots.pop(name, None)
        for queue in (self.queue, self.suspects):
            if name in queue:
                queue.remove(name)

    def open(self) -> dict[str, Request]:
        return {name: request for name, request in self.requests.items() if request.end is None}

    @invariant()
    def every_open_request_is_in_exactly_one_place(self) -> None:
        places = [*self.queue, *self.suspects, *self.slots]
        assert sorted(places) == sorted(self.open())
        assert self.scheduler.waiting == len(self.queue) + len(self.suspects)

    def teardown(self) -> None:
        # Left alone, everybody who has no deadline comes to an end within a bounded time.
        work = sum(request.windows for request in self.open().values())
        for _ in range((work + len(self.suspects) + 1) * (5 + OWED)):
            self.tick(1, 2)
        assert not self.open()


Worker.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestWorker = Worker.TestCase

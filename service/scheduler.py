"""Who is next: which requests' windows enter the batch, who has come too late. Pure: no tensor, no clock.

The unit is a window. A request waits in the queue with one window at a time and goes to the back of it when that window
is done, so requests take turns: a 3-second clip never waits for a 10-minute file to finish. Time is an argument.
"""

from collections import deque


class Scheduler:
    """The turns of all requests of one worker."""

    def __init__(self, *, steps_between_encodes: int) -> None:
        """`steps_between_encodes`: decode steps that running rows get before the next window is encoded."""
        self._steps_between_encodes = steps_between_encodes
        self._steps = 0
        self._deadlines: dict[str, float | None] = {}
        self._widths: dict[str, int] = {}
        self._queue: deque[str] = deque()
        self._suspects: deque[str] = deque()

    @property
    def waiting(self) -> int:
        """Windows that wait for their turn."""
        return len(self._queue) + len(self._suspects)

    def add(self, request_id: str, deadline: float | None, *, width: int = 1, queue: bool = True) -> None:
        """A new request, whose first window waits from now on, or from `requeue` on. `ValueError` if it is known.

        `width`: rows that each of its windows takes.
        """
        if request_id in self._deadlines:
            raise ValueError(f"request {request_id} is here already")
        self._deadlines[request_id] = deadline
        self._widths[request_id] = width
        if queue:
            self._queue.append(request_id)

    def requeue(self, request_id: str) -> None:
        """A request's window is done and its next one waits, behind all the others."""
        self._queue.append(request_id)

    def put_back(self, request_ids: list[str]) -> None:
        """Windows for which there was no room after all wait before all the others, in this order."""
        self._queue.extendleft(reversed(request_ids))

    def suspect(self, request_id: str) -> None:
        """A request was in a batch that failed: its window is decoded again, alone."""
        self._suspects.append(request_id)

    def remove(self, request_id: str) -> None:
        """A request is over, in whatever state it was."""
        self._deadlines.pop(request_id, None)
        self._widths.pop(request_id, None)
        self._queue = deque(waiting for waiting in self._queue if waiting != request_id)
        self._suspects = deque(waiting for waiting in self._suspects if waiting != request_id)

    def late(self, now: float) -> list[str]:
        """Requests whose deadline has passed; they stay until they are removed."""
        return [name for name, deadline in self._deadlines.items() if deadline is not None and deadline <= now]

    def stepped(self) -> None:
        """Running rows made a step."""
        self._steps += 1

    def admit(self, free: int, *, rows: int, running: bool) -> list[str]:
        """The requests whose windows are encoded now, at most `free` and of at most `rows` rows together.

        Empty while running rows are owed steps. A wide window is never overtaken: the next one waits with it. A suspect
        enters an empty batch and nobody joins it there.
        """
        if self._suspects:
            return [] if running or not free else [self._suspects.popleft()]
        if running and self._steps < self._steps_between_encodes:
            return []
        chosen: list[str] = []
        while self._queue and len(chosen) < free and (rows := rows - self._widths[self._queue[0]]) >= 0:
            chosen.append(self._queue.popleft())
        if chosen:
            self._steps = 0
        return chosen

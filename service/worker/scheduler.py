"""Who is next: which requests' windows enter the batch, who has come too late. Pure: no tensor, no clock.

The unit is a window. Requests take turns by window, in rounds: whoever comes, or has had a window, is in the next one.
In a round those who have had none are first, and then it goes by deadline, the earliest first. So a 3-second clip never
waits for a 10-minute file to finish, and nobody waits for more than the rest of a round and the next one. A long file
may have several windows in the batch, but within bounds that keep it from crowding out others: never the last quarter
of the places, no more than its share of the rest, and while others are there only where the rows have had many steps
since the last window. Time is an argument.

Who has not begun and could not be done before its deadline any more (`service.worker.service_times`) need not begin.
"""

import math
from collections import Counter, deque

from service.worker.service_times import ServiceTimes

_FIRST_ROUND = 0
"""Before all others."""
_KEPT_FREE = 4
"""One place in so many is kept for requests that have no window in the batch."""


class Scheduler:
    """The turns of all requests of one worker."""

    def __init__(self, *, steps_between_encodes: int, steps_between_lanes: int) -> None:
        """`steps_between_encodes`: decode steps that running rows get before the next window is encoded.

        `steps_between_lanes`: that many where it is a further window of a request and others are there.
        """
        self._steps_between_encodes, self._steps_between_lanes = steps_between_encodes, steps_between_lanes
        self._steps = 0
        self._deadlines: dict[str, float | None] = {}
        self._widths: dict[str, int] = {}
        self._times = ServiceTimes()
        self._seconds: dict[str, float] = {}
        """Audio that is to be heard of requests that have not begun; 0 where it is not known."""
        self._queue: dict[str, int] = {}
        """Windows that wait, by request, in the order in which they came."""
        self._rounds: dict[str, int] = {}
        """By request: that of its next window if it waits, else that in which it had its last one, or came."""
        self._round = _FIRST_ROUND
        """Of the latest window."""
        self._suspects: deque[str] = deque()
        self._running: Counter[str] = Counter()
        """Windows in the batch, by request."""

    @property
    def waiting(self) -> int:
        """Windows that wait for their turn."""
        return sum(self._queue.values()) + len(self._suspects)

    def add(self, request_id: str, deadline: float | None, *, width: int) -> None:
        """A new request; `requeue` says when windows of it wait. `ValueError` if it is known.

        `width`: rows that each of its windows takes.
        """
        if request_id in self._deadlines:
            raise ValueError(f"request {request_id} is here already")
        self._deadlines[request_id] = deadline
        self._widths[request_id] = width
        self._seconds[request_id] = 0.0
        self._rounds[request_id] = self._round

    def expect(self, request_id: str, seconds: float) -> None:
        """So much audio of a request that has not begun will be heard, window after window."""
        self._seconds[request_id] = seconds

    def turn(self, now: float) -> None:
        """A turn begins: who is in the batch has shared the time since the last one began."""
        rows = sum(windows * self._widths[request_id] for request_id, windows in self._running.items())
        self._times.turn(now, self._running, rows)

    def requeue(self, request_id: str, windows: int = 1) -> None:
        """So many windows of a request wait, suspects among them; it keeps its turn, or is in the next round."""
        windows -= self._suspects.count(request_id)
        if windows > 0:
            if request_id not in self._queue:
                self._rounds[request_id] += 1
            self._queue[request_id] = windows
        else:
            self._queue.pop(request_id, None)

    def ended(self, request_id: str) -> None:
        """A window of a request left the batch."""
        self._running[request_id] -= 1

    def put_back(self, request_ids: list[str]) -> None:
        """Windows that left the batch because there was no room for them wait before all the others."""
        front: dict[str, int] = {}
        for request_id in request_ids:
            front[request_id] = front.get(request_id, self._queue.pop(request_id, 0)) + 1
            self.ended(request_id)
            self._rounds[request_id] = _FIRST_ROUND
        self._queue = front | self._queue

    def suspect(self, request_id: str) -> None:
        """A window left the batch because it was in one that failed: it is decoded again, alone."""
        self._suspects.append(request_id)
        self.ended(request_id)

    def finish(self, request_id: str, seconds: float, now: float) -> None:
        """A request is done, of which so many seconds were heard: what it cost is known; it stays until `remove`."""
        self._times.finish(request_id, seconds, now)

    def remove(self, request_id: str) -> None:
        """A request is over, in whatever state it was."""
        self._deadlines.pop(request_id, None)
        self._widths.pop(request_id, None)
        self._seconds.pop(request_id, None)
        self._rounds.pop(request_id, None)
        self._times.forget(request_id)
        self._queue.pop(request_id, None)
        self._running.pop(request_id, None)
        self._suspects = deque(waiting for waiting in self._suspects if waiting != request_id)

    def late(self, now: float) -> list[str]:
        """Requests whose deadline has passed; they stay until they are removed."""
        return [name for name, deadline in self._deadlines.items() if deadline is not None and deadline <= now]

    def hopeless(self, now: float) -> list[str]:
        """Requests that have not begun and, by what others cost, cannot be done before their deadline."""
        return [
            request_id
            for request_id, seconds in self._seconds.items()
            if (deadline := self._deadlines[request_id]) is not None
            and deadline - now < self._times.least(seconds, now)
        ]

    def stepped(self) -> None:
        """Running rows made a step."""
        self._steps += 1

    def admit(self, free: int, *, rows: int, running: bool, places: int) -> list[str]:
        """The requests whose windows are encoded now, at most `free` and of at most `rows` rows together.

        `places` is how many rows the batch may hold. Empty while running rows are owed steps. For a wide window
        whose turn it is the others wait too. A suspect enters an empty batch and nobody joins it there.
        """
        if self._suspects:
            if running or not free:
                return []
            suspect = self._suspects.popleft()
            self._running[suspect] += 1
            return [suspect]
        if running and self._steps < self._steps_between_encodes:
            return []
        chosen: list[str] = []
        while len(chosen) < free and (request_id := self._next(places)):
            rows -= self._widths[request_id]
            if rows < 0:
                break
            chosen.append(request_id)
            self._seconds.pop(request_id, None)
            self._running[request_id] += 1
            self._round = max(self._round, self._rounds[request_id])
            self._rounds[request_id] = self._round
            if left := self._queue.pop(request_id) - 1:
                self._queue[request_id] = left
                self._rounds[request_id] += 1
        if chosen:
            self._steps = 0
        return chosen

    def _next(self, places: int) -> str | None:
        """The first whose turn it is that may have a window now."""
        alone = len(self._deadlines) == 1
        share = (places - max(1, places // _KEPT_FREE)) // max(1, len(self._deadlines))
        further = alone or self._steps >= self._steps_between_lanes
        for request_id in sorted(self._queue, key=self._turn):
            running = self._running[request_id]
            if running == 0 or (further and (running + 1) * self._widths[request_id] <= share):
                return request_id
        return None

    def _turn(self, request_id: str) -> tuple[int, bool, float]:
        """What its place among those who wait goes by; of equals the first to come is first."""
        begun, deadline = request_id not in self._seconds, self._deadlines[request_id]
        return self._rounds[request_id], begun, math.inf if deadline is None else deadline

"""What recordings cost this worker, so that one that waits is known to come too late before it is begun. Pure.

Used by `service.worker.scheduler`, which tells it of every turn. What is kept is *work*: each row of the batch has an
equal part of a turn. So waiting counts for nothing, and company makes a recording cheaper, however much longer it makes
it last: alone it takes at least what it costs among others. Beams and samples count as one row, which any window takes.
What is said of one that waits is little on purpose:

- as cheap as the cheapest tenth of those done lately, so that neither outliers nor dear options matter;
- the lesser of two: a window costs no less for being longer, nor a second for being in a shorter window;
- nothing before some have been done, nor when none has been for a while: who is refused teaches nothing.

`service.http.admission.Throughput` is the mean of the same, over everybody: right for when all work is done, and
wrong for one request.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model.dims import CHUNK_LENGTH

_REMEMBERED = 64
"""Requests that are done."""
_ENOUGH = 5
"""So many must be done before anything is said."""
_CHEAPEST = 10
"""One in so many may have cost less than what is said."""
_FORGOTTEN_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class _Cost:
    known_at: float
    of_a_second: float
    of_a_window: float


class ServiceTimes:
    """Seconds of work of the requests in the batch, and of those that are done."""

    def __init__(self) -> None:
        self._turned = 0.0
        self._work: dict[str, float] = {}
        """So far, by request."""
        self._done: deque[_Cost] = deque(maxlen=_REMEMBERED)
        self._least: _Cost | None = None
        """What is said of others."""

    def turn(self, now: float, windows: Mapping[str, int], rows: int) -> None:
        """A turn begins; these windows, by request, of so many rows together, shared the time since the last began."""
        share = max(0.0, now - self._turned) / max(1, rows)
        self._turned = now
        for request_id, count in windows.items():
            self._work[request_id] = self._work.get(request_id, 0.0) + share * count

    def finish(self, request_id: str, seconds: float, now: float) -> None:
        """A request is done, of which so many seconds were heard: what it cost is known."""
        work = self._work.get(request_id, 0.0)
        if work <= 0.0 or seconds <= 0.0:
            return
        self._done.append(_Cost(now, work / seconds, work / _windows(seconds)))
        recent = [cost for cost in self._done if now - cost.known_at < _FORGOTTEN_SECONDS]
        self._least = None
        if len(recent) >= _ENOUGH:
            of_a_second = _low([cost.of_a_second for cost in recent])
            self._least = _Cost(now, of_a_second, _low([cost.of_a_window for cost in recent]))

    def forget(self, request_id: str) -> None:
        """A request is over."""
        self._work.pop(request_id, None)

    def least(self, seconds: float, now: float) -> float:
        """Seconds that hearing so much, window after window, takes at least; 0 where nothing is known."""
        if self._least is None or now - self._least.known_at >= _FORGOTTEN_SECONDS:
            return 0.0
        return min(self._least.of_a_second * seconds, self._least.of_a_window * _windows(seconds))


def _low(costs: Sequence[float]) -> float:
    return sorted(costs)[len(costs) // _CHEAPEST]


def _windows(seconds: float) -> int:
    """So many at least."""
    return math.ceil(seconds / CHUNK_LENGTH)

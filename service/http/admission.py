"""Admission: a request holds one `Permit` from before its body is read until it has ended, however it ends.

What is bounded, over all requests: their number, the bytes of uploads held in memory, the seconds of audio waiting
or in work; and the number for each API key. Refusals are immediate, nothing waits for a permit. Used from the event
loop's thread only; time and randomness are arguments.
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from service.errors import QuotaExceeded, Unavailable

_RETRY_SECONDS = (1, 3), (45, 60)
"""`Retry-After` is drawn from a range that begins at the wait and ends half as much later, but no sooner and no later
than within these: or those who are told the least, or the most, would all return together."""
_HALF_LIFE_SECONDS = 60.0
_PRIOR_RATE = 4.0
"""Audio seconds a second that are assumed until something has been measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """How much may be in progress at once; `key_requests` 0 is no limit for a key."""

    requests: int
    upload_bytes: int
    audio_seconds: float
    key_requests: int = 0


class Throughput:
    """Audio seconds finished per second of work, halving the weight of what is a minute of work old."""

    def __init__(self) -> None:
        self._finished_seconds = _PRIOR_RATE
        self._busy_seconds = 1.0

    def pass_time(self, busy_seconds: float) -> None:
        """Time went by with work in progress."""
        keep = 0.5 ** (busy_seconds / _HALF_LIFE_SECONDS)
        self._finished_seconds *= keep
        self._busy_seconds = self._busy_seconds * keep + busy_seconds

    def finish(self, audio_seconds: float) -> None:
        """A recording was done."""
        self._finished_seconds += audio_seconds

    @property
    def rate(self) -> float:
        """Audio seconds a second, above zero."""
        return max(self._finished_seconds / self._busy_seconds, 1e-3)


class Admission:
    """Counts what is in progress and says who may enter."""

    def __init__(
        self,
        limits: AdmissionLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.limits = limits
        self.requests = 0
        self.upload_bytes = 0
        self.audio_seconds = 0.0
        self.throughput = Throughput()
        self._by_key: dict[str, int] = {}
        self._clock = clock
        self._uniform = uniform
        self._seen = clock()

    def enter(self, key_id: str | None = None) -> "Permit":
        """A permit, used as a context manager; `QuotaExceeded` for this key, `Unavailable` for everybody."""
        held = self._by_key.get(key_id, 0) if key_id is not None else 0
        if 0 < self.limits.key_requests <= held:
            raise QuotaExceeded(
                f"This key already has {held} requests in progress.", retry_after_seconds=self.wait_seconds()
            )
        if self.requests >= self.limits.requests:
            raise self.overloaded()
        self.requests += 1
        if key_id is not None:
            self._by_key[key_id] = held + 1
        return Permit(self, key_id)

    def overloaded(self) -> Unavailable:
        """The refusal of a full service."""
        return Unavailable("The server is full; try again later.", retry_after_seconds=self.wait_seconds())

    def wait_seconds(self) -> float:
        """Time until the audio in progress should be done."""
        self._tick()
        return self.audio_seconds / self.throughput.rate

    def retry_after(self, wait_seconds: float | None) -> int:
        """`Retry-After` for a wait, None being that for the audio in progress.

        1 to 60 s, spread so that callers return apart.
        """
        wait = self.wait_seconds() if wait_seconds is None else wait_seconds
        (least, early), (late, most) = _RETRY_SECONDS
        first, last = math.ceil(min(max(wait, least), late)), math.ceil(min(max(1.5 * wait, early), most))
        return min(last, math.floor(self._uniform(first, last + 1)))

    def _tick(self) -> None:
        now = self._clock()
        if self.audio_seconds > 0.0:
            self.throughput.pass_time(now - self._seen)
        self._seen = now

    def _hold_bytes(self, change: int) -> None:
        if self.upload_bytes + change > self.limits.upload_bytes:
            raise self.overloaded()
        self.upload_bytes += change

    def _hold_audio(self, seconds: float) -> None:
        if self.audio_seconds + seconds > self.limits.audio_seconds:
            raise self.overloaded()
        self._tick()
        self.audio_seconds += seconds

    def _leave(self, key_id: str | None, upload_bytes: int, audio_seconds: float, *, done: float) -> None:
        self._tick()
        self.requests -= 1
        self.upload_bytes -= upload_bytes
        # Sums of floats drift: an empty queue is exactly empty.
        self.audio_seconds = max(0.0, self.audio_seconds - audio_seconds) if self.requests else 0.0
        self.throughput.finish(done)
        if key_id is not None:
            self._by_key[key_id] -= 1


class Permit:
    """One request's place; leaving the `with` block gives everything back, once."""

    def __init__(self, admission: Admission, key_id: str | None) -> None:
        self._admission = admission
        self._key_id = key_id
        self._bytes = 0
        self._seconds = 0.0
        self._done = 0.0
        self._released = False

    def hold_bytes(self, total: int) -> None:
        """This request now holds `total` bytes of upload; `Unavailable` when all requests hold too many."""
        self._admission._hold_bytes(total - self._bytes)
        self._bytes = total

    def charge(self, audio_seconds: float) -> None:
        """This request will work on so much audio; `Unavailable` when that is too much over all requests."""
        self._admission._hold_audio(audio_seconds)
        self._seconds += audio_seconds

    def finish(self, audio_seconds: float | None = None) -> None:
        """The audio was worked off, or so much of it: it counts as throughput."""
        self._done = self._seconds if audio_seconds is None else min(audio_seconds, self._seconds)

    def release(self) -> None:
        """Give everything back; more than once does nothing."""
        if not self._released:
            self._released = True
            self._admission._leave(self._key_id, self._bytes, self._seconds, done=self._done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

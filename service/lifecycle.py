"""The life of the process: STARTING -> READY -> DRAINING -> STOPPED, and what each state lets in.

The server listens from the first moment, so that `/livez` answers while workers load; work is refused until they are
warm. Draining first says so on `/readyz` while still listening (a load balancer must see it), then closes the door
and lets requests end; what is left when the time is up is answered with 503. A pool that says that it can never start
ends the process instead of leaving it unready for ever. Signals are the server's affair (`service.http.server`).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from service import logs
from service.errors import ServiceError, Unavailable
from service.ports import AudioDecoder, Workers

BEAT_SECONDS = 0.25
_STARTING_BEAT_SECONDS = 0.02
MAX_BEAT_AGE_SECONDS = 5.0
_FLUSH_SECONDS = 0.3
"""For the last answers to leave the process."""
_STOP_SECONDS = 1.0


class State(StrEnum):
    """Where the process is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class DrainTimes:
    """Counted from the signal: unready but listening, the end, and how long work is let in all the same."""

    notice_seconds: float
    seconds: float
    accept_seconds: float = 0.0


class Lifecycle:
    """Starts and stops the pools, knows the requests in flight, says what may enter."""

    def __init__(
        self,
        audio_pool: AudioDecoder,
        worker_pool: Workers,
        drain: DrainTimes,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = State.STARTING
        self.exit_code: int | None = None
        """Set when the process should stop listening."""
        self.aborting = False
        """Requests in flight are being answered with 503."""
        self.finished = False
        """Nothing is worth waiting for any more."""
        self.on_beat: Callable[[], None] = lambda: None
        """Called a few times a second."""
        self._audio_pool, self._worker_pool = audio_pool, worker_pool
        self._drain_times, self._clock = drain, clock
        self._beat = clock()
        self._accept_until = 0.0
        self._requests: set[asyncio.Task[object]] = set()
        self._background: set[asyncio.Task[None]] = set()

    # --- what may enter ------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the supervising task still beats."""
        return self._clock() - self._beat < MAX_BEAT_AGE_SECONDS

    @property
    def ready(self) -> bool:
        """Whether requests are wanted."""
        try:
            self.check_ready()
        except Unavailable:
            return False
        return True

    def check_open(self) -> None:
        """`Unavailable` unless a request may enter now: when ready, and at the start of a drain.

        Until a load balancer has seen `/readyz` turn, it goes on sending, and a large upload cannot be sent twice.
        """
        if self.state is State.DRAINING and self._clock() < self._accept_until:
            self._check_pools()
        else:
            self.check_ready()

    def check_ready(self) -> None:
        """`Unavailable`, with the reason as its code, unless requests are wanted."""
        if self.ending:
            raise Unavailable("The server is shutting down.", code="draining")
        if self.state is State.STARTING:
            raise Unavailable("The server is starting.", code="starting")
        self._check_pools()

    def _check_pools(self) -> None:
        if not (self._worker_pool.ready and self._audio_pool.ready):
            raise Unavailable("No worker is available.", code="no_worker")

    @property
    def in_flight(self) -> int:
        """Requests not yet answered."""
        return len(self._requests)

    @property
    def ending(self) -> bool:
        """Whether it is draining or over already."""
        return self.state in (State.DRAINING, State.STOPPED)

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """The current task answers a request: draining waits for it, aborting cancels it."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request is answered by a task")
        self._requests.add(task)
        try:
            yield
        finally:
            self._requests.discard(task)

    # --- starting and running ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the pools in the background."""
        self._spawn(self._run())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _run(self) -> None:
        starting = asyncio.gather(self._audio_pool.start(), self._worker_pool.start())
        try:
            while True:
                self._beat = self._clock()
                if starting.done() and (error := starting.exception()) is not None:
                    self._give_up(_reason(error), error)
                    return
                if self.state is State.STARTING and self._worker_pool.failure is not None:
                    self._give_up(self._worker_pool.failure)
                    return
                if self.state is State.STARTING and self._worker_pool.ready and self._audio_pool.ready:
                    self._become_ready()
                self.on_beat()
                await asyncio.sleep(_STARTING_BEAT_SECONDS if self.state is State.STARTING else BEAT_SECONDS)
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)

    def _become_ready(self) -> None:
        self.state = State.READY
        model = self._worker_pool.model
        if model is not None:
            logs.event("ready", model=model.name, device=model.device, compute_type=model.compute_type)

    def _give_up(self, reason: str, error: BaseException | None = None) -> None:
        logs.event("start_failed", level=logging.ERROR, detail=reason, error=error)
        self.state = State.STOPPED
        self.exit_code = 1
        self.finished = True

    # --- draining and stopping -----------------------------------------------------------------------------------

    def begin_drain(self, *, with_notice: bool = True) -> None:
        """The first signal: unready at once, the rest in its time. Asked again, everything ends at once."""
        if self.ending:
            self._spawn(self._abort("now"))
            return
        # Whoever was never ready has nobody to give notice to.
        with_notice = with_notice and self.state is State.READY
        notice = self._drain_times.notice_seconds if with_notice else 0.0
        self._accept_until = self._clock() + (self._drain_times.accept_seconds if with_notice else 0.0)
        self.state = State.DRAINING
        logs.event("draining", in_flight=self.in_flight)
        self._spawn(self._drain(notice))

    async def _drain(self, notice_seconds: float) -> None:
        end = self._clock() + self._drain_times.seconds
        await asyncio.sleep(notice_seconds)
        self.exit_code = 0 if self.exit_code is None else self.exit_code
        await asyncio.sleep(max(0.0, end - self._clock()))
        await self._abort("drain_seconds")

    async def _abort(self, reason: str) -> None:
        if self._requests:
            logs.event("aborting", level=logging.WARNING, in_flight=self.in_flight, reason=reason)
        self.aborting = True
        self.exit_code = 0 if self.exit_code is None else self.exit_code
        for task in tuple(self._requests):
            task.cancel()
        await asyncio.sleep(_FLUSH_SECONDS)
        self.finished = True

    async def stop(self) -> None:
        """Stop the pools and every task of this object; the state is STOPPED."""
        self.state = State.STOPPED
        for task in tuple(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        grace = 0.0 if self.finished else _STOP_SECONDS
        await asyncio.gather(self._worker_pool.stop(grace), self._audio_pool.stop(), return_exceptions=True)
        logs.event("stopped", state=self.state)


def _reason(error: BaseException) -> str:
    """What went wrong at start, for the operator: one line, without a traceback."""
    text = error.message if isinstance(error, ServiceError) else str(error)
    return " ".join(f"{type(error).__name__}: {text}".split())

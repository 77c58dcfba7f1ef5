"""One worker process as the HTTP process sees it: its channel, what it has in hand, whether it makes progress.

Used by `service.children.worker_pool` and `service.children.dispatcher` alone.
"""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from model.dims import SAMPLE_RATE
from service.environment import environment_of_children
from service.errors import BadRequest, DeadlineExceeded, InternalError, ServiceError, Unavailable
from service.ports import Event
from service.wire.channel import AsyncChannel, ChannelClosed, pair
from service.wire.messages import (
    Cancel,
    Cancelled,
    DetectLanguage,
    Failed,
    Finished,
    LanguageDetected,
    Message,
    ModelInfo,
    Received,
    SegmentsReady,
    Started,
    Stop,
    Transcribe,
    WorkerStats,
)
from service.wire.process import murdered, oom_kills, stopped

_MAX_UNREAD = 8
"""Jobs that a worker has been sent and not read: as many as may join its batch in one turn.

The kernel counts descriptors in flight by user, and lets nobody send one beside more than it may have open itself. What
waits here instead goes to another worker, or is gone with its client.
"""
_POLL_SECONDS = 0.02
_ERRORS: dict[str, type[ServiceError]] = {
    "deadline_exceeded": DeadlineExceeded,
    "invalid_value": BadRequest,
    "no_memory": Unavailable,
}


@dataclass(eq=False)
class Job:
    """A request in the pool, and the queue through which its events reach the endpoint."""

    message: Transcribe | DetectLanguage
    fd: int
    """The waveform, ours until the job is over: a worker that dies takes its copy with it."""
    events: asyncio.Queue[Event | ServiceError | OSError] = field(default_factory=asyncio.Queue)
    crashes: int = 0
    """Workers that crashed with this job in hand, perhaps because of it."""
    waveform: bytes = b""
    """Its hash, where one was needed."""
    murders: int = 0
    """Workers that ended with this job in hand, and not for it: others ended them, or they had not read it."""
    received: bool = False
    """Whether the worker that has it in hand has read it."""
    sent: int = 0
    """Segments handed on so far, over all attempts."""
    seen: int = 0
    """Segments that came in this attempt. Decoding is deterministic: the first `sent` ones are known already."""
    over: bool = False

    @property
    def request_id(self) -> str:
        """Names the job in every message."""
        return self.message.request_id

    @property
    def audio_seconds(self) -> float:
        """Length of its recording."""
        return self.message.n_samples / SAMPLE_RATE

    def put(self, event: Event) -> None:
        """Hand an event on, without the segments that an earlier attempt handed on already."""
        if isinstance(event, SegmentsReady):
            new = event.segments[max(0, self.sent - self.seen) :]
            self.seen += len(event.segments)
            self.sent = max(self.sent, self.seen)
            if new:
                self.events.put_nowait(SegmentsReady(event.request_id, new))
            return
        self.over = self.ends_with(event)
        self.events.put_nowait(event)

    def ends_with(self, event: Event) -> bool:
        """Whether nothing comes after this event."""
        return isinstance(event, LanguageDetected if isinstance(self.message, DetectLanguage) else Finished)

    def close(self) -> None:
        """Give the waveform back; more than once does nothing."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def fail(self, error: ServiceError | OSError) -> None:
        """End it with an error."""
        self.over = True
        self.events.put_nowait(error)


class WorkerProcess:
    """A started worker."""

    def __init__(self, device: str, command: Sequence[str], now: float) -> None:
        """`command` starts the worker; the descriptor of its socket and our process id are appended.

        `OSError` where there is no descriptor, process or memory for it.
        """
        self.device = device
        ours, theirs = pair()
        with theirs, contextlib.ExitStack() as on_error:
            on_error.callback(ours.close)
            fd = theirs.fileno()
            argv = [*command, "--fd", str(fd), "--parent", str(os.getpid())]
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, pass_fds=(fd,), env=environment_of_children()
            )
            on_error.pop_all()
        self.channel = AsyncChannel(ours)
        self.info: ModelInfo | None = None
        self.failure: str | None = None
        """Why it could not start, if it has said so."""
        self.stats: WorkerStats | None = None
        self.jobs: dict[str, Job] = {}
        self.leaving: dict[str, Job] = {}
        """Jobs that nobody waits for any more, until the worker says that it has dropped them."""
        self.broken = False
        self.proved = False
        """Whether it has finished anything."""
        self._killed = self._stopped = False
        self._oom_kills = oom_kills()
        self.started_at = self.progressed_at = now
        """When it last moved on, or was given work while idle."""

    @property
    def ready(self) -> bool:
        """Whether it is warm and takes jobs."""
        return self.info is not None and not self.broken

    @property
    def reads(self) -> bool:
        """Whether it keeps up with what it is sent."""
        return sum(not job.received for job in self.in_hand) < _MAX_UNREAD

    @property
    def in_hand(self) -> list[Job]:
        """Jobs that it works on, wanted or not."""
        return [*self.jobs.values(), *self.leaving.values()]

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio in hand."""
        return sum(job.audio_seconds for job in self.in_hand)

    def submit(self, job: Job, now: float) -> bool:
        """Send a job and its waveform; False if the worker turns out to be gone. `OSError` without descriptors."""
        try:
            self.channel.send(job.message, job.fd)
        except ChannelClosed:
            self.broken = True
            return False
        if not self.in_hand:
            self.progressed_at = now
        job.seen, job.received = 0, False
        self.jobs[job.request_id] = job
        return True

    def cancel(self, job: Job) -> None:
        """Drop a job that nobody waits for any more; it is closed when the worker has dropped it too."""
        if self.jobs.pop(job.request_id, None) is None:
            return
        self.leaving[job.request_id] = job
        with contextlib.suppress(ChannelClosed):
            self.channel.send(Cancel(job.request_id))

    def take(self, message: Message, now: float) -> None:
        """Hand a message of the worker to whom it concerns."""
        if isinstance(message, ModelInfo):
            self.info = message
        elif isinstance(message, WorkerStats):
            if self.stats is None or message.progress != self.stats.progress:
                self.progressed_at = now
            self.stats = message
            self._oom_kills = oom_kills()  # it lived through those
        elif isinstance(message, Received):
            if (job := self.jobs.get(message.request_id) or self.leaving.get(message.request_id)) is not None:
                job.received = True
        elif isinstance(message, Cancelled):
            self._drop(message.request_id)
        elif isinstance(message, Started | SegmentsReady | LanguageDetected | Finished | Failed):
            self.progressed_at = now
            self._answer(message)

    def _answer(self, message: Started | SegmentsReady | LanguageDetected | Finished | Failed) -> None:
        """Hand what is said of a job to whoever waits for it."""
        if (job := self.jobs.get(message.request_id)) is None:  # it was cancelled meanwhile
            return
        if isinstance(message, Failed):
            job.fail(_ERRORS.get(message.code, InternalError)(message.message, param=message.param))
        else:
            job.put(message)
        if job.over:
            self.proved = True
            del self.jobs[message.request_id]

    def let_go(self) -> None:
        """Forget the jobs that were leaving: it has ended."""
        for request_id in list(self.leaving):
            self._drop(request_id)

    def _drop(self, request_id: str) -> None:
        if (job := self.leaving.pop(request_id, None)) is not None:
            job.close()

    def hangs(self, now: float, stall_seconds: float) -> bool:
        """Whether it has had work for so long without a sign of progress. An idle worker never hangs."""
        return bool(self.in_hand) and now - self.progressed_at > stall_seconds

    def kill(self) -> None:
        """End it by force."""
        self._stopped = self._stopped or stopped(self.process.pid)
        self._killed = True
        self.process.kill()

    @property
    def murder(self) -> str | None:
        """What others did to it, where no job can have done it; see `service.wire.process`."""
        if self._stopped:
            return "it was stopped by somebody else"
        if not self._killed and murdered(self.process.returncode, self._oom_kills):
            return "it was killed by somebody else"
        return None

    @property
    def exit_status(self) -> int | None:
        """How it ended; None where it was us who ended it, as one that has failed and takes long to be gone."""
        return None if self._killed else self.process.returncode

    async def end(self, grace_seconds: float) -> None:
        """Ask the process to stop, kill it when it does not, and reap it. Takes no thread: there may be none left."""
        self.broken = True
        with contextlib.suppress(ChannelClosed):
            self.channel.send(Stop())
        end = time.monotonic() + grace_seconds
        while self.process.poll() is None:
            if time.monotonic() >= end:
                self.kill()
            await asyncio.sleep(_POLL_SECONDS)
        self.channel.close()

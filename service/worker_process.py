"""One worker process as the HTTP process sees it: its channel, what it has in hand, whether it makes progress.

Used by `service.pool` alone.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from model.dims import SAMPLE_RATE
from service.channel import AsyncChannel, ChannelClosed, pair
from service.errors import BadRequest, DeadlineExceeded, InternalError, ServiceError
from service.messages import (
    Cancel,
    DetectLanguage,
    Failed,
    Finished,
    LanguageDetected,
    Message,
    ModelInfo,
    SegmentsReady,
    Stop,
    Transcribe,
    WorkerStats,
)
from service.ports import Event
from service.process import oom_kills
from service.settings import environment_of_children

_ERRORS: dict[str, type[ServiceError]] = {"deadline_exceeded": DeadlineExceeded, "invalid_value": BadRequest}


@dataclass(eq=False)
class Job:
    """A request in the pool, and the queue through which its events reach the endpoint."""

    message: Transcribe | DetectLanguage
    fd: int
    """The waveform, ours until the job is over: a worker that dies takes its copy with it."""
    events: asyncio.Queue[Event | ServiceError] = field(default_factory=asyncio.Queue)
    crashes: int = 0
    """Workers that crashed with this job in hand, perhaps because of it."""
    murders: int = 0
    """Workers that somebody else killed with this job in hand."""
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
        self.over = isinstance(event, Finished) or isinstance(self.message, DetectLanguage)
        self.events.put_nowait(event)

    def fail(self, error: ServiceError) -> None:
        """End it with an error."""
        self.over = True
        self.events.put_nowait(error)


class WorkerProcess:
    """A started worker."""

    def __init__(self, device: str, command: Sequence[str], now: float) -> None:
        """`command` starts the worker; the descriptor of its socket and our process id are appended."""
        self.device = device
        ours, theirs = pair()
        with ours, theirs:
            fd = theirs.fileno()
            argv = [*command, "--fd", str(fd), "--parent", str(os.getpid())]
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, pass_fds=(fd,), env=environment_of_children()
            )
            self.channel = AsyncChannel(ours.dup())
        self.info: ModelInfo | None = None
        self.stats: WorkerStats | None = None
        self.jobs: dict[str, Job] = {}
        self.broken = False
        self._killed = False
        self._oom_kills = oom_kills()
        self.progressed_at = now
        """When it last moved on, or was given work while idle."""

    @property
    def ready(self) -> bool:
        """Whether it is warm and takes jobs."""
        return self.info is not None and not self.broken

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio in hand."""
        return sum(job.audio_seconds for job in self.jobs.values())

    def submit(self, job: Job, now: float) -> bool:
        """Send a job and its waveform; False if the worker turns out to be gone."""
        try:
            self.channel.send(job.message, job.fd)
        except ChannelClosed:
            self.broken = True
            return False
        if not self.jobs:
            self.progressed_at = now
        job.seen = 0
        self.jobs[job.request_id] = job
        return True

    def cancel(self, job: Job) -> None:
        """Drop a job that nobody waits for any more."""
        if self.jobs.pop(job.request_id, None) is not None:
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
        elif isinstance(message, SegmentsReady | LanguageDetected | Finished | Failed):
            self.progressed_at = now
            if (job := self.jobs.get(message.request_id)) is None:  # it was cancelled meanwhile
                return
            if isinstance(message, Failed):
                job.fail(_ERRORS.get(message.code, InternalError)(message.message))
            else:
                job.put(message)
            if job.over:
                del self.jobs[message.request_id]

    def hangs(self, now: float, stall_seconds: float) -> bool:
        """Whether it has had work for so long without a sign of progress. An idle worker never hangs."""
        return bool(self.jobs) and now - self.progressed_at > stall_seconds

    def kill(self) -> None:
        """End it by force."""
        self._killed = True
        self.process.kill()

    @property
    def murdered(self) -> bool:
        """Whether it has been killed, and neither by us nor for memory: no job can have done it. If in doubt, no."""
        if self.process.returncode != -signal.SIGKILL or self._killed or self._oom_kills is None:
            return False
        return oom_kills() == self._oom_kills

    async def end(self, grace_seconds: float) -> None:
        """Ask the process to stop, kill it when it does not, and reap it."""
        self.broken = True
        with contextlib.suppress(ChannelClosed):
            self.channel.send(Stop())
        try:
            await asyncio.to_thread(self.process.wait, grace_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            await asyncio.to_thread(self.process.wait)
        self.channel.close()

"""The worker processes as the HTTP process sees them: start, choose one for a job, carry its events, replace the dead.

Gets jobs with a waveform's descriptor from the endpoints, gives back events in order. Runs on the event loop and holds
no tensor. A job goes to the ready worker with the least audio outstanding.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model.dims import SAMPLE_RATE
from service import logs
from service.channel import AsyncChannel, ChannelClosed, pair
from service.errors import BadRequest, DeadlineExceeded, InternalError, ServiceError, Unavailable
from service.messages import (
    Cancel,
    DetectLanguage,
    Failed,
    Finished,
    LanguageDetected,
    Message,
    ModelInfo,
    SegmentsReady,
    StartFailed,
    Stop,
    Transcribe,
    WorkerStats,
)
from service.ports import Event
from service.settings import Settings

_BACK_OFF_SECONDS = (0.1, 1.0, 2.0, 5.0, 10.0, 30.0)
_ERRORS: dict[str, type[ServiceError]] = {
    "deadline_exceeded": DeadlineExceeded,
    "invalid_value": BadRequest,
    "internal_error": InternalError,
}


@dataclass(eq=False)
class _Job:
    """A request inside a worker, and the queue through which its events reach the endpoint."""

    message: Transcribe | DetectLanguage
    events: asyncio.Queue[Event | ServiceError] = field(default_factory=asyncio.Queue)

    @property
    def audio_seconds(self) -> float:
        return self.message.n_samples / SAMPLE_RATE


class WorkerProcess:
    """One worker and what it has in hand."""

    def __init__(self, device: str, command: Sequence[str]) -> None:
        """`command` starts the worker; the descriptor of its socket and our process id are appended."""
        self.device = device
        ours, theirs = pair()
        fd = theirs.fileno()
        argv = [*command, "--fd", str(fd), "--parent", str(os.getpid())]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=(fd,))
        theirs.close()
        self.channel = AsyncChannel(ours)
        self.info: ModelInfo | None = None
        self.stats: WorkerStats | None = None
        self.jobs: dict[str, _Job] = {}

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio in hand."""
        return sum(job.audio_seconds for job in self.jobs.values())

    def submit(self, job: _Job, fd: int) -> None:
        """Send a job and its waveform."""
        self.jobs[job.message.request_id] = job
        self.channel.send(job.message, fd)

    def cancel(self, job: _Job) -> None:
        """Drop a job that nobody waits for any more."""
        if self.jobs.pop(job.message.request_id, None) is not None:
            with contextlib.suppress(ChannelClosed):
                self.channel.send(Cancel(job.message.request_id))

    def take(self, message: Message) -> None:
        """Hand a message of the worker to whom it concerns."""
        if isinstance(message, WorkerStats):
            self.stats = message
        elif isinstance(message, ModelInfo):
            self.info = message
        elif isinstance(message, SegmentsReady | LanguageDetected | Finished | Failed):
            job = self.jobs.get(message.request_id)
            if job is None:  # it was cancelled meanwhile
                return
            last = isinstance(message, Finished | Failed) or isinstance(job.message, DetectLanguage)
            if last:
                del self.jobs[message.request_id]
            job.events.put_nowait(_to_error(message) if isinstance(message, Failed) else message)

    def fail_all(self, error: Callable[[], ServiceError]) -> None:
        """End every job with an error of its own."""
        while self.jobs:
            self.jobs.popitem()[1].events.put_nowait(error())

    async def end(self, grace_seconds: float) -> None:
        """Ask the process to stop, kill it when it does not, and reap it."""
        with contextlib.suppress(ChannelClosed):
            self.channel.send(Stop())
        try:
            await asyncio.to_thread(self.process.wait, grace_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
        self.channel.close()


class WorkerPool:
    """All workers of the service; implements `service.ports.Workers`."""

    def __init__(self, settings: Settings, *, command: Sequence[str] | None = None) -> None:
        """`command`: what to start instead of `python -m service.worker`, with the same arguments."""
        self._settings = settings
        self._command = [sys.executable, "-m", "service.worker"] if command is None else list(command)
        self._workers: dict[str, WorkerProcess] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.restarts = 0
        self.failure: str | None = None

    @property
    def ready(self) -> bool:
        """Whether at least one worker is warm."""
        return any(worker.info for worker in self._workers.values())

    @property
    def model(self) -> ModelInfo | None:
        """What the workers loaded, once the first of them is warm."""
        return next((worker.info for worker in self._workers.values() if worker.info), None)

    def stats(self) -> dict[str, WorkerStats]:
        """The latest counters of each live worker, by device."""
        return {device: worker.stats for device, worker in self._workers.items() if worker.stats}

    async def start(self) -> None:
        """Start one supervised process per device; they load and warm in their own time."""
        self._tasks = [asyncio.create_task(self._supervise(device)) for device in self._devices()]

    async def stop(self, grace_seconds: float) -> None:
        """End every process; jobs still inside fail with 503."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        workers = list(self._workers.values())
        self._workers.clear()
        for worker in workers:
            worker.fail_all(lambda: Unavailable("the server is shutting down", code="draining", retry_after_seconds=1))
        await asyncio.gather(*(worker.end(grace_seconds) for worker in workers))

    async def run(self, job: Transcribe | DetectLanguage, fd: int) -> AsyncGenerator[Event, None]:
        """Events of one job until it is done; `ServiceError` if it fails. Closing the generator cancels the job."""
        ready = [worker for worker in self._workers.values() if worker.info]
        if not ready:
            raise Unavailable("no model worker is ready", code="no_worker", retry_after_seconds=5)
        worker = min(ready, key=lambda candidate: candidate.audio_seconds)
        ours = _Job(job)
        try:
            worker.submit(ours, fd)
            while True:
                event = await ours.events.get()
                if isinstance(event, ServiceError):
                    raise event
                yield event
                if isinstance(event, Finished) or isinstance(job, DetectLanguage):
                    return
        except ChannelClosed:
            raise _worker_stopped() from None
        finally:
            worker.cancel(ours)

    async def _supervise(self, device: str) -> None:
        """Keep one worker alive, waiting longer after each start that failed."""
        failures = 0
        while True:
            worker = self._workers[device] = WorkerProcess(device, self._arguments(device))
            reason = await self._serve(worker)
            was_ready = worker.info is not None
            worker.info = None
            worker.fail_all(_worker_stopped)
            await worker.end(grace_seconds=0.0)
            logs.event("worker_ended", level=30, device=device, pid=worker.process.pid, reason=reason)
            failures = 0 if was_ready else failures + 1
            await asyncio.sleep(_BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)])
            self.restarts += 1

    async def _serve(self, worker: WorkerProcess) -> str:
        """Carry a worker's messages until it ends; why it did."""
        started = time.monotonic()
        while True:
            try:
                message = await worker.channel.receive()
            except ChannelClosed:
                return f"exit status {await asyncio.to_thread(worker.process.wait)}"
            worker.take(message)
            if isinstance(message, ModelInfo):
                logs.event(
                    "worker_ready", device=message.device, model=message.name, compute_type=message.compute_type,
                    pid=worker.process.pid, seconds=time.monotonic() - started,
                )  # fmt: skip
            elif isinstance(message, StartFailed):
                logs.event("worker_start_failed", level=40, device=worker.device, detail=message.message)
                self.failure = message.message
                return "it could not start"

    def _devices(self) -> tuple[str, ...]:
        """The devices of the settings; `auto` is every GPU that the kernel shows, else whatever torch prefers."""
        if self._settings.devices != ("auto",):
            return self._settings.devices
        n_gpus = len([path for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()])
        return tuple(f"cuda:{i}" for i in range(n_gpus)) if n_gpus > 1 else ("auto",)

    def _arguments(self, device: str) -> list[str]:
        settings = self._settings
        arguments = [
            *self._command, "--model", settings.model, "--device", device, "--compute-type", settings.compute_type,
            "--threads", str(settings.threads_per_worker), "--max-rows", str(settings.max_batch_rows),
        ]  # fmt: skip
        if settings.download_dir is not None:
            arguments += ["--download-dir", str(settings.download_dir)]
        return arguments


def _worker_stopped() -> ServiceError:
    return Unavailable("the model worker stopped; try again", code="no_worker", retry_after_seconds=2)


def _to_error(message: Failed) -> ServiceError:
    kind = _ERRORS.get(message.code, InternalError)
    return kind(message.message)

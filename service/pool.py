"""The worker processes: one per device, supervised; jobs go in, events come out, the dead are replaced.

Gets jobs with a waveform's descriptor from the endpoints, gives back events in order. Runs on the event loop and holds
no tensor. A job goes to the ready worker with the least audio outstanding.

When a worker dies, nobody knows which of its jobs was the cause. Each of them becomes a suspect and is run again once,
alone in a worker that takes nothing else meanwhile. The one with which a second worker dies fails for good, and its
recording is refused for ten minutes; the others get their answer. Where somebody else killed the worker (SIGKILL, and
not for memory) no job is to blame: they run again together, or are told to come back later when it happens too often.
"""

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from service import logs
from service.channel import ChannelClosed
from service.errors import InternalError, ServiceError, Unavailable
from service.messages import DetectLanguage, Finished, ModelInfo, StartFailed, Transcribe, WorkerStats
from service.ports import Event
from service.quarantine import Quarantine, fingerprint
from service.settings import Settings
from service.worker_process import Job, WorkerProcess

_BACK_OFF_SECONDS = (0.1, 1.0, 2.0, 5.0, 10.0, 30.0)
_GIVE_UP_FAILURES = 3
"""Starts in a row that may fail before waiting jobs are told to go elsewhere."""
_MAX_CRASHES = 2
"""Workers that crash with a job in hand, the second one with nothing else in hand, until it is to blame."""
_MAX_MURDERS = 4
"""Workers that others kill with a job in hand until it is told to come back later."""
_EXIT_SECONDS = 1.0
"""A process closes its channel a little before it is gone."""
_WATCH_SECONDS = 1.0


class WorkerPool:
    """All workers of the service; implements `service.ports.Workers`."""

    def __init__(
        self,
        settings: Settings,
        *,
        command: Sequence[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`command`: what to start instead of `python -m service.worker`, with the same arguments."""
        self._settings, self._clock = settings, clock
        self._command = [sys.executable, "-m", "service.worker"] if command is None else list(command)
        self._workers: dict[str, WorkerProcess] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: deque[Job] = deque()
        self._suspects: deque[Job] = deque()
        self._reserved: WorkerProcess | None = None
        self._quarantine = Quarantine()
        self.restarts = 0
        self.failure: str | None = None

    @property
    def ready(self) -> bool:
        """Whether at least one worker is warm."""
        return any(worker.ready for worker in self._workers.values())

    @property
    def model(self) -> ModelInfo | None:
        """What the workers loaded, once the first of them is warm."""
        return next((worker.info for worker in self._workers.values() if worker.info), None)

    def stats(self) -> dict[str, WorkerStats]:
        """The latest counters of each live worker, by device; the second one on a device is `cuda:0/2`."""
        return {
            worker.info.device + "".join(name.partition("/")[1:]): worker.stats
            for name, worker in self._workers.items()
            if worker.ready and worker.info and worker.stats
        }

    async def start(self) -> None:
        """Start one supervised process per device; they load and warm in their own time."""
        devices = self._devices()
        earlier = [devices[:i].count(device) for i, device in enumerate(devices)]
        names = [f"{device}/{n + 1}" if n else device for device, n in zip(devices, earlier, strict=True)]
        self._tasks = [asyncio.create_task(self._supervise(name)) for name in names]

    async def stop(self, grace_seconds: float) -> None:
        """End every process; jobs still inside fail with 503."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        workers = list(self._workers.values())
        self._workers.clear()
        for job in [*self._take_waiting(), *(job for worker in workers for job in worker.jobs.values())]:
            job.fail(Unavailable("The server is shutting down.", code="draining", retry_after_seconds=1))
        await asyncio.gather(*(worker.end(grace_seconds) for worker in workers))

    async def run(self, job: Transcribe | DetectLanguage, fd: int) -> AsyncGenerator[Event, None]:
        """Events of one job until it is done; `ServiceError` if it fails. Closing the generator cancels the job."""
        if not self.ready:
            raise Unavailable("No model worker is ready.", code="no_worker", retry_after_seconds=5)
        if len(self._quarantine) and self._quarantine.holds(await asyncio.to_thread(fingerprint, fd), self._clock()):
            raise _crashed()
        ours = Job(job, os.dup(fd))
        try:
            self._waiting.append(ours)
            self._dispatch()
            while True:
                event = await ours.events.get()
                if isinstance(event, ServiceError):
                    raise event
                yield event
                if isinstance(event, Finished) or isinstance(job, DetectLanguage):
                    return
        finally:
            self._forget(ours)

    # --- who runs what ---------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Give waiting jobs to workers; a worker that is reserved for suspects takes one of them at a time."""
        ready = [worker for worker in self._workers.values() if worker.ready]
        if self._reserved not in ready or not (self._suspects or self._reserved.jobs):
            self._reserved = None
        if self._suspects and ready:
            self._reserved = self._reserved or min(ready, key=lambda worker: worker.audio_seconds)
            if not self._reserved.jobs:
                self._hand(self._reserved, self._suspects)
        ready = [worker for worker in ready if worker is not self._reserved]
        while self._waiting and ready:
            worker = min(ready, key=lambda candidate: candidate.audio_seconds)
            if not self._hand(worker, self._waiting):
                ready.remove(worker)

    def _hand(self, worker: WorkerProcess, queue: deque[Job]) -> bool:
        """Send the first job of a queue to a worker, unless the worker is gone."""
        if worker.submit(queue[0], self._clock()):
            queue.popleft()
            return True
        return False

    def _forget(self, job: Job) -> None:
        """A job is over or nobody waits for it: take it out wherever it is."""
        os.close(job.fd)
        for queue in (self._waiting, self._suspects):
            if job in queue:
                queue.remove(job)
        for worker in self._workers.values():
            worker.cancel(job)
        self._dispatch()

    def _take_waiting(self) -> list[Job]:
        """Every job that no worker has in hand; the queues are empty afterwards."""
        jobs = [*self._suspects, *self._waiting]
        self._suspects.clear()
        self._waiting.clear()
        return jobs

    def _mourn(self, worker: WorkerProcess) -> None:
        """A worker has ended: its jobs wait again, are suspects, or are convicted when it was their second crash."""
        innocent = []
        for job in worker.jobs.values():
            job.crashes += not worker.murdered
            job.murders += worker.murdered
            if job.crashes >= _MAX_CRASHES:
                self._quarantine.add(fingerprint(job.fd), self._clock())
                job.fail(_crashed())
            elif job.murders >= _MAX_MURDERS:
                job.fail(Unavailable("Model workers are being killed.", code="no_worker", retry_after_seconds=5))
            elif job.crashes:
                self._suspects.append(job)
            else:
                innocent.append(job)
        self._waiting.extendleft(reversed(innocent))
        worker.jobs.clear()

    # --- processes -------------------------------------------------------------------------------------------------

    async def _supervise(self, name: str) -> None:
        """Keep one worker alive, called by its device, waiting longer after each start that failed."""
        failures = 0
        while True:
            arguments = self._arguments(name.partition("/")[0])
            worker = self._workers[name] = WorkerProcess(name, arguments, self._clock())
            reason = await self._serve(worker)
            failures = 0 if worker.info is not None else failures + 1
            await worker.end(_EXIT_SECONDS)
            self._mourn(worker)
            logs.event(
                "worker_ended", level=40, device=name, pid=worker.process.pid,
                reason="it was killed by somebody else" if worker.murdered else reason,
                status=worker.process.returncode, restarts=self.restarts, detail=self.failure,
            )  # fmt: skip
            if failures >= _GIVE_UP_FAILURES and not self.ready:
                for job in self._take_waiting():
                    job.fail(Unavailable("No model worker can be started.", code="no_worker", retry_after_seconds=30))
            self._dispatch()
            await asyncio.sleep(_BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)])
            self.restarts += 1

    async def _serve(self, worker: WorkerProcess) -> str:
        """Carry a worker's messages until it ends or hangs; why it did."""
        started, out_of_memory = self._clock(), 0
        while True:
            if worker.hangs(self._clock(), self._settings.stall_seconds):
                worker.kill()
                return "it made no progress"
            try:
                async with asyncio.timeout(_WATCH_SECONDS):  # wait_for of Python 3.11 can swallow a cancellation
                    message = await worker.channel.receive()
            except TimeoutError:
                continue
            except ChannelClosed:
                return "it ended"
            worker.take(message, self._clock())
            if isinstance(message, ModelInfo):
                logs.event(
                    "worker_ready", device=message.device, model=message.name, compute_type=message.compute_type,
                    encoder_context=message.encoder_context, cross_kv=message.cross_kv, decoder=message.decoder,
                    max_rows=message.max_rows, steps=message.steps, pid=worker.process.pid,
                    seconds=self._clock() - started,
                )  # fmt: skip
                if message.plain_because is not None:
                    logs.event("steps_not_captured", level=30, device=worker.device, reason=message.plain_because)
                if message.torch_because is not None:
                    logs.event("kernel_not_used", level=30, device=worker.device, reason=message.torch_because)
                self._dispatch()
            elif isinstance(message, WorkerStats) and message.out_of_memory > out_of_memory:
                out_of_memory = message.out_of_memory
                logs.event("worker_out_of_memory", level=30, device=worker.device, count=out_of_memory)
            elif isinstance(message, StartFailed):
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
        share = settings.gpu_memory_share / max(1, settings.devices.count(device))
        arguments = [
            *self._command, "--model", settings.model, "--device", device, "--compute-type", settings.compute_type,
            "--encoder-context", settings.encoder_context, "--cross-kv", settings.cross_kv,
            "--cross-attention", settings.cross_attention, "--cuda-graphs", settings.cuda_graphs,
            "--threads", str(settings.threads_per_worker),
            "--max-rows", str(settings.max_batch_rows), "--memory-share", str(share),
        ]  # fmt: skip
        if settings.download_dir is not None:
            arguments += ["--download-dir", str(settings.download_dir)]
        return arguments


def _crashed() -> ServiceError:
    return InternalError(
        "The request crashed a model worker and will not be tried again.", code="request_crashed_worker"
    )

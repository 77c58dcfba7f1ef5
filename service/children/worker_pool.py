"""The worker processes: one per device, supervised; jobs go in, events come out, the dead are replaced.

Gets jobs with a waveform's descriptor from `service.http.jobs`, gives back events in order. Runs on the event loop and
holds no tensor. Which worker runs which job is for `service.children.dispatcher` to say.
"""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from model.compute_options import ComputeOptions
from service import logs
from service.children.dispatcher import Dispatcher
from service.children.worker_process import WorkerProcess
from service.environment import visible_gpus
from service.errors import Unavailable
from service.ports import Event
from service.settings import Settings
from service.wire.channel import ChannelClosed
from service.wire.messages import (
    Cancelled,
    DetectLanguage,
    Message,
    ModelInfo,
    Received,
    StartFailed,
    Transcribe,
    WorkerStats,
)

_BACK_OFF_SECONDS = (0.1, 1.0, 2.0, 5.0, 10.0, 30.0)
_GIVE_UP_FAILURES = 3
"""Starts in a row that may fail before waiting jobs are told to go elsewhere."""
_EXIT_SECONDS = 1.0
"""A process closes its channel a little before it is gone."""
_WATCH_SECONDS = 1.0
_LATE_SECONDS = 3.0
"""A watch that comes so late says more about this process than about the workers."""
_PROVED_SECONDS = 60.0
"""A worker that lived so long was worth its start."""


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
        self._dispatcher = Dispatcher(self._workers, clock)
        self._rows: dict[str, int] = {}
        """By name, of the last worker that was warm."""
        self._refusals: dict[str, str] = {}
        """By name, why those could not start that have not been warm since."""
        self.restarts = 0

    @property
    def ready(self) -> bool:
        """Whether at least one worker is warm."""
        return any(worker.ready for worker in self._workers.values())

    @property
    def model(self) -> ModelInfo | None:
        """What the workers loaded, once the first of them is warm."""
        return next((worker.info for worker in self._workers.values() if worker.info), None)

    @property
    def failure(self) -> str | None:
        """Why no worker can start, once each has said so; with one of several that can, the service goes on."""
        return next(iter(self._refusals.values())) if 0 < len(self._tasks) == len(self._refusals) else None

    def stats(self) -> dict[str, WorkerStats]:
        """The latest counters of each live worker, by device; the second one on a device is `cuda:0/2`."""
        return {name: worker.stats for name, worker in self._live().items() if worker.stats}

    def in_hand(self) -> dict[str, int]:
        """Requests that each live worker has, by device as in `stats`."""
        return {name: len(worker.in_hand) for name, worker in self._live().items()}

    def _live(self) -> dict[str, WorkerProcess]:
        return {
            worker.info.device + "".join(name.partition("/")[1:]): worker
            for name, worker in self._workers.items()
            if worker.ready and worker.info
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
        for job in [*self._dispatcher.take_waiting(), *(job for worker in workers for job in worker.jobs.values())]:
            job.fail(Unavailable("The server is shutting down.", code="draining", retry_after_seconds=1))
        await asyncio.gather(*(worker.end(grace_seconds) for worker in workers))
        for worker in workers:
            worker.let_go()

    async def run(self, job: Transcribe | DetectLanguage, fd: int) -> AsyncGenerator[Event, None]:
        """Events of one job until it is done; closing the generator cancels the job.

        `ServiceError` if it fails, `OSError` where no descriptor is left.
        """
        if not self.ready:
            raise Unavailable("No model worker is ready.", code="no_worker", retry_after_seconds=5)
        ours = await self._dispatcher.admit(job, fd)
        try:
            self._dispatcher.queue(ours)
            while True:
                event = await ours.events.get()
                if isinstance(event, Exception):
                    raise event
                if done := ours.ends_with(event):
                    self._dispatcher.acquit(ours)
                yield event
                if done:
                    return
        finally:
            self._dispatcher.forget(ours)

    async def _supervise(self, name: str) -> None:
        """Keep one worker alive, called by its device, waiting longer after each that ended for nothing."""
        failures = 0
        while True:
            failures = 0 if await self._life(name) else failures + 1
            if failures >= _GIVE_UP_FAILURES and not self.ready:
                for job in self._dispatcher.take_waiting():
                    job.fail(Unavailable("No model worker can be started.", code="no_worker", retry_after_seconds=30))
            self._dispatcher.dispatch()
            await asyncio.sleep(_BACK_OFF_SECONDS[min(max(0, failures - 1), len(_BACK_OFF_SECONDS) - 1)])
            self.restarts += 1

    async def _life(self, name: str) -> bool:
        """One worker from its start to its end; whether nothing speaks against starting the next one at once.

        It finished something, had a request that may have ended it, or lived for a while. Whoever else kills one will
        kill the next one too: others than the kernel watch a machine's memory.
        """
        try:
            worker = WorkerProcess(name, self._arguments(name), self._clock())
        except OSError as error:
            # No descriptor, process or memory for it: as with any start that fails, there may be soon.
            logs.event("worker_not_started", level=logging.ERROR, device=name, reason=error.strerror, error=error)
            return False
        self._workers[name] = worker
        try:
            reason = await self._serve(worker)
        except Exception as error:
            logs.event("worker_not_understood", level=logging.ERROR, device=name, error=error)
            worker.kill()
            reason = "it was not understood"
        await worker.end(_EXIT_SECONDS)
        logs.event(
            "worker_ended", level=logging.ERROR, device=name, pid=worker.process.pid,
            reason=worker.murder or reason,
            exit_status=worker.exit_status, restarts=self.restarts, detail=worker.failure,
            request_ids=" ".join(job.request_id.rpartition(".")[0] for job in worker.in_hand),
        )  # fmt: skip
        explained = worker.proved or any(job.received for job in worker.in_hand)
        await self._dispatcher.mourn(worker)
        return explained or (worker.info is not None and self._clock() - worker.started_at >= _PROVED_SECONDS)

    async def _serve(self, worker: WorkerProcess) -> str:
        """Carry a worker's messages until it ends or hangs; why it did."""
        started = watched = self._clock()
        while True:
            now = self._clock()
            if now - watched > _LATE_SECONDS:  # it is we who stood still, and what it said meanwhile is not read yet
                worker.progressed_at = now
            watched = now
            if worker.hangs(now, self._settings.stall_seconds):
                worker.kill()
                return "it made no progress"
            if worker.info is None and now - started > self._settings.start_seconds:
                worker.kill()
                return "it was not ready in time"
            try:
                async with asyncio.timeout(_WATCH_SECONDS):  # wait_for of Python 3.11 can swallow a cancellation
                    message = await worker.channel.receive()
            except TimeoutError:
                continue
            except ChannelClosed as error:
                return f"it ended: {error}"
            if isinstance(message, StartFailed):
                self._refusals[worker.device] = worker.failure = message.message
                return "it could not start"
            self._note(worker, message, self._clock() - started)

    def _note(self, worker: WorkerProcess, message: Message, seconds: float) -> None:
        """A worker said something, so many seconds after its start."""
        known = worker.stats.out_of_memory if worker.stats else 0
        worker.take(message, self._clock())
        if isinstance(message, ModelInfo):
            self._rows[worker.device] = message.max_rows
            self._refusals.pop(worker.device, None)
            logs.event(
                "worker_ready", device=message.device, model=message.name, compute_type=message.compute_type,
                encoder_context=message.encoder_context, cross_kv=message.cross_kv, decoder=message.decoder,
                max_rows=message.max_rows, steps=message.steps, pid=worker.process.pid, seconds=seconds,
            )  # fmt: skip
            for event, reason in (
                ("steps_not_captured", message.plain_because),
                ("kernel_not_used", message.torch_because),
                ("steps_not_fused", message.unfused_because),
                ("native_not_used", message.native_because),
            ):
                if reason is not None:
                    logs.event(event, level=logging.WARNING, device=worker.device, reason=reason)
            self._dispatcher.dispatch()
        elif isinstance(message, WorkerStats) and message.out_of_memory > known:
            logs.event("worker_out_of_memory", level=logging.WARNING, device=worker.device, count=message.out_of_memory)
        elif isinstance(message, Cancelled | Received):
            self._dispatcher.dispatch()  # it may have been what kept others waiting

    def _devices(self) -> tuple[str, ...]:
        """The devices of the settings; `auto` is every GPU that kernel and environment show, else torch's choice."""
        if self._settings.devices != ("auto",):
            return self._settings.devices
        n_gpus = len([path for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()])
        if (visible := visible_gpus()) is not None:
            n_gpus = min(n_gpus, visible)
        return tuple(f"cuda:{i}" for i in range(n_gpus)) if n_gpus > 1 else ("auto",)

    def _arguments(self, name: str) -> list[str]:
        settings, device = self._settings, name.partition("/")[0]
        workers = max(1, settings.devices.count(device))
        share = settings.gpu_memory_share / workers
        arguments = [
            *self._command, "--model", settings.model, "--device", device,
            "--threads", str(settings.threads_per_worker), "--max-rows", str(settings.max_batch_rows),
            "--memory-share", str(share), "--workers", str(workers), "--rows-before", str(self._rows.get(name, 0)),
        ]  # fmt: skip
        for option, value in asdict(ComputeOptions.of(settings)).items():
            arguments += [f"--{option.replace('_', '-')}", value]
        if settings.download_dir is not None:
            arguments += ["--download-dir", str(settings.download_dir)]
        return arguments

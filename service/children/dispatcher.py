"""Which worker runs which job, and which job is to blame when a worker dies.

Gets jobs and the ends of workers from `service.children.worker_pool`, gives jobs to `service.children.worker_process`.
A job goes to the ready worker with the least audio outstanding.

When a worker dies, nobody knows which of its jobs was the cause. Each of them becomes a suspect and is run again once,
alone in a worker that takes nothing else meanwhile. The one with which a second worker dies fails for good, and its
recording is refused for ten minutes; the others get their answer. If the client leaves first, the recording stays
suspect for ten minutes. If somebody else killed the worker (SIGKILL, and not for memory), or stopped it (SIGSTOP) until
we killed it, no job is to blame: they run again together, or get 503 if that happens too often.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping

from service.children.quarantine import Quarantine, fingerprint
from service.children.worker_process import Job, WorkerProcess
from service.errors import InternalError, ServiceError, Unavailable
from service.wire.messages import DetectLanguage, Transcribe

_MAX_CRASHES = 2
"""Workers that crash with a job in hand, the second one with nothing else in hand, until it is to blame."""
_MAX_MURDERS = 4
"""Workers that others kill or stop with a job in hand until it is told to come back later."""


class Dispatcher:
    """The jobs that no worker has in hand, and what is held against recordings."""

    def __init__(self, workers: Mapping[str, WorkerProcess], clock: Callable[[], float]) -> None:
        """`workers`: those that there are now; the pool keeps it up to date."""
        self._workers, self._clock = workers, clock
        self._waiting: deque[Job] = deque()
        self._suspects: deque[Job] = deque()
        self._reserved: WorkerProcess | None = None
        self._quarantine = Quarantine()
        self._suspected = Quarantine()

    async def admit(self, job: Transcribe | DetectLanguage, fd: int) -> Job:
        """The job with a descriptor of its own; `InternalError` if its recording is in quarantine, `OSError`."""
        crashes, waveform = 0, b""
        if len(self._quarantine) or len(self._suspected):
            waveform = await _hash(fd)
            if self._quarantine.holds(waveform, self._clock()):
                raise _crashed()
            crashes = int(self._suspected.holds(waveform, self._clock()))
        return Job(job, os.dup(fd), crashes=crashes, waveform=waveform)

    def queue(self, job: Job) -> None:
        """Let it wait for a worker, alone if its recording is suspected."""
        (self._suspects if job.crashes else self._waiting).append(job)
        self.dispatch()

    def acquit(self, job: Job) -> None:
        """It is done, and nothing died of it."""
        self._suspected.remove(job.waveform)

    def dispatch(self) -> None:
        """Give waiting jobs to workers; a worker that is reserved for suspects takes one of them at a time."""
        ready = [worker for worker in self._workers.values() if worker.ready]
        if self._reserved not in ready or not self._reserved.in_hand:
            self._reserved = None
        if self._suspects and ready:
            self._reserved = self._reserved or min(ready, key=lambda worker: worker.audio_seconds)
            if not self._reserved.in_hand:  # nor beside what nobody waits for any more: it may be the cause
                self._hand(self._reserved, self._suspects)
        ready = [worker for worker in ready if worker is not self._reserved and worker.reads]
        while self._waiting and ready:
            worker = min(ready, key=lambda candidate: candidate.audio_seconds)
            if not self._hand(worker, self._waiting) or not worker.reads:
                ready.remove(worker)

    def _hand(self, worker: WorkerProcess, queue: deque[Job]) -> bool:
        """Send the first job of a queue to a worker, unless the worker is gone."""
        try:
            sent = worker.submit(queue[0], self._clock())
        except OSError as error:
            queue.popleft().fail(error)
            return True
        if sent:
            queue.popleft()
        return sent

    def forget(self, job: Job) -> None:
        """A job is over or nobody waits for it: take it out wherever it is."""
        for queue in (self._waiting, self._suspects):
            if job in queue:
                queue.remove(job)
        for worker in self._workers.values():
            worker.cancel(job)
        if not any(job in worker.in_hand for worker in self._workers.values()):
            job.close()
        self.dispatch()

    def take_waiting(self) -> list[Job]:
        """Every job that no worker has in hand; the queues are empty afterwards."""
        jobs = [*self._suspects, *self._waiting]
        self._suspects.clear()
        self._waiting.clear()
        return jobs

    async def mourn(self, worker: WorkerProcess) -> None:
        """A worker has ended: its jobs wait again, are suspects, or are convicted when it was their second crash.

        Nobody waits for those that were leaving it, but they may have been the cause, and then they are refused, or
        suspects when they come back, too.
        """
        for job in [job for job in worker.in_hand if self._blame(job, worker)]:
            job.waveform = job.waveform or await _hash(job.fd)
            (self._suspected if job.crashes < _MAX_CRASHES else self._quarantine).add(job.waveform, self._clock())
        innocent = []
        for job in worker.jobs.values():
            if job.crashes >= _MAX_CRASHES:
                job.fail(_crashed())
            elif job.murders >= _MAX_MURDERS:
                job.fail(Unavailable("Model workers are being killed.", code="no_worker", retry_after_seconds=5))
            elif job.crashes:
                self._suspects.append(job)
            else:
                innocent.append(job)
        self._waiting.extendleft(reversed(innocent))
        worker.jobs.clear()
        worker.let_go()

    def _blame(self, job: Job, worker: WorkerProcess) -> bool:
        """Count a worker's end against this job; whether the job may have caused it."""
        innocent = worker.murder is not None or not job.received
        job.murders += innocent
        job.crashes += not innocent
        return not innocent


async def _hash(fd: int) -> bytes:
    """The fingerprint of a waveform; here, if the machine has no thread left."""
    try:
        return await asyncio.to_thread(fingerprint, fd)
    except RuntimeError:
        return fingerprint(fd)


def _crashed() -> ServiceError:
    return InternalError(
        "The request crashed a model worker and will not be tried again.", code="request_crashed_worker"
    )

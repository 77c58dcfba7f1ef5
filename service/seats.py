"""Who occupies which slot of the batch: the windows under way, the request of each, and when it came and left.

Used by `service.engine` and `service.intake`. A seat is taken once the window is encoded, and is left when the window
ends; one that is vacated before gives its window back to its request, to be taken again.
"""

from model.decode import DecodingBatch
from service.job import Job
from service.timing import SlotTimes


class Seats:
    """The windows in one batch."""

    def __init__(self, batch: DecodingBatch) -> None:
        self._batch = batch
        self._jobs: dict[int, Job] = {}
        self._times = SlotTimes()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def jobs(self) -> list[Job]:
        """The request of each window."""
        return list(self._jobs.values())

    def job(self, slot: int) -> Job:
        """Whose window is there; KeyError where there is none."""
        return self._jobs[slot]

    def turn(self, now: float) -> None:
        """A turn of the engine begins."""
        self._times.turn(now)

    def take(self, slot: int, job: Job, lane: int, now: float) -> None:
        """A window of this lane of a request is in the slot."""
        self._jobs[slot], job.lanes[slot] = job, lane
        self._times.take(slot, now)

    def leave(self, slot: int, now: float) -> tuple[Job, int] | None:
        """A window ended: its request and lane; None if nobody waits for it any more."""
        job = self._jobs.pop(slot, None)
        if job is None:
            return None
        job.note(self._times.leave(slot, now))
        return job, job.lanes.pop(slot)

    def vacate(self, job: Job, lane: int | None = None) -> None:
        """Give back the seats of a request, or of one lane of it; the windows wait again unless the request is over."""
        for slot, taken_by in list(job.lanes.items()):
            if lane is None or taken_by == lane:
                self._vacate(slot)

    def vacate_all(self) -> list[Job]:
        """Give back every seat; the request of each."""
        jobs = self.jobs
        for slot in list(self._jobs):
            self._vacate(slot)
        return jobs

    def _vacate(self, slot: int) -> None:
        job = self._jobs.pop(slot)
        self._times.leave(slot, 0.0)
        job.recording.put_back(job.lanes.pop(slot))
        self._batch.drop(slot)

"""What becomes of windows when something raises: the guilty one is found, the others are decoded all the same.

Used by `service.worker.engine`. Where a step or an encoder pass of many rows raises, nobody knows whose fault it was:
each is done again by itself, and the one that raises again is the one. Where the device's memory is used up nobody is
at fault: fewer windows share it from then on (`service.worker.room`), and those in it wait again.
"""

from collections.abc import Sequence

import torch

from service.worker.faults import Fault
from service.worker.intake import Entry, Intake
from service.worker.job import Job
from service.worker.room import Room
from service.worker.scheduler import Scheduler
from service.worker.seats import Seats


class Recovery:
    """Takes windows out of the batch and lets them wait again; says which request is to end."""

    def __init__(
        self, seats: Seats, intake: Intake, scheduler: Scheduler, *, max_rows: int, windows_per_encode: int
    ) -> None:
        self._seats, self._intake, self._scheduler = seats, intake, scheduler
        self.room = Room(max_rows)
        """For windows in the batch."""
        self.passes = Room(windows_per_encode)
        """For windows in one pass of the encoder."""

    @property
    def out_of_memory(self) -> int:
        """How often memory ran out."""
        return self.room.shrinks + self.passes.shrinks

    def stepped(self) -> None:
        """A step succeeded."""
        self.room.stepped()
        self.passes.stepped()

    def step_failed(self, fault: Fault) -> Job | None:
        """A step of the batch raised: the request whose fault that was, if it was alone; else all wait again."""
        jobs = self._seats.jobs
        if len(jobs) == 1:
            return jobs[0]
        self._seats.vacate_all()
        if fault.exhausted:
            self._make_room(jobs, len(jobs))
        else:
            for job in jobs:
                self._scheduler.suspect(job.request_id)
        return None

    def entry_failed(self, entries: Sequence[Entry], fault: Fault) -> tuple[Sequence[Entry], Job | None]:
        """Windows could not be started: those that are to be tried now, each by itself, and the request to blame.

        What one window raises by itself is its own fault, unless memory ran out while others were in the batch: then it
        waits for a smaller one.
        """
        self._intake.withdraw(entries)
        if len(entries) > 1:
            if fault.exhausted:
                torch.cuda.empty_cache()
                self.passes.shrink(len(entries))
            return entries, None
        for entry in entries:
            if not fault.exhausted or not len(self._seats):
                return (), entry.job
            self._make_room([entry.job], len(self._seats) + 1)
        return (), None

    def _make_room(self, jobs: Sequence[Job], windows: int) -> None:
        """Memory ran out with so many windows in the batch: these jobs' wait again, for a smaller batch.

        Not to be called while the error is handled: its frames hold the memory.
        """
        torch.cuda.empty_cache()
        self.room.shrink(windows)
        self._scheduler.put_back([job.request_id for job in jobs])

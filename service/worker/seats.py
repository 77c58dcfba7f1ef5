"""Who occupies which slot of the batch: the windows under way, the request of each, and when it came and left.

Used by `service.worker.engine` and `service.worker.intake`. A seat is taken once the encoder has the window, and is
left when the window ends; one that is vacated before gives its window back to its request, to be taken again.
"""

from dataclasses import dataclass

from model.decoding.batch import DecodingBatch
from service.worker.job import Job
from service.worker.timing import SlotTimes


@dataclass(frozen=True, slots=True, eq=False)
class Seat:
    """A slot while one window has it."""

    slot: int
    job: Job
    lane: int


class Seats:
    """The windows in one batch."""

    def __init__(self, batch: DecodingBatch) -> None:
        self._batch = batch
        self._seats: dict[int, Seat] = {}
        self._times = SlotTimes()

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def jobs(self) -> list[Job]:
        """The request of each window."""
        return [seat.job for seat in self._seats.values()]

    def job(self, slot: int) -> Job:
        """Whose window is there; KeyError where there is none."""
        return self._seats[slot].job

    def holds(self, seat: Seat) -> bool:
        """Whether this window still has it."""
        return self._seats.get(seat.slot) is seat

    def turn(self, now: float) -> None:
        """A turn of the engine begins."""
        self._times.turn(now)

    def take(self, slot: int, job: Job, lane: int, now: float) -> Seat:
        """A window of this lane of a request is on its way into the slot."""
        seat = self._seats[slot] = Seat(slot, job, lane)
        job.lanes[slot] = lane
        self._times.take(slot, now)
        return seat

    def begin(self, seat: Seat) -> None:
        """The window is encoded and makes its first step in this turn."""
        self._times.begin(seat.slot)

    def leave(self, slot: int, now: float) -> Seat | None:
        """A window ended; None if nobody waits for it any more."""
        seat = self._seats.pop(slot, None)
        if seat is not None:
            seat.job.note(self._times.leave(slot, now))
            del seat.job.lanes[slot]
        return seat

    def vacate(self, job: Job, lane: int | None = None) -> None:
        """Give back the seats of a request, or of one lane of it; the windows wait again unless the request is over."""
        for slot, taken_by in list(job.lanes.items()):
            if lane is None or taken_by == lane:
                self._vacate(slot)

    def vacate_all(self) -> None:
        """Give back every seat."""
        for slot in list(self._seats):
            self._vacate(slot)

    def _vacate(self, slot: int) -> None:
        job = self._seats.pop(slot).job
        self._times.leave(slot, 0.0)
        job.recording.put_back(job.lanes.pop(slot))
        self._batch.drop(slot)

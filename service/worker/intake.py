"""The way into the batch: windows that are admitted in one turn share an encoder pass and begin together.

Used by `service.worker.engine`, which decides who is admitted and what happens if this raises. Gets windows of
requests, has them put through log-Mel and the encoder beside the decode steps (`model.gpu.beside`), and once that is
done hears the languages that nobody named and starts them; gives back messages. On a CPU it is done at once.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from model.decoding.batch import DecodingBatch
from model.decoding.ladder import Listen
from model.decoding.opening import Start
from model.gpu.beside import Beside, Ticket
from model.transcriber import Transcriber
from model.window import DecodingResult, Window
from service.wire.messages import LanguageDetected, Message
from service.worker.job import Job
from service.worker.seats import Seat, Seats


@dataclass(frozen=True, slots=True)
class Entry:
    """A window that was taken of a request and is to be decoded next."""

    job: Job
    lane: int
    window: Window

    @property
    def asks_language(self) -> bool:
        """Whether its language is an answer to the request."""
        return self.window.settles_language or self.job.detect_only


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Windows in the encoder, with the seats that await them."""

    entries: tuple[tuple[Seat, Entry], ...]
    ticket: Ticket


class Intake:
    """Encodes and starts windows."""

    def __init__(self, transcriber: Transcriber, batch: DecodingBatch, seats: Seats, beside: Beside) -> None:
        self._transcriber, self._batch, self._seats, self._beside = transcriber, batch, seats, beside
        self._groups: list[Group] = []

    @property
    def pending(self) -> list[Entry]:
        """Windows in the encoder whose requests still wait for them."""
        return [entry for group in self._groups for _, entry in self._present(group)]

    @property
    def rows(self) -> int:
        """Rows that they will need."""
        return sum(entry.job.options.width for entry in self.pending)

    def launch(self, entries: Sequence[Entry], now: float) -> None:
        """Encode windows together. Whatever it raises, `withdraw` undoes it."""
        spans = [entry.job.span(entry.window) for entry in entries]
        n_frames = [span.n_frames for span in spans]
        slots, ticket = self._beside.run(lambda: self._batch.encode(self._transcriber.log_mel.windows(spans), n_frames))
        seats = [self._seats.take(slot, e.job, e.lane, now) for slot, e in zip(slots, entries, strict=True)]
        self._groups.append(Group(tuple(zip(seats, entries, strict=True)), ticket))

    def arrived(self) -> Group | None:
        """The next group that has left the encoder; where no row is decoded meanwhile, the next one there.

        Then the device waits for it, and holds nobody up.
        """
        idle = self._batch.active_rows == 0
        return next((group for group in self._groups if idle or group.ticket.done), None)

    def present(self, group: Group) -> list[Entry]:
        """Its windows but those that nobody waits for any more."""
        return [entry for _, entry in self._present(group)]

    def begin(self, group: Group) -> tuple[list[Message], list[Job]]:
        """Start those windows of a group that are `present`; whatever it raises, `withdraw` undoes it.

        Messages, and the requests that are answered by them.
        """
        self._groups.remove(group)
        group.ticket.join()
        entries = self._present(group)
        asking = [seat.slot for seat, entry in entries if entry.asks_language]
        heard = dict(zip(asking, self._batch.detect_languages(asking), strict=True)) if asking else {}
        messages: list[Message] = []
        starts: list[Start] = []
        for seat, entry in entries:
            job, window = entry.job, entry.window
            if seat.slot in heard:
                window = replace(window, language=job.recording.hear_language(heard[seat.slot]))
                probabilities = heard[seat.slot] or {"en": 1.0}
                messages.append(LanguageDetected(job.request_id, str(window.language), probabilities))
            if not job.detect_only:
                starts.append(Start(seat.slot, window, job.options, self._listener(job, window)))
                self._seats.begin(seat)
        if starts:
            self._batch.start_all(starts)
        return messages, [entry.job for _, entry in entries if entry.job.detect_only]

    def _listener(self, job: Job, window: Window) -> Listen:
        """The detector for a window in the batch. What fails there fails once more, alone, when its text is weighed."""

        def listen(result: DecodingResult) -> DecodingResult:
            with suppress(Exception):
                return self._transcriber.weigh(result, window, job.samples, job.options)
            return result

        return listen

    def withdraw(self, entries: Sequence[Entry]) -> None:
        """Take windows back out, however far they came: they are to be taken again."""
        for entry in entries:
            entry.job.recording.put_back(entry.lane)
            self._seats.vacate(entry.job, entry.lane)

    def _present(self, group: Group) -> list[tuple[Seat, Entry]]:
        return [(seat, entry) for seat, entry in group.entries if self._seats.holds(seat)]

"""The way into the batch: windows that are admitted in one turn share an encoder pass and begin together.

Used by `service.engine`, which decides who is admitted and what happens if this raises. Gets windows of requests, puts
them through log-Mel and the encoder, hears the languages that nobody named, and starts them; gives back messages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from model.decode import DecodingBatch
from model.opening import Start
from model.transcriber import Transcriber
from model.window import Window
from service.job import Job
from service.messages import LanguageDetected, Message
from service.seats import Seats


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


class Intake:
    """Encodes and starts windows."""

    def __init__(self, transcriber: Transcriber, batch: DecodingBatch, seats: Seats) -> None:
        self._transcriber, self._batch, self._seats = transcriber, batch, seats

    def start(self, entries: Sequence[Entry], now: float) -> tuple[list[Message], list[Job]]:
        """Let windows into the batch; messages, and the requests that are answered already.

        Whatever it raises, `Intake.withdraw` undoes it.
        """
        for entry in entries:
            if entry.job.started is None:
                entry.job.started = now
        spans = [entry.job.span(entry.window) for entry in entries]
        slots = self._batch.encode(self._transcriber.log_mel.windows(spans), [span.n_frames for span in spans])
        for slot, entry in zip(slots, entries, strict=True):
            self._seats.take(slot, entry.job, entry.lane, now)
        return self._begin(dict(zip(slots, entries, strict=True)))

    def withdraw(self, entries: Sequence[Entry]) -> None:
        """Take windows back out, however far they came: they are to be taken again."""
        for entry in entries:
            entry.job.recording.put_back(entry.lane)
            self._seats.vacate(entry.job, entry.lane)

    def _begin(self, entries: Mapping[int, Entry]) -> tuple[list[Message], list[Job]]:
        asking = [slot for slot, entry in entries.items() if entry.asks_language]
        heard = dict(zip(asking, self._batch.detect_languages(asking), strict=True)) if asking else {}
        messages: list[Message] = []
        starts: list[Start] = []
        for slot, entry in entries.items():
            job, window = entry.job, entry.window
            if slot in heard:
                window = replace(window, language=job.recording.hear_language(heard[slot]))
                probabilities = heard[slot] or {"en": 1.0}
                messages.append(LanguageDetected(job.request_id, str(window.language), probabilities))
            if not job.detect_only:
                starts.append(Start(slot, window, job.options))
        if starts:
            self._batch.start_all(starts)
        return messages, [entry.job for entry in entries.values() if entry.job.detect_only]

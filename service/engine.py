"""One worker's loop over all its requests: admit, hear, encode, decode one step, hand out what is done.

Gets requests with their waveform from `service.worker`, asks `service.scheduler` whose turn it is, drives
`model.decode` and every request's own `model.transcript`; gives back messages. It owns no process, pipe or clock, so a
test drives it call by call.

A request that raises fails alone: its slot comes back and the others go on. Where a step of many rows raises, nobody
knows whose fault it was: each row is decoded again by itself, and the one that raises again is the one. Where the
device's memory is used up nobody is at fault: fewer windows share it from then on, and those in it wait again.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.decode import DecodingBatch
from model.dims import SAMPLE_RATE
from model.errors import OptionError
from model.mel import MaximumSearch, MelSpan
from model.options import TranscribeOptions
from model.transcriber import Transcriber, check_options
from model.transcript import Transcript
from model.window import DecodingResult, Window
from service.messages import DetectLanguage, Failed, Finished, LanguageDetected, Message, SegmentsReady, Transcribe
from service.room import Room
from service.scheduler import Scheduler

_WINDOWS_HEARD = 8
"""Windows whose maximum is sought in one turn, about 4 ms each on a CPU, so that a long recording stalls nobody."""


@dataclass(eq=False)
class Job:
    """One request inside the worker."""

    request_id: str
    samples: Tensor
    options: TranscribeOptions
    transcript: Transcript
    detect_only: bool
    submitted: float
    search: MaximumSearch
    started: float | None = None
    slot: int | None = None


@dataclass
class EngineStats:
    """Counters since the start."""

    audio_seconds: float = 0.0
    encodes: int = 0
    tokens: int = 0
    guards: Counter[str] = field(default_factory=Counter)


class Engine:
    """All requests of one device; one thread drives it."""

    def __init__(self, transcriber: Transcriber, *, max_rows: int, windows_per_encode: int) -> None:
        """`windows_per_encode`: windows that share an encoder pass (1 on a CPU, which one window keeps busy)."""
        self._transcriber = transcriber
        self._windows_per_encode = windows_per_encode
        self.batch = DecodingBatch(transcriber.model, transcriber.tokenizer, max_windows=max_rows)
        self._scheduler = Scheduler(steps_between_encodes=4)
        self.room = Room(max_rows)
        self._jobs: dict[str, Job] = {}
        self._listening: deque[Job] = deque()
        self._by_slot: dict[int, Job] = {}
        self.stats = EngineStats()

    @property
    def busy(self) -> bool:
        """Whether `iterate` has anything to do."""
        return bool(self._jobs)

    @property
    def waiting_windows(self) -> int:
        """Windows that wait for a slot."""
        return self._scheduler.waiting + len(self._listening)

    def submit(self, request: Transcribe | DetectLanguage, samples: Tensor, now: float) -> list[Message]:
        """Take a request in; the answer is empty, or says at once why the model cannot do it."""
        detect_only = isinstance(request, DetectLanguage)
        options = TranscribeOptions() if isinstance(request, DetectLanguage) else request.options
        try:
            options = check_options(options, self._transcriber.name, self._transcriber.model)
            _check_width(options, self.batch.max_rows)
        except OptionError as error:
            return [Failed(request.request_id, "invalid_value", str(error))]
        transcript = Transcript(self._transcriber.dims, self._transcriber.tokenizer, options, n_samples=len(samples))
        search = MaximumSearch(self._transcriber.log_mel, samples)
        job = Job(request.request_id, samples, options, transcript, detect_only, submitted=now, search=search)
        self._jobs[job.request_id] = job
        self._scheduler.add(job.request_id, request.deadline, width=options.width, queue=False)
        self._listening.append(job)
        return []

    def reset_stats(self) -> None:
        """Forget what was counted so far: the warm-up is nobody's request."""
        self.stats = EngineStats()
        self.batch.steps.clear()
        self.batch.fallbacks.clear()

    def cancel(self, request_id: str) -> None:
        """Forget a request; unknown ones (just finished) are ignored."""
        job = self._jobs.pop(request_id, None)
        self._scheduler.remove(request_id)
        if job is not None:
            if job in self._listening:
                self._listening.remove(job)
            self._vacate(job)

    def iterate(self, now: float) -> list[Message]:
        """One turn: drop who is late, start who is next, advance every row by a token."""
        messages = [
            self._fail(request_id, "deadline_exceeded", "the deadline passed before the work was done")
            for request_id in self._scheduler.late(now)
        ]
        messages += self._listen()
        room = max(0, self.room.windows - len(self._by_slot))
        limit = min(self._windows_per_encode, self.batch.free_windows, room)
        running = self.batch.active_rows > 0
        for request_id in self._scheduler.admit(limit, rows=self.batch.free_rows, running=running):
            messages += self._guarded(request_id, now)
        self._scheduler.stepped()
        for slot, result in self._step(messages):
            job = self._by_slot.pop(slot)
            job.slot = None
            self.stats.tokens += len(result.tokens)
            messages += self._feed(job, result, now)
        return messages

    def _listen(self) -> list[Message]:
        """Hear a bounded piece of those whose maximum is not known yet, in turns; the heard await a window."""
        for _ in range(_WINDOWS_HEARD):
            if not self._listening:
                break
            job = self._listening.popleft()
            try:
                heard = job.search.advance(1)
            except Exception as error:
                return [self._fail(job.request_id, "internal_error", _inside(error))]
            if heard:
                self._scheduler.requeue(job.request_id)
            else:
                self._listening.append(job)
        return []

    def _step(self, messages: list[Message]) -> list[tuple[int, DecodingResult]]:
        """One step of the batch; one that raises ends a row that is alone, and separates rows that are not."""
        try:
            ended = self.batch.step()
        except Exception as error:
            reason, exhausted = _inside(error), isinstance(error, torch.OutOfMemoryError)
        else:
            self.room.stepped()
            return ended
        jobs = list(self._by_slot.values())
        if len(jobs) == 1:
            messages.append(self._fail(jobs[0].request_id, "internal_error", reason))
            return []
        for job in jobs:
            self._vacate(job)
        if exhausted:
            self._make_room(jobs, len(jobs))
        else:
            for job in jobs:
                self._scheduler.suspect(job.request_id)
        return []

    def _guarded(self, request_id: str, now: float) -> list[Message]:
        """Start a request's next window; whatever it raises ends that request alone."""
        job = self._jobs[request_id]
        try:
            return self._start(job, now)
        except Exception as error:
            reason, exhausted = _inside(error), isinstance(error, torch.OutOfMemoryError)
        self._vacate(job)
        if exhausted and self._by_slot:
            self._make_room([job], len(self._by_slot) + 1)
            return []
        return [self._fail(request_id, "internal_error", reason)]

    def _make_room(self, jobs: list[Job], windows: int) -> None:
        """Memory ran out with so many windows in the batch: these jobs' wait again, for a smaller batch.

        Not to be called while the error is handled: its frames hold the memory.
        """
        torch.cuda.empty_cache()
        self.room.shrink(windows)
        self._scheduler.put_back([job.request_id for job in jobs])

    def _start(self, job: Job, now: float) -> list[Message]:
        if job.started is None:
            job.started = now
        window = job.transcript.next_window()
        if window is None:
            return self._finish(job, now)
        job.slot = self._encode(job, window)
        if job.detect_only:
            probabilities = self.batch.detect_language(job.slot)
            self.batch.release(job.slot)
            self._leave(job)
            language = next(iter(probabilities), "en")
            return [LanguageDetected(job.request_id, language, probabilities or {"en": 1.0})]
        self._by_slot[job.slot] = job
        self.batch.start(job.slot, window, job.options)
        return []

    def _encode(self, job: Job, window: Window) -> int:
        span = MelSpan(job.samples, window.seek, window.n_frames, job.search.maximum)
        (slot,) = self.batch.encode(self._transcriber.log_mel.windows([span]))
        self.stats.encodes += 1
        return slot

    def _feed(self, job: Job, result: DecodingResult, now: float) -> list[Message]:
        messages: list[Message] = []
        skipped = len(job.transcript.skipped)
        segments = job.transcript.feed(result)
        self.stats.guards.update(stretch.reason for stretch in job.transcript.skipped[skipped:])
        if result.language_probs:
            messages.append(LanguageDetected(job.request_id, result.language, result.language_probs))
        if segments:
            messages.append(SegmentsReady(job.request_id, segments))
        if job.transcript.next_window() is None:
            return messages + self._finish(job, now)
        self._scheduler.requeue(job.request_id)
        return messages

    def _finish(self, job: Job, now: float) -> list[Message]:
        self._leave(job)
        self.stats.audio_seconds += len(job.samples) / SAMPLE_RATE
        started = now if job.started is None else job.started
        result = job.transcript.result()
        times = started - job.submitted, now - started
        return [Finished(job.request_id, result.language, result.text, *times, result.warnings)]

    def _fail(self, request_id: str, code: str, message: str) -> Message:
        self.cancel(request_id)
        return Failed(request_id, code, message)  # type: ignore[arg-type]

    def _vacate(self, job: Job) -> None:
        """Give back the slot of a job's window, if it has one."""
        if job.slot is not None:
            self._by_slot.pop(job.slot, None)
            self.batch.drop(job.slot)
            job.slot = None

    def _leave(self, job: Job) -> None:
        self._jobs.pop(job.request_id, None)
        self._scheduler.remove(job.request_id)


def _check_width(options: TranscribeOptions, max_rows: int) -> None:
    if options.width > max_rows:
        name = "beam_size" if options.width == options.beam_size else "best_of"
        raise OptionError(name, f"{name} is {options.width}, and this service decodes {max_rows} rows at a time")


def _inside(error: Exception) -> str:
    """What the client reads of an error of ours: its type, never its text, which may quote the request."""
    return f"the request failed inside the model ({type(error).__name__})"

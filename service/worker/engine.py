"""One worker's loop over all its requests: admit, hear, encode, decode one step, hand out what is done.

Gets requests with their waveform from `service.worker`, asks `service.worker.scheduler` whose turn it is, drives
`service.worker.intake`, `model.decoding.batch` and every request's own `model.longform.recording`; gives back messages.
It owns no process, pipe or clock, so a test drives it call by call.

A request that raises fails alone: its slot comes back and the others go on. Where a step or an encoder pass of many
rows raises, nobody knows whose fault it was: each is done again by itself, and the one that raises again is the one.
Where the device's memory is used up nobody is at fault: fewer windows share it from then on, and those in it wait
again; what is done for one request alone is done once more. A device that answers nothing any more ends the worker.
"""

from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from model.capabilities import check_options
from model.decoding.batch import DecodingBatch
from model.dims import SAMPLE_RATE
from model.errors import DeviceLostError, OptionError
from model.gpu.beside import Beside, Inline
from model.gpu.cuda import is_lost
from model.options import TranscribeOptions, check_width
from model.transcriber import Transcriber
from model.window import DecodingResult
from service.wire.messages import DetectLanguage, Failed, Finished, Message, SegmentsReady, Transcribe
from service.worker.intake import Entry, Group, Intake
from service.worker.job import Job
from service.worker.room import Room
from service.worker.scheduler import Scheduler
from service.worker.seats import Seats

Result = TypeVar("Result")

_HEARD_A_TURN = 8
"""What is spent on hearing recordings in one turn (`Job.listen`): some 40 ms, so that a long one stalls nobody."""
STEPS_BETWEEN_ENCODES = 4
_STEPS_BETWEEN_LANES = 32
"""Where a window keeps the device busy: a short request is rarely held up by more than one window of a long one."""


@dataclass
class EngineStats:
    """Counters since the start."""

    audio_seconds: float = 0.0
    heard: int = 0
    """Pieces of recordings, before their first window."""
    encodes: int = 0
    tokens: int = 0
    guards: Counter[str] = field(default_factory=Counter)


class Engine:
    """All requests of one device; one thread drives it."""

    def __init__(
        self,
        transcriber: Transcriber,
        *,
        max_rows: int,
        windows_per_encode: int,
        beside: Beside | None = None,
        steps_between_encodes: int = STEPS_BETWEEN_ENCODES,
    ) -> None:
        """`windows_per_encode`: windows that share an encoder pass (1 on a CPU, which one window keeps busy).

        `beside`: where encoder passes are done; None is at once. `steps_between_encodes`: steps that rows get
        before the next pass.
        """
        self._transcriber = transcriber
        self.batch = DecodingBatch(transcriber.model, transcriber.tokenizer, max_windows=max_rows)
        with suppress(torch.OutOfMemoryError):  # then steps are recorded as they come, by whom there is room for
            self.batch.prepare(windows_per_encode)
        self.seats = Seats(self.batch)
        self._intake = Intake(transcriber, self.batch, self.seats, beside or Inline())
        self._scheduler = Scheduler(
            steps_between_encodes=steps_between_encodes,
            steps_between_lanes=_STEPS_BETWEEN_LANES if windows_per_encode == 1 else steps_between_encodes,
        )
        self.room = Room(max_rows)
        self._passes = Room(windows_per_encode)
        self._jobs: dict[str, Job] = {}
        self._listening: deque[Job] = deque()
        self.stats = EngineStats()

    @property
    def busy(self) -> bool:
        """Whether `iterate` has anything to do."""
        return bool(self._jobs)

    @property
    def waiting_windows(self) -> int:
        """Windows that wait for a slot."""
        return self._scheduler.waiting + len(self._listening)

    @property
    def out_of_memory(self) -> int:
        """How often memory ran out."""
        return self.room.shrinks + self._passes.shrinks

    def submit(self, request: Transcribe | DetectLanguage, samples: Tensor, now: float) -> list[Message]:
        """Take a request in; the answer is empty, or says at once why the model cannot do it."""
        detect_only = isinstance(request, DetectLanguage)
        options = request.options if isinstance(request, Transcribe) else TranscribeOptions(long_form="sequential")
        try:
            options = check_options(options, self._transcriber.name, self._transcriber.model)
            check_width(options, self.batch.max_rows)
            job = Job(self._transcriber, request.request_id, samples, options, detect_only=detect_only, submitted=now)
        except OptionError as error:
            return [Failed(request.request_id, "invalid_value", str(error), error.param)]
        except Exception as error:
            return [Failed(request.request_id, "internal_error", self._inside(error))]
        self._jobs[job.request_id] = job
        self._scheduler.add(job.request_id, request.deadline, width=options.width)
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
        if job is not None:
            if job in self._listening:
                self._listening.remove(job)
            self.seats.vacate(job)
            self._scheduler.remove(request_id)

    def iterate(self, now: float) -> list[Message]:
        """One turn: drop who is late, start who is next, advance every row by a token."""
        messages = [
            self._fail(request_id, "deadline_exceeded", "the deadline passed before the work was done")
            for request_id in self._scheduler.late(now)
        ]
        self.seats.turn(now)
        messages += self._listen(now)
        messages += self._enter(self._admitted(), now)
        while (group := self._intake.arrived()) is not None:
            messages += self._begin(group, now)
        self._scheduler.stepped()
        for slot, result in self._step(messages):
            if (seat := self.seats.leave(slot, now)) is None:
                continue  # its request failed just now, with another window of its own
            self._scheduler.ended(seat.job.request_id)
            self.stats.tokens += len(result.tokens)
            try:
                messages += self._feed(seat.job, seat.lane, result, now)
            except Exception as error:
                messages.append(self._fail(seat.job.request_id, "internal_error", self._inside(error)))
        return messages

    def _admitted(self) -> list[str]:
        """The requests whose next windows are encoded now."""
        room = max(0, self.room.windows - len(self.seats))
        rows = self.batch.free_rows - self._intake.rows
        limit = min(self._passes.windows, self.batch.free_windows, room, rows)
        running = self.batch.active_rows > 0 or bool(self._intake.pending)
        return self._scheduler.admit(limit, rows=rows, running=running, places=self.room.windows)

    def _listen(self, now: float) -> list[Message]:
        """Hear a bounded piece of those that are not heard yet, in turns; the heard await a window."""
        messages: list[Message] = []
        spent = 0
        while self._listening and spent < _HEARD_A_TURN:
            job = self._listening.popleft()
            try:
                spent += _twice(job.listen)
            except Exception as error:
                messages.append(self._fail(job.request_id, "internal_error", self._inside(error)))
                continue
            self.stats.heard += 1
            if not job.heard:
                self._listening.append(job)
            elif job.recording.done:
                messages += self._finish(job, now)
            else:
                self._scheduler.requeue(job.request_id, job.recording.waiting)
        return messages

    def _step(self, messages: list[Message]) -> list[tuple[int, DecodingResult]]:
        """One step of the batch; one that raises ends a row that is alone, and separates rows that are not."""
        try:
            ended = self.batch.step()
        except Exception as error:
            reason, exhausted = self._inside(error), isinstance(error, torch.OutOfMemoryError)
        else:
            self.room.stepped()
            self._passes.stepped()
            return ended
        jobs = self.seats.jobs
        if len(jobs) == 1:
            messages.append(self._fail(jobs[0].request_id, "internal_error", reason))
            return []
        self.seats.vacate_all()
        if exhausted:
            self._make_room(jobs, len(jobs))
        else:
            for job in jobs:
                self._scheduler.suspect(job.request_id)
        return []

    def _enter(self, request_ids: list[str], now: float) -> list[Message]:
        """Encode windows of these requests, all of them together."""
        entries = self._take(request_ids)
        if not entries:
            return []
        self.stats.encodes += len(entries)
        try:
            self._intake.launch(entries, now)
        except Exception as error:
            reason, exhausted = self._inside(error), isinstance(error, torch.OutOfMemoryError)
        else:
            return []
        return self._undone(entries, reason, exhausted, now)

    def _begin(self, group: Group, now: float) -> list[Message]:
        """Start windows that are encoded."""
        entries = self._intake.present(group)
        try:
            messages, answered = self._intake.begin(group)
        except Exception as error:
            reason, exhausted = self._inside(error), isinstance(error, torch.OutOfMemoryError)
        else:
            for job in answered:
                self.cancel(job.request_id)
            return messages
        return self._undone(entries, reason, exhausted, now)

    def _undone(self, entries: list[Entry], reason: str, exhausted: bool, now: float) -> list[Message]:
        """Windows could not be started: of several each is tried by itself; what one raises ends its request.

        Unless memory ran out: then it waits for a smaller batch, if there are others in it.
        """
        self._intake.withdraw(entries)
        if len(entries) > 1:
            if exhausted:
                torch.cuda.empty_cache()
                self._passes.shrink(len(entries))
            return [message for entry in entries for message in self._enter([entry.job.request_id], now)]
        for entry in entries:
            if not exhausted or not len(self.seats):
                return [self._fail(entry.job.request_id, "internal_error", reason)]
            self._make_room([entry.job], len(self.seats) + 1)
        return []

    def _make_room(self, jobs: list[Job], windows: int) -> None:
        """Memory ran out with so many windows in the batch: these jobs' wait again, for a smaller batch.

        Not to be called while the error is handled: its frames hold the memory.
        """
        torch.cuda.empty_cache()
        self.room.shrink(windows)
        self._scheduler.put_back([job.request_id for job in jobs])

    def _take(self, request_ids: list[str]) -> list[Entry]:
        """The next window of each; none of a request that ended just now, with another window of its own.

        Nor a window beside one that settles its language: it would not know it, and waits for it.
        """
        entries: list[Entry] = []
        for request_id in request_ids:
            job = self._jobs.get(request_id)
            if job is None:
                continue
            if any(entry.job is job and entry.asks_language for entry in (*entries, *self._intake.pending)):
                self._scheduler.put_back([request_id])
            elif taken := job.recording.take():
                entries.append(Entry(job, *taken))
        return entries

    def _feed(self, job: Job, lane: int, result: DecodingResult, now: float) -> list[Message]:
        messages: list[Message] = []
        window = job.recording.window(lane)
        result = _twice(lambda: self._transcriber.weigh(result, window, job.samples, job.options))
        if segments := job.recording.feed(lane, result):
            messages.append(SegmentsReady(job.request_id, segments))
        if job.recording.done:
            return messages + self._finish(job, now)
        self._scheduler.requeue(job.request_id, job.recording.waiting)
        return messages

    def _finish(self, job: Job, now: float) -> list[Message]:
        self.cancel(job.request_id)
        self.stats.audio_seconds += len(job.samples) / SAMPLE_RATE
        self.stats.guards.update(job.recording.guards)
        started = now if job.started is None else job.started
        result = job.recording.result()
        times = started - job.submitted, now - started
        return [Finished(job.request_id, result.language, result.text, *times, result.warnings, tuple(job.windows))]

    def _inside(self, error: Exception) -> str:
        """What the client reads of an error of ours: its type, never its text, which may quote the request.

        `DeviceLostError` where it is not the request: nothing of this process will succeed any more.
        """
        if not isinstance(error, torch.OutOfMemoryError) and is_lost(self._transcriber.model.device):
            raise DeviceLostError("the device does not answer any more") from error
        return f"the request failed inside the model ({type(error).__name__})"

    def _fail(self, request_id: str, code: str, message: str) -> Message:
        self.cancel(request_id)
        return Failed(request_id, code, message)  # type: ignore[arg-type]


def _twice(work: Callable[[], Result]) -> Result:
    """What it gives, the second time if memory ran out in the first: with what torch keeps for later given back.

    For what is done for one request alone, and takes so little that a smaller batch would be no help.
    """
    try:
        return work()
    except torch.OutOfMemoryError:
        pass  # and not here, where the error's frames hold the memory
    torch.cuda.empty_cache()
    return work()

"""One worker's loop over all its requests: admit, hear, encode, decode one step, hand out what is done.

Gets requests with their waveform from `service.worker`, asks `service.worker.scheduler` whose turn it is, drives
`service.worker.intake`, `model.decoding.batch` and every request's own `model.longform.recording`; gives back messages.
It owns no process or pipe and goes by no clock, so a test drives it call by call.

A request that raises fails alone: its slot comes back and the others go on (`service.worker.recovery`). What is done
for one request alone is done once more where memory ran out. A device that answers nothing any more ends the worker.
"""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

from model.decoding.batch import DecodingBatch
from model.dims import SAMPLE_RATE
from model.errors import OptionError
from model.gpu.beside import Beside, Inline
from model.transcriber import Transcriber
from model.window import DecodingResult
from service.wire.messages import DetectLanguage, Failed, Message, SegmentsReady, Transcribe
from service.worker.faults import Fault, failed, fault_of, twice
from service.worker.intake import Entry, Group, Intake
from service.worker.job import Job
from service.worker.recovery import Recovery
from service.worker.scheduler import Scheduler
from service.worker.seats import Seats
from service.worker.stats import EngineStats

_HEARD_A_TURN = 8
"""What is spent on hearing recordings in one turn (`Job.listen`): some 40 ms, so that a long one stalls nobody."""
STEPS_BETWEEN_ENCODES = 4
_HOPELESS = "Too little time was left to do the work before the deadline."
_STEPS_BETWEEN_LANES = 32
"""Where a window keeps the device busy: a short request is rarely held up by more than one window of a long one."""


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
        self._transcriber, self._device = transcriber, transcriber.model.device
        self.batch = DecodingBatch(transcriber.model, transcriber.tokenizer, max_windows=max_rows)
        with suppress(torch.OutOfMemoryError):  # then steps are recorded as they come, by whom there is room for
            self.batch.prepare(windows_per_encode)
        self.seats = Seats(self.batch)
        self._intake = Intake(transcriber, self.batch, self.seats, beside or Inline())
        self._scheduler = Scheduler(
            steps_between_encodes=steps_between_encodes,
            steps_between_lanes=_STEPS_BETWEEN_LANES if windows_per_encode == 1 else steps_between_encodes,
        )
        self.recovery = Recovery(
            self.seats, self._intake, self._scheduler, max_rows=max_rows, windows_per_encode=windows_per_encode
        )
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

    def submit(self, request: Transcribe | DetectLanguage, samples: Tensor, now: float) -> list[Message]:
        """Take a request in; the answer is empty, or says at once why the model cannot do it."""
        try:
            job = Job(self._transcriber, request, samples, max_rows=self.batch.max_rows, submitted=now)
        except OptionError as error:
            return [Failed(request.request_id, "invalid_value", f"{error}.", error.param)]
        except Exception as error:
            return [failed(request.request_id, fault_of(error, self._device))]
        self._jobs[job.request_id] = job
        self._scheduler.add(job.request_id, request.deadline, width=job.options.width)
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
        self.stats.clock.start()
        self._scheduler.turn(now)
        messages = self._shed(self._scheduler.late(now), "The deadline passed before the work was done.")
        self.seats.turn(now)
        messages += self._listen(now)
        messages += self._shed(self._scheduler.hopeless(now), _HOPELESS)
        self.stats.clock.lap("hear")
        messages += self._enter(self._admitted(), now)
        self.stats.clock.lap("encode")
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
                messages.append(self._broke(seat.job, fault_of(error, self._device)))
        self.stats.clock.lap("decode")
        return messages

    def _admitted(self) -> list[str]:
        """The requests whose next windows are encoded now."""
        places = self.recovery.room.windows
        rows = self.batch.free_rows - self._intake.rows
        limit = min(self.recovery.passes.windows, self.batch.free_windows, max(0, places - len(self.seats)), rows)
        running = self.batch.active_rows > 0 or bool(self._intake.pending)
        return self._scheduler.admit(limit, rows=rows, running=running, places=places)

    def _listen(self, now: float) -> list[Message]:
        """Hear a bounded piece of those that are not heard yet, in turns; the heard await a window."""
        messages: list[Message] = []
        spent = 0
        while self._listening and spent < _HEARD_A_TURN:
            job = self._listening.popleft()
            try:
                spent += twice(job.listen)
            except Exception as error:
                messages.append(self._broke(job, fault_of(error, self._device)))
                continue
            self.stats.heard += 1
            if not job.heard:
                self._listening.append(job)
            elif job.recording.done:
                messages += self._finish(job, now)
            else:
                self._scheduler.expect(job.request_id, job.least_seconds)
                self._scheduler.requeue(job.request_id, job.recording.waiting)
        return messages

    def _step(self, messages: list[Message]) -> list[tuple[int, DecodingResult]]:
        """One step of the batch; one that raises ends a row that is alone, and separates rows that are not."""
        try:
            ended = self.batch.step()
        except Exception as error:
            fault = fault_of(error, self._device)
        else:
            self.recovery.stepped()
            return ended
        if (guilty := self.recovery.step_failed(fault)) is not None:
            messages.append(self._broke(guilty, fault))
        return []

    def _enter(self, request_ids: list[str], now: float) -> list[Message]:
        """Encode windows of these requests, all of them together."""
        entries = self._take(request_ids)
        if not entries:
            return []
        self.stats.encodes += len(entries)
        started: list[Message] = [entry.job.start(now) for entry in entries if entry.job.started is None]
        try:
            self._intake.launch(entries, now)
        except Exception as error:
            fault = fault_of(error, self._device)
        else:
            return started
        return started + self._undone(entries, fault, now)

    def _begin(self, group: Group, now: float) -> list[Message]:
        """Start windows that are encoded."""
        entries = self._intake.present(group)
        try:
            messages, answered = self._intake.begin(group)
        except Exception as error:
            fault = fault_of(error, self._device)
        else:
            for job in answered:
                self.cancel(job.request_id)
            return messages
        return self._undone(entries, fault, now)

    def _undone(self, entries: Sequence[Entry], fault: Fault, now: float) -> list[Message]:
        """Windows could not be started: of several each is tried by itself; what one raises ends its request."""
        alone, guilty = self.recovery.entry_failed(entries, fault)
        if guilty is not None:
            return [self._broke(guilty, fault)]
        return [message for entry in alone for message in self._enter([entry.job.request_id], now)]

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
        result = twice(lambda: self._transcriber.weigh(result, window, job.samples, job.options))
        if segments := job.recording.feed(lane, result):
            messages.append(SegmentsReady(job.request_id, segments))
        if job.recording.done:
            return messages + self._finish(job, now)
        self._scheduler.requeue(job.request_id, job.recording.waiting)
        return messages

    def _finish(self, job: Job, now: float) -> list[Message]:
        self._scheduler.finish(job.request_id, job.heard_seconds, now)
        self.cancel(job.request_id)
        self.stats.audio_seconds += len(job.samples) / SAMPLE_RATE
        self.stats.guards.update(job.recording.guards)
        return [job.finished(now)]

    def _broke(self, job: Job, fault: Fault) -> Message:
        """A request ends because of what was its own fault."""
        self.cancel(job.request_id)
        return failed(job.request_id, fault)

    def _shed(self, request_ids: list[str], message: str) -> list[Message]:
        """Requests end because of their deadlines."""
        for request_id in request_ids:
            self.cancel(request_id)
        return [Failed(request_id, "deadline_exceeded", message) for request_id in request_ids]

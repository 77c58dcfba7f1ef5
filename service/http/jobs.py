"""One request's way through the pools: upload -> samples -> events of a worker -> a result.

Each step notes its stage in the request's context, so that a cancellation is counted where it happened. Descriptors
are closed and permits charged here; what a step holds is given back however it ends.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.types import Receive, Send

from model.dims import CHUNK_LENGTH
from model.options import TranscribeOptions
from model.segments import Segment, Transcription
from service.errors import InternalError
from service.http.admission import Permit
from service.http.context import RequestContext
from service.http.formats import Timings, spoken
from service.http.multipart import Form
from service.http.upload import ClientDisconnected
from service.ports import Audio, AudioDecoder, Workers
from service.wire.messages import (
    DetectLanguage,
    Finished,
    LanguageDetected,
    ModelInfo,
    SegmentsReady,
    Started,
    Transcribe,
)

T = TypeVar("T")
Hear = Callable[[Sequence[Segment]], Awaitable[None]]
"""Is told segments as they come, those that say something, each once."""


async def until_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; `ClientDisconnected`, with `work` cancelled and ended, when the client goes first.

    The body must have been read: nothing else may wait on `receive`.
    """
    job = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((job, watcher), return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        raise ClientDisconnected
    finally:
        for task in (job, watcher):
            task.cancel()
        await asyncio.gather(job, watcher, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True, slots=True)
class Visit:
    """One request from when it was let in: what goes with it wherever it is."""

    permit: Permit
    context: RequestContext
    model: ModelInfo
    """What will answer it."""
    deadline: float
    """On the monotonic clock."""
    send: Send
    """Where pieces of the answer go, if it is sent in pieces."""


@dataclass(slots=True)
class _Progress:
    """What a worker has said about a job so far."""

    started_at: float | None = None
    """When its first window was taken up."""
    segments: list[Segment] = field(default_factory=list)
    """Those that say something."""
    detected: LanguageDetected | None = None
    finished: Finished | None = None
    first_segment_at: float | None = None


class Jobs:
    """Runs requests on the pools."""

    def __init__(self, audio_pool: AudioDecoder, worker_pool: Workers) -> None:
        self._audio_pool, self._worker_pool = audio_pool, worker_pool
        self._number = 0

    async def decode(self, form: Form, visit: Visit) -> tuple[Audio, float]:
        """The upload as samples, charged to the permit, and the seconds that took; the caller closes the samples."""
        context, permit = visit.context, visit.permit
        context.stage, started = "decode_audio", time.monotonic()
        try:
            audio = await self._audio_pool.decode(form.fd)
        finally:
            context.passed("decode audio", started, time.monotonic())
        try:
            form.close()
            permit.hold_bytes(0)
            permit.charge(audio.seconds)
        except BaseException:
            audio.close()
            raise
        seconds = time.monotonic() - started
        context.notes.update(audio_seconds=audio.seconds, decode_seconds=seconds)
        return audio, seconds

    async def transcribe(
        self, form: Form, options: TranscribeOptions, visit: Visit, hear: Hear | None = None
    ) -> tuple[Transcription, Timings, float | None]:
        """The transcription, where its time went, and seconds from arrival to its first segment."""
        context = visit.context
        audio, decode_seconds = await self.decode(form, visit)
        with contextlib.closing(audio):
            job = Transcribe(self._job_id(context), audio.sample_format, audio.n_samples, options, visit.deadline)
            progress = await self._run(job, audio, context, hear)
        if progress.finished is None:
            raise InternalError("The worker ended without a result.")
        visit.permit.finish()
        finished, first = progress.finished, progress.first_segment_at
        timings = Timings(
            queue=finished.queue_seconds,
            decode_audio=decode_seconds,
            inference=finished.inference_seconds,
            total=time.monotonic() - context.arrival,
        )
        return (
            _transcription(progress, finished, options, audio.seconds),
            timings,
            None if first is None else first - context.arrival,
        )

    async def detect_language(self, form: Form, visit: Visit) -> tuple[LanguageDetected, float]:
        """The detected language, and the recording's length in seconds."""
        audio, _ = await self.decode(form, visit)
        with contextlib.closing(audio):
            job = DetectLanguage(self._job_id(visit.context), audio.sample_format, audio.n_samples, visit.deadline)
            progress = await self._run(job, audio, visit.context)
        if progress.detected is None:
            raise InternalError("The worker ended without a result.")
        visit.permit.finish(CHUNK_LENGTH)  # nothing is heard of what follows the first window
        return progress.detected, audio.seconds

    def _job_id(self, context: RequestContext) -> str:
        """Unique even when callers choose the same request id."""
        self._number += 1
        return f"{context.request_id}.{self._number}"

    async def _run(
        self, job: Transcribe | DetectLanguage, audio: Audio, context: RequestContext, hear: Hear | None = None
    ) -> _Progress:
        context.stage, submitted = "queue", time.monotonic()
        progress = _Progress()
        try:
            async with contextlib.aclosing(self._worker_pool.run(job, audio.fd)) as events:
                async for event in events:
                    match event:
                        case Started():
                            if progress.started_at is None:  # else a worker died, and this is the next one
                                progress.started_at = _started(context, submitted, event)
                        case SegmentsReady():
                            if progress.first_segment_at is None:
                                progress.first_segment_at = time.monotonic()
                            new = spoken(event.segments, len(progress.segments))
                            progress.segments.extend(new)
                            if hear is not None and new:
                                await hear(new)
                        case LanguageDetected():  # again where nobody spoke in the windows before
                            progress.detected = event
                        case Finished():
                            progress.finished = event
                            _note_windows(context, event)
        finally:
            _note_end(context, submitted, progress.started_at)
        context.stage = "respond"
        return progress


def _started(context: RequestContext, submitted: float, event: Started) -> float:
    """The request waits no longer, and when that was."""
    started = submitted + event.queue_seconds
    context.stage, context.notes["queue_seconds"] = "inference", event.queue_seconds
    context.passed("queue", submitted, started)
    return started


def _note_end(context: RequestContext, submitted: float, started: float | None) -> None:
    """A job came to an end, perhaps before a worker took it up."""
    now = time.monotonic()
    if started is None:
        context.notes["queue_seconds"] = now - submitted
        context.passed("queue", submitted, now)
    else:
        context.passed("inference", started, now)


def _note_windows(context: RequestContext, finished: Finished) -> None:
    """The worker's part of the trace, as it tells it when all is done."""
    for number, window in enumerate(finished.windows):
        context.passed("encode", window.taken, window.encoded, window=number)
        context.passed("decode", window.encoded, window.done, window=number, steps=window.steps)


def _transcription(
    progress: _Progress, finished: Finished, options: TranscribeOptions, seconds: float
) -> Transcription:
    detected = progress.detected
    probability = detected.probabilities.get(detected.language) if detected is not None else None
    return Transcription(
        task=options.task,
        language=finished.language,
        language_probability=probability,
        duration=seconds,
        text=finished.text.strip(),
        segments=tuple(progress.segments),
        language_probabilities=detected.probabilities if detected is not None else {},
        warnings=finished.warnings,
    )

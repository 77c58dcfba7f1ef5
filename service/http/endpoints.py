"""The endpoints that do work: `POST /v1/transcribe` and `/v1/detect-language`, and the hosted API's two beside them.

The order is the contract's: ready, permit, body, fields, samples, worker, answer. A permit exists before the first
byte of the body is read; the deadline runs from the request's arrival; the client's going away ends the work.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from fastapi import Request
from starlette.responses import Response
from starlette.types import Send

from model.options import TranscribeOptions
from model.segments import Segment, Transcription
from service.errors import DeadlineExceeded, Unavailable
from service.http.admission import Admission
from service.http.context import RequestContext
from service.http.event_stream import Answer, EventStream
from service.http.fields import FIELDS, Field
from service.http.formats import (
    Timings,
    language_response,
    segment_events,
    transcription_json,
    transcription_response,
)
from service.http.jobs import Hear, Jobs, Visit, until_disconnected
from service.http.metrics import Metrics
from service.http.multipart import Form
from service.http.openai_audio import OPENAI_FIELDS, Task, TextEvents, openai_response, parse_openai
from service.http.schemas import check_detect, check_query, parse_transcribe
from service.http.upload import UploadLimits, receive_form
from service.lifecycle import Lifecycle
from service.ports import Workers
from service.settings import Settings

_Work = Callable[[Form, Visit], Coroutine[Any, Any, Response | None]]
"""Gives the answer, or None where all but the end of it was sent."""
_EventsOf = Callable[[Sequence[Segment]], Iterable[dict[str, Any]]]


class Endpoints:
    """Handlers, with what they stand on."""

    def __init__(
        self,
        settings: Settings,
        *,
        jobs: Jobs,
        worker_pool: Workers,
        admission: Admission,
        lifecycle: Lifecycle,
        metrics: Metrics,
    ) -> None:
        self._limits = UploadLimits(
            max_bytes=settings.max_upload_bytes,
            seconds=settings.upload_seconds,
            bytes_per_second=settings.upload_bytes_per_second,
            grace_seconds=settings.upload_grace_seconds,
        )
        self._timeout_seconds = settings.request_timeout_seconds
        self._beam_size, self._aliases = settings.beam_size, settings.model_aliases
        self._jobs, self._worker_pool = jobs, worker_pool
        self._admission, self._lifecycle, self._metrics = admission, lifecycle, metrics

    async def transcribe(self, request: Request) -> Response:
        """Transcribe a recording, or translate it into English."""
        return self._answer(request, self._transcribe)

    async def detect_language(self, request: Request) -> Response:
        """Say which language a recording's first 30 seconds are in, with every language's probability."""
        return self._answer(request, self._detect_language)

    async def openai_transcription(self, request: Request) -> Response:
        """Transcribe a recording for a client of the hosted API."""
        return self._answer(request, partial(self._openai, "transcribe"), OPENAI_FIELDS["transcribe"])

    async def openai_translation(self, request: Request) -> Response:
        """Translate a recording into English for a client of the hosted API."""
        return self._answer(request, partial(self._openai, "translate"), OPENAI_FIELDS["translate"])

    def _answer(self, request: Request, work: _Work, known: Mapping[str, Field] = FIELDS) -> Response:
        return Answer(partial(self._serve, request, work, known))

    async def _serve(self, request: Request, work: _Work, known: Mapping[str, Field], send: Send) -> Response | None:
        context: RequestContext = request.state.context
        self._lifecycle.check_open()
        model = self._worker_pool.model
        if model is None:
            raise Unavailable("The server is starting.", code="starting")
        deadline = context.arrival + self._timeout_seconds
        with self._admission.enter(context.key_id) as permit:
            try:
                async with asyncio.timeout_at(deadline) as timeout:
                    visit = Visit(permit, context, model, deadline, send)
                    return await self._receive_and_work(request, visit, work, known)
            except TimeoutError:
                if not timeout.expired():
                    raise
                raise DeadlineExceeded(f"The request was not done within {self._timeout_seconds:g} seconds.") from None

    async def _receive_and_work(
        self, request: Request, visit: Visit, work: _Work, known: Mapping[str, Field]
    ) -> Response | None:
        headers, context = request.scope["headers"], visit.context
        check_query(request.scope["query_string"], {**FIELDS, **known})
        lists = [name for name, field in known.items() if field.schema["type"] == "array"]
        with await receive_form(request.receive, headers, self._limits, visit.permit.hold_bytes, lists) as form:
            context.passed("upload", context.arrival, time.monotonic(), bytes=form.file_bytes)
            context.notes["bytes"] = form.file_bytes
            self._metrics.upload_bytes.inc(form.file_bytes)
            return await until_disconnected(request.receive, work(form, visit))

    async def _transcribe(self, form: Form, visit: Visit) -> Response | None:
        asked = parse_transcribe(form.fields, visit.model, beam_size=self._beam_size)
        visit.context.notes["response_format"] = asked.response_format
        told: dict[str, Any] = {
            "model": visit.model.name,
            "request_id": visit.context.request_id,
            "language_probabilities": asked.language_probabilities,
        }
        if asked.stream:
            async with self._events(visit, segment_events) as (stream, hear):
                result, timings = await self._result(form, asked.options, visit, hear)
                content = transcription_json(result, timings=timings, **told)
                await stream.tell({"type": "transcript.done", **content})
            return None
        result, timings = await self._result(form, asked.options, visit)
        return transcription_response(result, asked.response_format, asked.layout, timings=timings, **told)

    async def _openai(self, task: Task, form: Form, visit: Visit) -> Response | None:
        asked = parse_openai(form.fields, visit.model, task, beam_size=self._beam_size, aliases=self._aliases)
        visit.context.notes["response_format"] = asked.response_format
        if asked.stream:
            events = TextEvents(asked)
            async with self._events(visit, events) as (stream, hear):
                result, _ = await self._result(form, asked.ours.options, visit, hear)
                await stream.tell(events.done(result))
            return None
        result, _ = await self._result(form, asked.ours.options, visit)
        return openai_response(result, asked)

    @contextlib.asynccontextmanager
    async def _events(self, visit: Visit, events_of: _EventsOf) -> AsyncIterator[tuple[EventStream, Hear]]:
        """The answer as a stream, and who tells it of segments."""
        visit.context.notes["response_format"] = "stream"
        async with EventStream(visit.send) as stream:

            async def hear(segments: Sequence[Segment]) -> None:
                for event in events_of(segments):
                    await stream.tell(event)

            yield stream, hear

    async def _result(
        self, form: Form, options: TranscribeOptions, visit: Visit, hear: Hear | None = None
    ) -> tuple[Transcription, Timings]:
        """The transcription and where its time went, noted and counted; `hear` is told segments as they come."""
        notes = visit.context.notes
        notes["task"] = options.task
        result, timings, first = await self._jobs.transcribe(form, options, visit, hear)
        notes.update(
            language=result.language,
            segments=len(result.segments),
            queue_seconds=timings.queue,
            inference_seconds=timings.inference,
        )
        if first is not None:
            self._metrics.first_segment.observe(first)
        self._metrics.count_result(
            model=visit.model.name,
            task=options.task,
            language=result.language,
            audio_seconds=result.duration,
            timings=timings,
        )
        return result, timings

    async def _detect_language(self, form: Form, visit: Visit) -> Response:
        check_detect(form.fields, visit.model)
        detected, seconds = await self._jobs.detect_language(form, visit)
        visit.context.notes["language"] = detected.language
        return language_response(
            detected.language,
            detected.probabilities,
            duration=seconds,
            model=visit.model.name,
            request_id=visit.context.request_id,
        )

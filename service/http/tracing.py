"""Traces of requests: W3C trace context in and out, and OpenTelemetry spans where a collector is named.

Without `WHISPER_TRACE_ENDPOINT` nothing of OpenTelemetry is imported: the caller's trace id stands in the log line, its
`traceparent` in the answer. With it, each request is a server span under the caller's, with a span for each stage that
`service.http.context.RequestContext.passed` noted. Spans are made when the request has ended, from times that were
taken anyway, and hold what the log line holds: ids, sizes, durations, languages, codes (`service.logs`).
"""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from service import __version__
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
"""W3C Trace Context, section 3.2; version 00 has nothing after the flags, later ones may."""
_MAX_HEADER_CHARACTERS = 512
_EXPORT_SECONDS = 2.0

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a request's way, on the monotonic clock, with what is worth knowing of it."""

    name: str
    start: float
    end: float
    notes: Mapping[str, Any] = field(default_factory=dict)


class Trace(Protocol):
    """One request's place in its trace."""

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits; None where there is no trace."""

    @property
    def traceparent(self) -> str | None:
        """For the answer."""

    def end(self, *, status: int | None, notes: Mapping[str, Any], stages: Sequence[Stage]) -> None:
        """The request is over."""


class Tracing(Protocol):
    """Begins traces."""

    def begin(self, name: str, headers: Headers, start: float) -> Trace:
        """A request came in at `start`, on the monotonic clock."""

    async def close(self) -> None:
        """Send what is left, for a bounded time."""


def open_tracing(settings: Settings) -> Tracing:
    """What the settings ask for; `SettingsError` where it is not installed."""
    if not settings.trace_endpoint:
        return PassedOn()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise SettingsError(
            "WHISPER_TRACE_ENDPOINT: needs OpenTelemetry, which is not installed (the extra 'tracing')"
        ) from None
    exporter = OTLPSpanExporter(endpoint=settings.trace_endpoint, timeout=_EXPORT_SECONDS)
    return Recorded(exporter, ratio=settings.trace_ratio)


def incoming(headers: Headers) -> dict[str, str]:
    """The caller's valid `traceparent`, with its `tracestate`; empty where there is none, or more than one."""
    found: dict[str, list[str]] = {"traceparent": [], "tracestate": []}
    for name, value in headers:
        if (key := name.decode("latin-1")) in found:
            found[key].append(value.decode("latin-1"))
    parents = found["traceparent"]
    if len(parents) != 1 or len(parents[0]) > _MAX_HEADER_CHARACTERS:
        return {}
    match = _TRACEPARENT.fullmatch(parents[0])
    if match is None or (match[2] and parents[0].startswith("00")):
        return {}
    state = ",".join(found["tracestate"])
    return {"traceparent": parents[0]} | ({"tracestate": state} if 0 < len(state) <= _MAX_HEADER_CHARACTERS else {})


# --- without a collector ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PassedTrace:
    """The caller's trace, handed back as it came."""

    traceparent: str | None

    @property
    def trace_id(self) -> str | None:
        """The caller's."""
        return self.traceparent.split("-")[1] if self.traceparent else None

    def end(self, *, status: int | None, notes: Mapping[str, Any], stages: Sequence[Stage]) -> None:
        """Nothing is recorded."""


class PassedOn:
    """Tracing that records nothing."""

    def begin(self, name: str, headers: Headers, start: float) -> Trace:  # noqa: ARG002  the protocol's
        """The caller's trace, if it has one."""
        return PassedTrace(incoming(headers).get("traceparent"))

    async def close(self) -> None:
        """Nothing is left."""


# --- with OpenTelemetry -------------------------------------------------------------------------------------------


class RecordedTrace:
    """A server span that is open while the request is."""

    def __init__(self, tracer: "Tracer", span: "Span", clock: Callable[[float], int]) -> None:
        from opentelemetry.trace import format_span_id, format_trace_id

        self._tracer, self._span, self._clock = tracer, span, clock
        context = span.get_span_context()
        self.trace_id: str | None = format_trace_id(context.trace_id)
        span_id = format_span_id(context.span_id)
        self.traceparent: str | None = f"00-{self.trace_id}-{span_id}-{int(context.trace_flags):02x}"

    def end(self, *, status: int | None, notes: Mapping[str, Any], stages: Sequence[Stage]) -> None:
        """Close the span, with its stages as children."""
        from opentelemetry.trace import StatusCode, set_span_in_context

        span, clock = self._span, self._clock
        if span.is_recording():
            inside = set_span_in_context(span)
            for stage in stages:
                child = self._tracer.start_span(stage.name, inside, start_time=clock(stage.start))
                child.set_attributes(_attributes(stage.notes))
                child.end(clock(stage.end))
            span.set_attributes(_attributes(notes))
            if status is not None:
                span.set_attribute("http.response.status_code", status)
            if status is None or status >= 500:
                span.set_status(StatusCode.ERROR, str(notes.get("code") or ""))
        span.end(clock(time.monotonic()))


class Recorded:
    """Spans by the OpenTelemetry SDK, sent in batches by a thread of its own."""

    def __init__(self, exporter: "SpanExporter", *, ratio: float) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.name": "whisper", "service.version": __version__})
        self._provider = TracerProvider(
            resource=resource, sampler=ParentBased(TraceIdRatioBased(ratio)), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
        self._propagator = TraceContextTextMapPropagator()
        self._tracer = self._provider.get_tracer("service", __version__)

    def begin(self, name: str, headers: Headers, start: float) -> Trace:
        """A server span under the caller's."""
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind

        above = self._propagator.extract(incoming(headers), context=Context())
        clock = _wall_nanoseconds(time.time() - time.monotonic())  # the machine's clock may be set at any time
        span: Any = self._tracer.start_span(name, above, SpanKind.SERVER, start_time=clock(start))
        return RecordedTrace(self._tracer, span, clock)

    async def close(self) -> None:
        """Send what is left; a collector that does not answer is not waited for."""
        # Not in asyncio's executor, whose threads the process would wait for.
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        end = time.monotonic() + _EXPORT_SECONDS
        while thread.is_alive() and time.monotonic() < end:  # noqa: ASYNC110  a thread has no event
            await asyncio.sleep(0.02)


def _wall_nanoseconds(wall_minus_monotonic: float) -> Callable[[float], int]:
    """Makes nanoseconds since 1970 of a monotonic time, all of a request by the same clock."""
    return lambda monotonic: int((monotonic + wall_minus_monotonic) * 1e9)


def _attributes(notes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"whisper.{name}": value for name, value in notes.items() if isinstance(value, str | int | float)}

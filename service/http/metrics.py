"""What the HTTP process measures, in one registry per application, with bounded labels only.

Everything that a worker counts is in `service.http.worker_metrics`, on the same page, and beside it the usual
`process_...` of this process alone: processor, memory, descriptors. Labels take values from fixed
sets: routes, status codes, codes of `service.errors`, stages, tasks, languages of the model.
"""

from collections.abc import Callable, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from service.http.admission import Admission
from service.http.formats import Timings
from service.http.worker_metrics import WorkerCollector
from service.lifecycle import Lifecycle
from service.ports import AudioDecoder, Workers

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 1.5, 2.5, 5, 7.5, 10, 15, 20, 30, 60, 120, 300, 900)
_AUDIO_SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
_WATCHED = ("200", "500", "503", "504")
"""Statuses of which alerts and the dashboard take rates."""
_FACTORS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """Counters and histograms that the request path feeds."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the page
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "whisper_requests", "Requests answered.", ["endpoint", "status"], registry=self.registry
        )
        self.request_duration = self._histogram(
            "whisper_request_duration_seconds", "Arrival to last byte.", _SECONDS, ["endpoint", "status"]
        )
        self.in_flight = Gauge("whisper_in_flight_requests", "Requests being answered.", registry=self.registry)
        self.rejections = Counter(
            "whisper_rejections", "Requests refused, by error code.", ["reason"], registry=self.registry
        )
        self.cancellations = Counter(
            "whisper_cancellations",
            "Requests ended before their answer, by how far they had come.",
            ["stage", "reason"],
            registry=self.registry,
        )
        self.upload_bytes = Counter("whisper_upload_bytes", "Bytes of audio files received.", registry=self.registry)
        self.audio_seconds = Counter(
            "whisper_audio_seconds", "Audio worked off.", ["model", "task", "language"], registry=self.registry
        )
        self.audio_duration = self._histogram(
            "whisper_audio_duration_seconds", "Length of recordings.", _AUDIO_SECONDS, ["task"]
        )
        self.audio_decode = self._histogram("whisper_audio_decode_seconds", "Upload to samples.", _SECONDS)
        self.first_segment = self._histogram(
            "whisper_time_to_first_segment_seconds", "Arrival to the first segment.", _SECONDS
        )
        self.queue_wait = self._histogram(
            "whisper_queue_wait_seconds", "Wait for the first window, or for nothing.", _SECONDS
        )
        self.real_time_factor = self._histogram(
            "whisper_real_time_factor", "Inference seconds for a second of audio.", _FACTORS, ["task"]
        )

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: list[str] | None = None
    ) -> Histogram:
        return Histogram(name, text, labels or [], buckets=buckets, registry=self.registry)

    def expect(self, endpoints: Iterable[str]) -> None:
        """Count from zero on what alerts watch of these: a counter that is born with a value did not grow to them."""
        for endpoint in endpoints:
            for status in _WATCHED:
                self.requests.labels(endpoint, status)

    def watch(
        self, admission: Admission, lifecycle: Lifecycle, audio_pool: AudioDecoder, worker_pool: Workers
    ) -> WorkerCollector:
        """Read the state of these at every scrape; the collector wants `observe` called now and then."""
        self._gauge(
            "whisper_queue_requests",
            "Requests admitted and not yet answered (uploading, waiting or in work).",
            lambda: admission.requests,
        )
        self._gauge("whisper_queue_requests_limit", "Most requests in progress.", lambda: admission.limits.requests)
        self._gauge("whisper_queue_upload_bytes", "Upload bytes in memory.", lambda: admission.upload_bytes)
        self._gauge(
            "whisper_queue_upload_bytes_limit", "Most upload bytes in memory.", lambda: admission.limits.upload_bytes
        )
        self._gauge("whisper_queue_audio_seconds", "Audio waiting or in work.", lambda: admission.audio_seconds)
        self._gauge(
            "whisper_queue_audio_seconds_limit",
            "Most audio waiting or in work.",
            lambda: admission.limits.audio_seconds,
        )
        self._gauge("whisper_audio_children_busy", "Audio children at work.", lambda: audio_pool.busy)
        self._gauge("whisper_ready", "1 while requests are let in.", lambda: lifecycle.ready)
        collector = WorkerCollector(audio_pool, worker_pool)
        self.registry.register(collector)
        return collector

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        Gauge(name, text, registry=self.registry).set_function(read)

    def count_result(self, *, model: str, task: str, language: str, audio_seconds: float, timings: Timings) -> None:
        """A recording was worked off."""
        self.audio_seconds.labels(model, task, language).inc(audio_seconds)
        self.audio_duration.labels(task).observe(audio_seconds)
        self.audio_decode.observe(timings.decode_audio)
        if audio_seconds > 0:
            self.real_time_factor.labels(task).observe(timings.inference / audio_seconds)

    def count_refusal(self, status: int, code: str) -> None:
        """A request was refused before the application saw it."""
        self.requests.labels("other", str(status)).inc()
        self.rejections.labels(code).inc()

    def page(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)

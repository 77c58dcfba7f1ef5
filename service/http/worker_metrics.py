"""Metrics of the model workers and audio children, read from the pools at every scrape.

Workers send their counters (`WorkerStats`) to the HTTP process, so that one page shows every process. A replaced
worker starts again at zero, which Prometheus' `rate` takes as a reset.
"""

import platform
import time
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service import __version__
from service.ports import AudioDecoder, Workers
from service.wire.messages import ModelInfo, WorkerStats

_ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class WorkerCollector(Collector):
    """Turns the pools' state into metric families."""

    def __init__(self, audio_pool: AudioDecoder, worker_pool: Workers, clock: Callable[[], float] = time.time) -> None:
        self._audio_pool, self._worker_pool, self._clock = audio_pool, worker_pool, clock
        self._counts: dict[str, int] = {}
        self._progress: dict[str, float] = {}

    def observe(self) -> None:
        """Note when each worker last made progress; called more often than anybody scrapes."""
        for device, stats in self._worker_pool.stats().items():
            if self._counts.get(device) != stats.progress:
                self._counts[device] = stats.progress
                self._progress[device] = self._clock()

    def describe(self) -> list[Metric]:
        """Nothing to check names against: the families exist only while workers do."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family, for the workers alive now."""
        self.observe()
        stats = self._worker_pool.stats()
        yield _build_info(self._worker_pool.model)
        yield CounterMetricFamily(
            "whisper_worker_restarts", "Workers replaced since the start.", value=self._worker_pool.restarts
        )
        yield CounterMetricFamily(
            "whisper_audio_child_restarts", "Audio children replaced since the start.", value=self._audio_pool.restarts
        )
        yield _gauge(
            "whisper_worker_up",
            "1 for a warm worker, 0 while it is replaced.",
            {device: float(device in stats) for device in self._progress},
        )
        yield _gauge(
            "whisper_worker_last_progress_timestamp_seconds",
            "When a worker last made progress.",
            {device: self._progress[device] for device in stats},
        )
        yield _gauge(
            "whisper_worker_waiting_windows",
            "Windows that wait for a slot.",
            {device: float(one.waiting_windows) for device, one in stats.items()},
        )
        yield _gauge(
            "whisper_worker_requests",
            "Requests that a worker has in hand.",
            {device: float(count) for device, count in self._worker_pool.in_hand().items()},
        )
        yield from _counters(stats)
        yield _memory(stats)
        yield _batch_rows(stats)


def _gauge(name: str, text: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["device"])
    for device, value in values.items():
        family.add_metric([device], value)
    return family


def _build_info(model: ModelInfo | None) -> Metric:
    labels = ["version", "python", "model", "compute_type", "encoder_context", "cross_kv", "decoder"]
    family = GaugeMetricFamily(
        "whisper_build_info",
        "Always 1; the labels tell the build, and once a model is loaded how it runs.",
        labels=labels,
    )
    running = ("",) * 5
    if model is not None:
        running = (model.name, model.compute_type, model.encoder_context, model.cross_kv, model.decoder)
    family.add_metric([__version__, platform.python_version(), *running], 1.0)
    return family


def _counters(stats: dict[str, WorkerStats]) -> Iterator[Metric]:
    steps = CounterMetricFamily("whisper_decode_steps", "Decode steps of the batch.", labels=["device"])
    tokens = CounterMetricFamily("whisper_tokens", "Tokens decoded.", labels=["device"])
    audio = CounterMetricFamily("whisper_worker_audio_seconds", "Audio decoded into text.", labels=["device"])
    fallbacks = CounterMetricFamily("whisper_fallbacks", "Windows decoded again.", labels=["device", "reason"])
    skipped = CounterMetricFamily(
        "whisper_guards",
        "Stretches of audio that gave no text or lost some, by reason: the model's, the detector's or a guard's.",
        labels=["device", "reason"],
    )
    busy = CounterMetricFamily(
        "whisper_worker_busy_seconds", "Time that a worker spent on its requests, by stage.", labels=["device", "stage"]
    )
    memory = CounterMetricFamily(
        "whisper_out_of_memory", "Times the device's memory ran out and the batch shrank.", labels=["device"]
    )
    for device, one in stats.items():
        memory.add_metric([device], one.out_of_memory)
        steps.add_metric([device], one.steps)
        tokens.add_metric([device], one.tokens)
        audio.add_metric([device], one.audio_seconds)
        for stage, seconds in one.busy_seconds.items():
            busy.add_metric([device, stage], seconds)
        for reason, count in one.fallbacks.items():
            fallbacks.add_metric([device, reason], count)
        for reason, count in one.guards.items():
            skipped.add_metric([device, reason], count)
    yield from (steps, tokens, audio, busy, fallbacks, skipped, memory)


def _memory(stats: dict[str, WorkerStats]) -> Metric:
    family = GaugeMetricFamily("whisper_device_memory_bytes", "Memory of a worker.", labels=["device", "kind"])
    for device, one in stats.items():
        for kind, size in one.memory_bytes.items():
            family.add_metric([device, kind], size)
    return family


def _batch_rows(stats: dict[str, WorkerStats]) -> Metric:
    family = HistogramMetricFamily("whisper_batch_rows", "Rows in a decode step.", labels=["device"])
    for device, one in stats.items():
        steps_by_rows = {int(rows): steps for rows, steps in one.batch_rows.items()}
        buckets = [
            (str(float(bound)), float(sum(steps for rows, steps in steps_by_rows.items() if rows <= bound)))
            for bound in _ROW_BUCKETS
        ]
        total = float(sum(steps_by_rows.values()))
        family.add_metric(
            [device], [*buckets, ("+Inf", total)], sum_value=sum(rows * steps for rows, steps in steps_by_rows.items())
        )
    return family

"""What the dashboard shows: rows of graphs, each with its queries; `deploy.dashboard` lays them out for Grafana.

Queries use `$instance` (replicas) and `$__rate_interval`, which Grafana fills in. `tests/deploy/test_dashboard.py` runs
every one against a real Prometheus that scraped a real run; each must return data. `benchmarks.watched` draws them.
"""

from dataclasses import dataclass

_TRANSCRIPTIONS = 'endpoint=~"/v1/(transcribe|audio/(transcriptions|translations))"'
_WORK = 'endpoint=~"/v1/(transcribe|detect-language|audio/(transcriptions|translations))"'
_IS_OURS = 'job="whisper"'
"""Others have metrics of such names too."""
_HTTP = 'sum by (instance) ({}{{instance=~"$instance", job="whisper"}})'
_REPLICAS = '{proxy="replicas"}'


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph: a title, what it tells, the unit of its axis, and its queries by legend."""

    title: str
    tells: str
    unit: str
    queries: dict[str, str]


def rate(metric: str, by: str, labels: str = "") -> str:
    """A counter's rate over the chosen replicas, summed by some labels."""
    chosen = 'instance=~"$instance"' + (f", {labels}" if labels else "")
    return f"sum by ({by}) (rate({metric}{{{chosen}}}[$__rate_interval]))"


def quantiles(metric: str, labels: str = "") -> dict[str, str]:
    """p50, p95 and p99 of a histogram over the chosen replicas."""
    buckets = rate(f"{metric}_bucket", "le", labels)
    return {f"p{part}": f"histogram_quantile({part / 100}, {buckets})" for part in (50, 95, 99)}


def gauge(metric: str, by: str = "instance", how: str = "sum") -> str:
    """A gauge of the chosen replicas."""
    return f'{how} by ({by}) ({metric}{{instance=~"$instance"}})'


ROWS: dict[str, tuple[Panel, ...]] = {
    "What users feel": (
        Panel(
            "Requests",
            "Answers a second, by endpoint and status.",
            "reqps",
            {"{{endpoint}} {{status}}": f"{rate('whisper_requests_total', 'endpoint, status', _WORK)} > 0"},
        ),
        Panel(
            "Errors and refusals",
            "Shares of all requests of five minutes: 500 and 504 are ours, 503 is a full or draining replica.",
            "percentunit",
            {"500 and 504": "whisper:errors:ratio_rate5m", "503": "whisper:refusals:ratio_rate5m"},
        ),
        Panel(
            "Latency",
            "Arrival to the last byte of a transcription; refusals are fast, and no part of it.",
            "s",
            quantiles("whisper_request_duration_seconds", f'{_TRANSCRIPTIONS}, status="200"'),
        ),
        Panel(
            "First segment",
            "Arrival to the first segment of text.",
            "s",
            quantiles("whisper_time_to_first_segment_seconds"),
        ),
        Panel(
            "Queue wait",
            "Until the first window is taken up, or the request ended without one.",
            "s",
            quantiles("whisper_queue_wait_seconds"),
        ),
        Panel(
            "Real-time factor",
            "Seconds of inference for a second of audio; above 1 is slower than speech.",
            "none",
            quantiles("whisper_real_time_factor"),
        ),
    ),
    "The queue": (
        Panel(
            "How full",
            "The fullest of each replica's limits, requests, audio and uploads; 1 refuses.",
            "percentunit",
            {"{{instance}}": 'whisper:queue:ratio{instance=~"$instance"}'},
        ),
        Panel(
            "In progress",
            "Requests with a place, and audio waiting or in work.",
            "none",
            {
                "requests {{instance}}": gauge("whisper_queue_requests"),
                "audio seconds {{instance}}": gauge("whisper_queue_audio_seconds"),
                "windows without a slot {{instance}}": gauge("whisper_worker_waiting_windows"),
            },
        ),
        Panel(
            "Refused and ended early",
            "Refusals by reason; requests that ended before their answer, by stage and reason.",
            "reqps",
            {
                "{{reason}}": rate("whisper_rejections_total", "reason"),
                "{{stage}}: {{reason}}": rate("whisper_cancellations_total", "stage, reason"),
            },
        ),
    ),
    "The work": (
        Panel(
            "Audio done",
            "Seconds of audio a second.",
            "none",
            {
                "{{device}}": rate("whisper_worker_audio_seconds_total", "device"),
                "all replicas": "whisper:audio_seconds:rate5m",
            },
        ),
        Panel(
            "Batch rows",
            "Rows in a decode step.",
            "none",
            {
                "mean": f"{rate('whisper_batch_rows_sum', 'job')} / {rate('whisper_batch_rows_count', 'job')}",
                **quantiles("whisper_batch_rows"),
            },
        ),
        Panel(
            "Steps and tokens",
            "Decode steps of the batch and tokens, a second.",
            "none",
            {
                "steps {{device}}": rate("whisper_decode_steps_total", "device"),
                "tokens {{device}}": rate("whisper_tokens_total", "device"),
            },
        ),
        Panel(
            "Worker time",
            "Share of each worker's time by stage; together 1 is a worker that is never idle.",
            "percentunit",
            {"{{stage}} {{instance}} {{device}}": rate("whisper_worker_busy_seconds_total", "instance, device, stage")},
        ),
        Panel(
            "Fallbacks and skipped audio",
            "Windows that were decoded again, and stretches of audio that gave no text or lost some, by reason.",
            "none",
            {
                "again: {{reason}}": rate("whisper_fallbacks_total", "reason"),
                "skipped: {{reason}}": rate("whisper_guards_total", "reason"),
            },
        ),
        Panel(
            "Languages",
            "Seconds of audio a second, by language and task.",
            "none",
            {"{{language}} {{task}}": rate("whisper_audio_seconds_total", "language, task")},
        ),
        Panel(
            "Recordings",
            "Length of recordings; time from upload to samples.",
            "s",
            {
                **{f"length {name}": query for name, query in quantiles("whisper_audio_duration_seconds").items()},
                "decoding p95": quantiles("whisper_audio_decode_seconds")["p95"],
            },
        ),
    ),
    "The machine": (
        Panel(
            "Workers",
            "Warm workers, and when each last made progress: seconds ago, only alarming while work is waiting.",
            "none",
            {
                "up {{instance}} {{device}}": gauge("whisper_worker_up", "instance, device"),
                "ready {{instance}}": gauge("whisper_ready"),
                "last progress {{instance}} {{device}}": "time() - "
                + gauge("whisper_worker_last_progress_timestamp_seconds", "instance, device", "max"),
            },
        ),
        Panel(
            "Processes replaced",
            "Since the start of each replica.",
            "none",
            {
                "workers {{instance}}": gauge("whisper_worker_restarts_total"),
                "audio children {{instance}}": gauge("whisper_audio_child_restarts_total"),
                "audio children busy {{instance}}": gauge("whisper_audio_children_busy"),
            },
        ),
        Panel(
            "Memory",
            "Of each worker by kind; uploads in memory; the process that answers.",
            "bytes",
            {
                "{{instance}} {{device}} {{kind}}": gauge("whisper_device_memory_bytes", "instance, device, kind"),
                "uploads {{instance}}": gauge("whisper_queue_upload_bytes"),
                "HTTP process {{instance}}": _HTTP.format("process_resident_memory_bytes"),
            },
        ),
        Panel(
            "HTTP process",
            "Of the process that answers: its share of one processor, and of the file descriptors that it may have.",
            "percentunit",
            {
                "processor {{instance}}": rate("process_cpu_seconds_total", "instance", _IS_OURS),
                "descriptors {{instance}}": f"{_HTTP.format('process_open_fds')} / {_HTTP.format('process_max_fds')}",
            },
        ),
        Panel(
            "Out of memory",
            "Times a device's memory ran out and its batch shrank, since its worker's start.",
            "none",
            {"{{instance}} {{device}}": gauge("whisper_out_of_memory_total", "instance, device")},
        ),
        Panel(
            "Traffic",
            "Audio files received; connections being answered.",
            "none",
            {
                "bytes a second": rate("whisper_upload_bytes_total", "job"),
                "in flight {{instance}}": gauge("whisper_in_flight_requests"),
            },
        ),
        Panel(
            "Versions",
            "Replicas by version.",
            "none",
            {"{{version}}, Python {{python}}": gauge("whisper_build_info", "version, python")},
        ),
    ),
    "The balancer": (
        Panel(
            "Replicas in",
            "1 for a replica that gets requests.",
            "none",
            {"{{server}}": 'sum by (server) (haproxy_server_status{proxy="replicas", state="UP"})'},
        ),
        Panel(
            "Sessions",
            "Requests being answered, by replica.",
            "none",
            {"{{server}}": 'sum by (server) (haproxy_server_current_sessions{proxy="replicas"})'},
        ),
        Panel(
            "Answers and repeats",
            "By class of status; requests sent to another replica.",
            "reqps",
            {
                "{{code}}": f"sum by (code) (rate(haproxy_backend_http_responses_total{_REPLICAS}[$__rate_interval]))",
                "sent again": f"sum(rate(haproxy_backend_retry_warnings_total{_REPLICAS}[$__rate_interval]))",
            },
        ),
    ),
}

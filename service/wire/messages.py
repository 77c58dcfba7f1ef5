"""What crosses the pipes between processes: frozen dataclasses as JSON, never pickles.

Here is what the HTTP process and a model worker say to each other, and `Message`, which is everything that may come
over a pipe; what an audio child hears and says is in `service.wire.audio_messages`. A kind of message that is new is a
class with a `kind` of its own, and a member of `Message`. The waveform travels beside the message, as a file descriptor
(`service.wire.channel`).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from model.options import TranscribeOptions
from model.segments import Segment, Skipped
from service.wire.audio_messages import AudioDecoded, AudioRefused, ChildReady, DecodeAudio, SampleFormat

# --- HTTP process -> model worker ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Transcribe the waveform in the file descriptor that comes with this message."""

    request_id: str
    sample_format: SampleFormat
    n_samples: int
    options: TranscribeOptions
    deadline: float | None
    """Seconds on CLOCK_MONOTONIC, the same for all processes of a machine; None is no deadline."""
    kind: Literal["transcribe"] = "transcribe"


@dataclass(frozen=True, slots=True)
class DetectLanguage:
    """Identify the language of the waveform's first window."""

    request_id: str
    sample_format: SampleFormat
    n_samples: int
    deadline: float | None
    kind: Literal["detect_language"] = "detect_language"


@dataclass(frozen=True, slots=True)
class Cancel:
    """Drop the request: nobody waits for it any more."""

    request_id: str
    kind: Literal["cancel"] = "cancel"


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish nothing more and exit."""

    kind: Literal["stop"] = "stop"


# --- model worker -> HTTP process ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """The worker has read a request: whatever ends it from now on may be that request's fault."""

    request_id: str
    kind: Literal["received"] = "received"


@dataclass(frozen=True, slots=True)
class Started:
    """A request waits no longer: its first window has been taken up, so long after the worker had read it."""

    request_id: str
    queue_seconds: float
    kind: Literal["started"] = "started"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The worker has dropped a request as it was told: what happens to it from now on is not that request's fault."""

    request_id: str
    kind: Literal["cancelled"] = "cancelled"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a worker loaded; identical for all workers of a service."""

    name: str
    languages: tuple[str, ...]
    can_translate: bool
    device: str
    compute_type: str
    sha256: str | None
    encoder_context: str = "full"
    """`full`, or `short` where the padding behind a clip is known beforehand (`model.network.padding`)."""
    cross_kv: str = "float32"
    """How the audio's keys and values are kept: `int8`, `fp8`, or a float format."""
    decoder: str = "torch"
    """What runs the decoder: torch, or the compiled variant of `model.native`."""
    max_rows: int = 0
    """Rows that are decoded together at most."""
    steps: Literal["plain", "captured"] = "plain"
    """Whether steps run as they come, or as a GPU may have them (`model.decoding.step_check`)."""
    plain_because: str | None = None
    """Why steps of a GPU are plain where nobody asked for that."""
    torch_because: str | None = None
    """Why a GPU's attention is torch's (`model.gpu.split_check`) where nobody asked for that."""
    unfused_because: str | None = None
    """Why only the attention of a GPU's steps is in kernels of ours (`model.gpu.fused_step`)."""
    native_because: str | None = None
    """Why nothing runs in C although it was compiled (`model.native.library`)."""
    kind: Literal["model_info"] = "model_info"


@dataclass(frozen=True, slots=True)
class SegmentsReady:
    """Segments that are final, in order, as their window ended."""

    request_id: str
    segments: tuple[Segment, ...]
    kind: Literal["segments_ready"] = "segments_ready"


@dataclass(frozen=True, slots=True)
class LanguageDetected:
    """The answer to `DetectLanguage`, or the first thing a transcription learns when it detects.

    A later one takes its place: nobody spoke in what was heard before.
    """

    request_id: str
    language: str
    probabilities: dict[str, float]
    kind: Literal["language_detected"] = "language_detected"


@dataclass(frozen=True, slots=True)
class WindowTimes:
    """When a window was taken up, encoded and done, on CLOCK_MONOTONIC to about a step, and its turns in the batch."""

    taken: float
    encoded: float
    done: float
    steps: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The request is done; its segments were sent before."""

    request_id: str
    language: str
    text: str
    queue_seconds: float
    inference_seconds: float
    warnings: tuple[Skipped, ...] = ()
    windows: tuple[WindowTimes, ...] = ()
    """The first of them, for the trace."""
    kind: Literal["finished"] = "finished"


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended without a result; `code` says which of `service.errors` that is."""

    request_id: str
    code: Literal["deadline_exceeded", "internal_error", "no_memory", "invalid_value"]
    message: str
    param: str | None = None
    """The option that is to blame, where one is."""
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """A worker's counters since it started, and the sign that it makes progress."""

    progress: int
    """Grows with everything heard, encoded or stepped; a worker with work in hand at which it stands still hangs."""
    steps: int
    rows: int
    tokens: int
    waiting_windows: int
    audio_seconds: float
    fallbacks: dict[str, int]
    guards: dict[str, int]
    """Stretches of recordings that were skipped, by reason."""
    batch_rows: dict[str, int]
    """Decode steps by number of rows (`"1"`, `"2"`, ...)."""
    out_of_memory: int
    """How often the device's memory ran out, which made the batch smaller."""
    memory_bytes: dict[str, int]
    """By kind: what is `resident` in the process, and on a GPU `allocated` and `reserved` on it, of a `total`."""
    busy_seconds: dict[str, float]
    """What the worker spent on each stage of its work (`service.worker.stats.Stage`)."""
    kind: Literal["worker_stats"] = "worker_stats"


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The worker, or an audio child, cannot start; the message says which setting or file is at fault."""

    message: str
    kind: Literal["start_failed"] = "start_failed"


Message = Annotated[
    DecodeAudio | ChildReady | AudioDecoded | AudioRefused | Transcribe | DetectLanguage | Cancel | Stop
    | ModelInfo | Received | Started | Cancelled | SegmentsReady | LanguageDetected | Finished | Failed
    | WorkerStats | StartFailed,
    Field(discriminator="kind"),
]  # fmt: skip

_ADAPTER: TypeAdapter[Message] = TypeAdapter(Message, config=ConfigDict(ser_json_inf_nan="constants"))
"""NaN stays one: as `null`, pydantic's default, it would be no message to whoever reads it."""


def encode(message: Message) -> bytes:
    """A message as JSON bytes."""
    return _ADAPTER.dump_json(message)


def decode(data: bytes) -> Message:
    """The message in `data`; `pydantic.ValidationError` if it is none."""
    return _ADAPTER.validate_json(data)

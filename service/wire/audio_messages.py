"""What the HTTP process and an audio child say to each other; parts of `service.wire.messages.Message`.

The child reads hostile bytes, so what it says is validated like any input. The upload, and the memory for its samples,
travel beside the message, as file descriptors (`service.wire.channel`).
"""

from dataclasses import dataclass
from typing import Literal

SampleFormat = Literal["int16", "float32"]
MEASURES = ("limits", "network", "no-new-privileges", "system-calls", "dies-with-parent")
"""What a child locks itself down with, where the machine permits it; see `service.audio_child.sandbox`."""

# --- HTTP process -> audio child -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DecodeAudio:
    """Decode the upload in the first file descriptor that comes with this message; the samples go into the second."""

    max_seconds: float
    max_decoded_bytes: int
    kind: Literal["decode_audio"] = "decode_audio"


# --- audio child -> HTTP process -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChildReady:
    """The child has loaded its codecs and locked itself down; `sandbox` names the measures that took hold."""

    sandbox: tuple[str, ...]
    kind: Literal["child_ready"] = "child_ready"


@dataclass(frozen=True, slots=True)
class AudioDecoded:
    """Mono 16 kHz samples are in the memory that came for them."""

    sample_format: SampleFormat
    n_samples: int
    kind: Literal["audio_decoded"] = "audio_decoded"


@dataclass(frozen=True, slots=True)
class AudioRefused:
    """The upload is no audio (`invalid_audio`), too much (`audio_too_long`), or there is no memory for its samples."""

    code: Literal["invalid_audio", "audio_too_long", "no_memory"]
    message: str
    kind: Literal["audio_refused"] = "audio_refused"

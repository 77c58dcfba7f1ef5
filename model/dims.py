"""Fixed sizes: the audio front end's constants and the dimensions of every published Whisper model.

Imports nothing, so that every process may read it. Sources: "Robust Speech Recognition via Large-Scale Weak
Supervision", section 2.2 and table 1; the published checkpoints' own `dims`.
"""

from dataclasses import dataclass

SAMPLE_RATE = 16_000
"""Samples a second that the model hears."""
N_FFT = 400
"""Samples in one analysis window (25 ms)."""
HOP_LENGTH = 160
"""Samples between two Mel frames (10 ms)."""
CHUNK_LENGTH = 30
"""Seconds in one window of the model."""
N_SAMPLES = CHUNK_LENGTH * SAMPLE_RATE
N_FRAMES = N_SAMPLES // HOP_LENGTH
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH


@dataclass(frozen=True, slots=True)
class ModelDimensions:
    """The ten integers that define a Whisper model; the names are those of the published checkpoints."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int

    @property
    def is_multilingual(self) -> bool:
        """Whether the vocabulary has language and task tokens (51,865 tokens and up)."""
        return self.n_vocab >= 51_865

    @property
    def num_languages(self) -> int:
        """Languages that the vocabulary names: 99, or 100 from large-v3 on (Cantonese); 99 for English-only too."""
        return self.n_vocab - 51_765 - int(self.is_multilingual)

    @property
    def frames_per_token(self) -> int:
        """Mel frames per encoder position and per timestamp step (2: 20 ms)."""
        return N_FRAMES // self.n_audio_ctx


def _dims(
    state: int,
    heads: int,
    layers: int,
    *,
    text_layers: int | None = None,
    vocab: int = 51_865,
    mels: int = 80,
) -> ModelDimensions:
    return ModelDimensions(
        mels,
        1500,
        state,
        heads,
        layers,
        vocab,
        448,
        state,
        heads,
        layers if text_layers is None else text_layers,
    )


DIMENSIONS: dict[str, ModelDimensions] = {
    "tiny": _dims(384, 6, 4),
    "tiny.en": _dims(384, 6, 4, vocab=51_864),
    "base": _dims(512, 8, 6),
    "base.en": _dims(512, 8, 6, vocab=51_864),
    "small": _dims(768, 12, 12),
    "small.en": _dims(768, 12, 12, vocab=51_864),
    "medium": _dims(1024, 16, 24),
    "medium.en": _dims(1024, 16, 24, vocab=51_864),
    "large-v1": _dims(1280, 20, 32),
    "large-v2": _dims(1280, 20, 32),
    "large-v3": _dims(1280, 20, 32, vocab=51_866, mels=128),
    "large-v3-turbo": _dims(1280, 20, 32, text_layers=4, vocab=51_866, mels=128),
}
"""Published sizes by name."""

ALIASES: dict[str, str] = {"large": "large-v3", "turbo": "large-v3-turbo"}
"""Names that the field uses for another size."""


def canonical_name(name: str) -> str:
    """The published name of a size: `turbo` -> `large-v3-turbo`; an unknown name comes back unchanged."""
    return ALIASES.get(name, name)

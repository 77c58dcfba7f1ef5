"""What a card does at most, and the least time that a window then takes: the roofline of a whole service on a GPU.

Two ceilings, measured in the run they are held against: a large product of matrices in the compute type, and a copy
(bytes read and written). A window is encoded once; each of its tokens multiplies its share of a step, or the step reads
its weights once for all rows, and for each row the audio's keys and values and the text so far, whichever takes longer.
`benchmarks.machine.roofline` holds single stages against the products of their own shapes; this is what no program can
beat.
"""

from dataclasses import dataclass

import torch

from benchmarks.machine.device import least_time
from model.decoding.budget import window_bytes
from model.dims import CHUNK_LENGTH, ModelDimensions

TOKENS = 110
"""Tokens of a window of fast speech, prompt included."""
_TEXT = 60
"""Tokens that a row has behind it on average."""


@dataclass(frozen=True, slots=True)
class Card:
    """Ceilings of a device."""

    product_per_s: float
    """Operations a second."""
    copy_bytes_per_s: float
    """Bytes read and written."""


@dataclass(frozen=True, slots=True)
class CardBounds:
    """Least seconds of a model's windows on a card."""

    dims: ModelDimensions
    card: Card
    itemsize: int
    """Bytes of a weight."""
    cross_kv: str = "auto"
    """How the audio's keys and values are kept (`model.network.audio_memory`)."""

    @property
    def encoder(self) -> float:
        """The encoder, of a window."""
        d, n, layers = self.dims.n_audio_state, self.dims.n_audio_ctx, self.dims.n_audio_layer
        operations = 6 * self.dims.n_mels * d * 2 * n + 6 * d * d * n + layers * (24 * d * d * n + 4 * n * n * d)
        return operations / self.card.product_per_s

    @property
    def keys_and_values(self) -> float:
        """The audio's keys and values, of a window."""
        d = self.dims.n_text_state
        return 4 * self.dims.n_text_layer * d * d * self.dims.n_audio_ctx / self.card.product_per_s

    def step(self, rows: int, beams: int = 1) -> float:
        """One token for each of so many rows, of which so many share a window, whose memory is read once for them."""
        d, layers, vocabulary = self.dims.n_text_state, self.dims.n_text_layer, self.dims.n_vocab
        operations = layers * (28 * d * d + 4 * d * _TEXT + 4 * d * self.dims.n_audio_ctx) + 2 * vocabulary * d
        weights = self.itemsize * (14 * d * d * layers + vocabulary * d)
        text = self.itemsize * 2 * layers * d * _TEXT
        row = window_bytes(self.dims, self.itemsize, self.cross_kv) / beams + text
        return max(rows * operations / self.card.product_per_s, (weights + rows * row) / self.card.copy_bytes_per_s)

    def window(self, rows: int, tokens: int = TOKENS, beams: int = 1) -> float:
        """A window, in so many rows, among as many rows as are decoded together, one stage after the other."""
        return self.encoder + self.keys_and_values + tokens * self.step(rows, beams) * beams / rows

    def speed(self, rows: int, tokens: int = TOKENS, beams: int = 1) -> float:
        """Seconds of audio a second (RTFx), windows counted whole."""
        return CHUNK_LENGTH / self.window(rows, tokens, beams)


def measure_card(device: torch.device, dtype: torch.dtype) -> Card:
    """The ceilings of a device."""
    size = 8192 if device.type == "cuda" else 512
    matrix = torch.randn(size, size, device=device).to(dtype)  # zeros would draw less power than numbers do
    source = torch.ones(size * size * 8, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    with torch.inference_mode():
        product = least_time(lambda: matrix @ matrix, device)
        copy = least_time(lambda: target.copy_(source), device)
    return Card(2 * size**3 / product, 2 * source.nbytes / copy)

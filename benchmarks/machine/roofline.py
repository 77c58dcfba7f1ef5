"""What this machine could do at best: measured ceilings, and the least time that each stage of a window needs.

A bound is what the products of a stage take at the ceiling of their kind, plus what its memory takes to read; norms,
softmax, sampling and Python count for nothing, so no stage reaches its bound. A decode step reads its weights once for
all rows, while it multiplies them (the longer of the two counts), and the audio memory once for each window.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.machine.device import least_time
from model.compute import can_multiply_int8, has_vnni
from model.dims import ModelDimensions
from model.native.block import NativeEncoderBlock
from model.native.library import load_library
from model.native.rowwise import Int8Linear, quantise_rows
from model.network.blocks import EncoderBlock
from model.network.whisper import Whisper

_MEMORY_BYTES = 256 * 2**20
"""Read once for the ceiling of memory: more than any cache holds."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the machine was seen to do, in one run with what is held against it."""

    products: float
    """Operations a second of a window's product in the model's own arithmetic (int8 in int8)."""
    float_products: float
    """The same in the model's float format: what convolutions are made of."""
    attention: float
    """Operations a second of a window's self-attention, as the encoder has it."""
    memory: float
    """Bytes a second read by a product with one row."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Least seconds of the stages of a window."""

    dims: ModelDimensions
    ceilings: Ceilings
    weight_bytes: int
    """Bytes of a decoder weight: 1 in int8."""
    audio_bytes: int
    """Bytes of a number of the audio memory."""

    @property
    def encoder(self) -> float:
        """All of a window's positions."""
        d, n = self.dims.n_audio_state, self.dims.n_audio_ctx
        convolutions = 2 * 3 * (self.dims.n_mels * d * 2 * n + d * d * n)
        products = 2 * 12 * d * d * n * self.dims.n_audio_layer
        attention = 4 * n * n * d * self.dims.n_audio_layer
        c = self.ceilings
        return convolutions / c.float_products + products / c.products + attention / c.attention

    @property
    def cross_kv(self) -> float:
        """Keys and values of the audio for every layer of the decoder."""
        d, n = self.dims.n_text_state, self.dims.n_audio_ctx
        return 4 * d * d * n * self.dims.n_text_layer / self.ceilings.products

    def step(self, rows: int, windows: int | None = None) -> float:
        """One token for each row; rows of one window each, or of so many windows. A prompt is rows of one window."""
        d, layers = self.dims.n_text_state, self.dims.n_text_layer
        weights = 14 * d * d * layers + self.dims.n_vocab * d
        audio = 2 * self.dims.n_audio_ctx * d * layers * self.audio_bytes * (rows if windows is None else windows)
        c = self.ceilings
        return max(2 * rows * weights / c.products, weights * self.weight_bytes / c.memory) + audio / c.memory


def measure(model: Whisper) -> Ceilings:
    """The ceilings of the model's device and arithmetic."""
    d, n = model.dims.n_audio_state, model.dims.n_audio_ctx
    linear = nn.Linear(d, 4 * d, device=model.device, dtype=model.dtype)
    x = torch.randn(n, d, device=model.device, dtype=model.dtype)
    block = next(module for module in model.encoder.modules() if isinstance(module, EncoderBlock | NativeEncoderBlock))
    attend = partial(block.attention, x[None], torch.cat([x, x], dim=-1)[None], block.n_head)
    matrix = torch.randn(_MEMORY_BYTES // (4096 * x.element_size()), 4096, device=model.device, dtype=x.dtype)
    row = torch.randn(1, 4096, device=model.device, dtype=x.dtype)
    with torch.inference_mode():
        operations = 2 * n * 4 * d * d
        plain = operations / least_time(lambda: F.linear(x, linear.weight), model.device)
        products = plain
        if model.compute_type == "int8" and can_multiply_int8():
            quantised = Int8Linear(linear, 127 if has_vnni() else 64, load_library())
            rows, _ = quantise_rows(x, load_library())
            products = operations / least_time(lambda: quantised.product(rows), model.device)
        attention = 4 * n * n * d / least_time(attend, model.device)
        memory = matrix.numel() * matrix.element_size() / least_time(lambda: F.linear(row, matrix), model.device)
    return Ceilings(products, plain, attention, memory)

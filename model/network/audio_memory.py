"""Keys, or values, of the audio: every layer's, in the slots of the encoded windows, in 32, 16 or 8 bits a number.

Held by `model.network.cache`, which fills it once a window and reads it in every step: of a large model's step it is
most of what is read (the paper's cross-attention, 1500 positions a window and layer). 8 bits halve that, and twice as
many windows fit a device.

- `int8`: one scale for each position and head, as in `model.native`: 0.4 % of the largest of 64 numbers at most.
- `fp8`: e4m3 as it is, no scale: 6 % of each number at most, and beyond 448 cut off.
- Else the model's own format, and what is read is a view.

Here what is read is made whole again in torch's operators, on any device; `model.gpu.split_attention` reads the 8 bits
themselves.
"""

import math

import numpy as np
import torch
from torch import Tensor

from model.dims import ModelDimensions

_STORED = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
SCALE = torch.bfloat16
"""Format of a scale: the range of a float32. Numbers are rounded to multiples of the scale as it is kept, so its own
rounding costs nothing."""
_LEAST = 1e-30
_INT8 = 127.0
_FP8 = 448.0


def zeros(shape: tuple[int, ...], *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Memory of slots. On a CPU those that nobody has used yet take none: NumPy leaves zeros to the system."""
    if device.type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    data = torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8))
    return data.view(dtype).view(shape)


class AudioMemory:
    """What every layer and head made of each position: (n_layer, slots, n_head, n_audio_ctx, head)."""

    def __init__(
        self, dims: ModelDimensions, slots: int, *, device: torch.device, dtype: torch.dtype, cross_kv: str = "auto"
    ) -> None:
        """`dtype`: the model's; `cross_kv`: `int8`, `fp8`, or `auto`, which is `dtype` itself."""
        head = dims.n_text_state // dims.n_text_head
        positions = (dims.n_text_layer, slots, dims.n_text_head, dims.n_audio_ctx)
        self._dtype = dtype
        self.data = zeros((*positions, head), device=device, dtype=_STORED.get(cross_kv, dtype))
        self.scales = zeros(positions, device=device, dtype=SCALE) if cross_kv == "int8" else None

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.data.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def write(self, layer: int, slots: Tensor, heads: Tensor) -> None:
        """Fill slots (batch,) of a layer from their first position on with heads (batch, n_head, n_ctx, head)."""
        n_ctx = heads.shape[2]
        if self.scales is not None:
            scales = (heads.abs().amax(-1).float() / _INT8).clamp_(min=_LEAST).to(SCALE)
            self.scales[layer, slots, :, :n_ctx] = scales
            heads = (heads.float() / scales[..., None]).round_().clamp_(-_INT8, _INT8)
        elif self.data.dtype == torch.float8_e4m3fn:
            heads = heads.clamp(-_FP8, _FP8)  # what is beyond would become no number
        target, heads = self.data[layer], heads.to(self.data.dtype)
        if target.dtype == torch.float8_e4m3fn:  # no operator writes that at an index
            target, heads = target.view(torch.int8), heads.view(torch.int8)
        target[slots, :, :n_ctx] = heads

    def gather(self, layer: int, slots: Tensor) -> Tensor:
        """A copy of a layer's slots (n,), wherever they lie, in the model's format: (n, n_head, n_audio_ctx, head)."""
        data = self.data[layer]
        if data.dtype == torch.float8_e4m3fn:  # as in `write`
            return data.view(torch.int8)[slots].view(data.dtype).to(self._dtype)
        whole = data[slots].to(self._dtype)
        return whole if self.scales is None else whole.mul_(self.scales[layer, slots][..., None])

    def read(self, layer: int, slots: int | slice, n_ctx: int | None = None) -> Tensor:
        """A layer's numbers in the model's format, (n_head, n_ctx, head), or (slots, n_head, n_ctx, head)."""
        data = self.data[layer, slots, ..., :n_ctx, :]
        if data.dtype == self._dtype:
            return data
        whole = data.to(self._dtype)
        return whole if self.scales is None else whole.mul_(self.scales[layer, slots, ..., :n_ctx, None])

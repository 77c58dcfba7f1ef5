"""int8 on a CPU: weights with one scale for each output, activations with one scale for each row.

Gets a float32 `Whisper` and gives it back with `Int8Linear` in the encoder and in the projections of the audio to keys
and values. Convolutions, norms, attention and GELU stay float32. Nothing is calibrated: scales come from the weights
and from each row itself, so a row's result does not depend on its batch mates (the usual dynamic quantisation shares
one scale over the batch).

Without VNNI oneDNN adds two products of 8-bit numbers in 16 bits, which saturate without a word. There the weights keep
7 bits: 2 x 255 x 64 fits. (Activations reach further from their mean: most layers lose more by a bit there,
benchmarks/LOG.md.)
"""

import ctypes
from typing import cast

import torch
from torch import Tensor, nn

from model.compute import has_vnni
from model.network.whisper import AudioEncoder, TextDecoder, Whisper

PANEL = 16
"""Neighbours that C works on together; `PANEL` of vectors.h."""
_ZERO_POINT = 128
_HINT_ROWS = 1500
"""Rows for which oneDNN lays the weights out: a window's positions."""


def quantise_weight(weight: Tensor, top: int = 127) -> tuple[Tensor, Tensor]:
    """Weights (n_out, n_in) -> int8 in [-top, top], and the scale (n_out,) of each output, float32."""
    weight = weight.detach().float()
    scale = weight.abs().amax(1) / top
    scale[scale == 0] = 1.0
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def quantise_rows(x: Tensor, library: ctypes.CDLL | None) -> tuple[Tensor, Tensor]:
    """Activations (n, n_in) float32 -> uint8 around 128, and the scale (n, 1) of each row, by C where it is there.

    torch's reduction over short rows takes a fifth as long as the product that it prepares; the C function, on one
    thread, a fiftieth.
    """
    if library is not None and x.shape[1] % PANEL == 0:
        x = x.contiguous()
        rows, scale = torch.empty(x.shape, dtype=torch.uint8), torch.empty(len(x), 1)
        library.quantise_rows(*x.shape, x.data_ptr(), rows.data_ptr(), scale.data_ptr())
        return rows, scale
    scale = torch.linalg.vector_norm(x, torch.inf, -1, keepdim=True).div_(127)
    # Truncation after adding a half rounds: nothing is negative.
    return (x / scale.clamp(min=1e-30)).add_(_ZERO_POINT + 0.5).to(torch.uint8), scale


class Int8Linear(nn.Module):
    """In place of an `nn.Linear` that sees many rows: (..., n_in) -> (..., n_out), float32 in and out."""

    def __init__(self, linear: nn.Linear, top: int, library: ctypes.CDLL | None = None) -> None:
        """`top`: the largest magnitude of a quantised weight, 127 or less where the product saturates."""
        super().__init__()
        self._library = library
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, self.scale = quantise_weight(linear.weight, top)
        self.bias = linear.bias.detach().clone()
        self._packed: Tensor = torch.ops.onednn.qlinear_prepack(weight, [_HINT_ROWS, self.in_features])
        self._zeros = torch.zeros(self.out_features, dtype=torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        """Quantise the rows and multiply."""
        rows, scale = quantise_rows(x.reshape(-1, self.in_features), self._library)
        y = self.product(rows)
        return torch.addcmul(self.bias, y, scale, out=y).view(*x.shape[:-1], self.out_features)

    def product(self, rows: Tensor) -> Tensor:
        """The rows of `quantise_rows` (n, n_in) -> (n, n_out), before their own scales and the bias."""
        # The operator knows one scale for all rows: it is 1.
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, _ZERO_POINT, self._packed, self.scale, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return y


def quantise_projections(model: Whisper, library: ctypes.CDLL | None) -> None:
    """Replace the projections that see whole windows, one by one, so that few are there in both forms."""
    top = 127 if has_vnni() else 64
    parents = [
        part for block in cast(AudioEncoder, model.encoder).blocks for part in (block, block.get_submodule("mlp"))
    ]
    for parent in parents:
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, Int8Linear(child, top, library))
    if isinstance(model.decoder, TextDecoder):
        for block in model.decoder.blocks:
            if isinstance(block.cross_attn_kv, nn.Linear):
                block.cross_attn_kv = Int8Linear(block.cross_attn_kv, top, library)

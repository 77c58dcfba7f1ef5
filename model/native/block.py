"""A block of the encoder in int8: torch's products, everything between them in C.

`NativeEncoderBlock` takes the place of a `model.network.blocks.EncoderBlock` whose projections are `Int8Linear`, with
the same results within rounding in less time: between two products activations are read once (`row_passes`).
"""

from typing import cast

from torch import Tensor, nn

from model.native.row_passes import Product, RowPasses
from model.native.rowwise import Int8Linear
from model.network.blocks import EncoderBlock


class NativeEncoderBlock(nn.Module):
    """See `EncoderBlock`, whose methods these are."""

    def __init__(self, block: EncoderBlock, passes: RowPasses) -> None:
        super().__init__()
        self.n_head, self.attention, self._passes = block.n_head, block.attention, passes
        self.attn_ln, self.mlp_ln = block.attn_ln, block.mlp_ln
        self._qkv, self._out = cast(Int8Linear, block.attn_qkv), cast(Int8Linear, block.attn_out)
        self._wide, self._narrow = cast(Int8Linear, block.mlp[0]), cast(Int8Linear, block.mlp[2])

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_ctx, n_state) in and out; `x` is overwritten."""
        return self.attend(x, *self.project(x))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (batch, n_ctx, n_state), and keys beside values (batch, n_ctx, 2 * n_state)."""
        n_state = x.shape[-1]
        rows, scales = self._passes.round_rows(x.reshape(-1, n_state), self.attn_ln)
        result = self._passes.finish(_product(self._qkv, rows, scales)).view(*x.shape[:-1], 3 * n_state)
        return result[..., :n_state], result[..., n_state:]

    def attend(self, x: Tensor, query: Tensor, keys_values: Tensor) -> Tensor:
        """The rest of the block, `x` overwritten; there may be keys and values of more positions than queries."""
        passes, residual = self._passes, x.view(-1, x.shape[-1])
        heard = self.attention(query, keys_values, self.n_head).reshape(residual.shape)
        product = _product(self._out, *passes.round_rows(heard))
        product = _product(self._wide, *passes.add_and_norm(product, residual, self.mlp_ln))
        product = _product(self._narrow, *passes.gelu(product))
        passes.add(product, residual)
        return x


def _product(linear: Int8Linear, rows: Tensor, scales: Tensor) -> Product:
    return Product(linear.product(rows), scales, linear.bias)

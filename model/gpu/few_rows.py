"""A decode step of few rows in few kernels: products with what stands around them, in Triton.

Used by `model.gpu.split_step`. Of the 19 kernels that torch's operators are in each layer all but six do next to
nothing, and each takes some two millionths of a second all the same: with one row as long together as reading the
weights. Here a normalisation is part of the product behind it, and bias, GELU and what is added to a row are part of
the product before them: six kernels a layer, beside three or four for attention.

- A product reads each weight once, in blocks of its rows, and all rows of the step with them. Beyond `MOST_ROWS`, where
  the card's library is at its best, torch's operators remain.
- Sums, normalisation and GELU are in float32; a number is rounded to the model's format where a product wants it so,
  and where a row is written. torch rounds once more in between.

Importable only where Triton is. **Never run on a GPU so far.**
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from model.network.blocks import Attention, DecoderBlock
from model.network.whisper import TextDecoder

MOST_ROWS = 16
"""Rows of the smallest product that the card's matrix units have: fewer take as long."""
_BLOCK = 16
"""Rows of the weight for a program: 80 programs and more of a large model keep its memory busy."""
_DEEPEST = 256
"""Numbers of each that are read at once at most."""
_SHALLOWEST = 16
_STAGES = 4
"""Reads of the weight under way."""


def takes(decoder: TextDecoder, rows: int) -> bool:
    """Whether a step of so many rows can be taken so."""
    weight = decoder.token_embedding.weight
    return rows <= MOST_ROWS and weight.element_size() == 2 and _deep(weight.shape[1]) >= _SHALLOWEST


def hidden_states(decoder: TextDecoder, tokens: Tensor, positions: Tensor, attention: Attention) -> Tensor:
    """What `TextDecoder.forward` gives, (rows, n_state); `takes` must hold."""
    x = decoder.token_embedding(tokens) + decoder.positional_embedding[positions]
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        for layer, block in enumerate(decoder.blocks):
            _block(block, x, layer, attention)  # type: ignore[arg-type]
    return decoder.ln(x)  # type: ignore[no-any-return]


def _block(block: DecoderBlock, x: Tensor, layer: int, attention: Attention) -> None:
    """`DecoderBlock.forward`; `x` is overwritten."""
    query, key, value = project(x, block.attn_qkv, norm=block.attn_ln).chunk(3, dim=-1)
    project(attention.self_attention(layer, query, key, value), block.attn_out, onto=x)
    query = project(x, block.cross_attn_query, norm=block.cross_attn_ln)
    project(attention.cross_attention(layer, query), block.cross_attn_out, onto=x)
    wide = project(x, block.mlp[0], norm=block.mlp_ln, gelu=True)  # type: ignore[arg-type]
    project(wide, block.mlp[2], onto=x)  # type: ignore[arg-type]


def project(
    x: Tensor, linear: nn.Linear, *, norm: nn.LayerNorm | None = None, gelu: bool = False, onto: Tensor | None = None
) -> Tensor:
    """A linear layer of rows (rows, in_features), normalised before, through GELU or added to `onto` after.

    (rows, out_features): a new tensor, or `onto`, (rows, out_features), which is overwritten.
    """
    (rows, size), width = x.shape, linear.out_features
    answer = x.new_empty(rows, width) if onto is None else onto
    scale, shift = (None, None) if norm is None else (norm.weight, norm.bias)
    _project[(triton.cdiv(width, _BLOCK),)](
        x, linear.weight, linear.bias, scale, shift, answer, rows, x.stride(0), 0.0 if norm is None else norm.eps,
        SIZE=size, WIDTH=width, ROWS=MOST_ROWS, BLOCK=_BLOCK, DEEP=_deep(size),
        NORMED=norm is not None, GELU=gelu, ADDED=onto is not None, num_warps=4, num_stages=_STAGES,
    )  # fmt: skip
    return answer


def _deep(size: int) -> int:
    """The largest power of two up to `_DEEPEST` that so many numbers are a multiple of."""
    return min(_DEEPEST, size & -size)


@triton.jit(do_not_specialize=["rows"])
def _project(
    x, weight, bias, scale, shift, answer, rows, stride, eps,
    SIZE: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, DEEP: tl.constexpr,
    NORMED: tl.constexpr, GELU: tl.constexpr, ADDED: tl.constexpr,
):  # fmt: skip
    """`BLOCK` columns of the answer, for all rows."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.arange(0, ROWS)
    deep = tl.arange(0, DEEP)
    there, counts = (row < rows)[:, None], (column < WIDTH)[None, :]
    own = x + row[:, None] * stride + deep[None, :]
    mean = tl.zeros([ROWS], tl.float32)
    spread = tl.zeros([ROWS], tl.float32)
    if NORMED:
        for at in tl.static_range(0, SIZE, DEEP):
            piece = tl.load(own + at, mask=there, other=0.0).to(tl.float32)
            mean += tl.sum(piece, 1)
            spread += tl.sum(piece * piece, 1)
        mean = mean / SIZE
        spread = 1.0 / tl.sqrt(tl.maximum(spread / SIZE - mean * mean, 0.0) + eps)
    found = tl.zeros([ROWS, BLOCK], tl.float32)
    for at in range(0, SIZE, DEEP):
        part = tl.load(own + at, mask=there, other=0.0)
        if NORMED:
            even = (part.to(tl.float32) - mean[:, None]) * spread[:, None]
            even = even * tl.load(scale + at + deep).to(tl.float32)[None, :]
            part = (even + tl.load(shift + at + deep).to(tl.float32)[None, :]).to(part.dtype)
        rows_of_weight = tl.load(weight + column[None, :] * SIZE + at + deep[:, None], mask=counts, other=0.0)
        found = tl.dot(part, rows_of_weight, found, input_precision="ieee")
    found += tl.load(bias + column, mask=column < WIDTH, other=0.0).to(tl.float32)[None, :]
    if GELU:
        found = 0.5 * found * (1.0 + tl.erf(found * 0.7071067811865476))
    target = answer + row[:, None] * WIDTH + column[None, :]
    if ADDED:
        found += tl.load(target, mask=there & counts, other=0.0).to(tl.float32)
    tl.store(target, found.to(answer.dtype.element_ty), mask=there & counts)

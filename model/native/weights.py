"""A `TextDecoder` laid out for decoder.c: int8 panels with one scale for each output, everything else float32.

`NativeDecoder` takes the decoder's place in a `Whisper`; `model.native.inference` runs it. What it was made of can be
forgotten: the base model's decoder takes 49 MB instead of two times 208.

Of all matrices the token embedding loses most by a scale for each token (three quarters of what int8 changes in the
decoder): its rows have a vector in common that is three times as long as what tells them apart, and a few columns that
reach ten times as far as the others. So it is rounded without its mean, and with its columns evened out; the final norm
and the positions take up both, and a step costs the same. What all logits of a row have in common is lost: no
probability depends on it.
"""

import ctypes
from collections.abc import Iterator
from ctypes import c_void_p
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.dims import ModelDimensions
from model.native.rowwise import PANEL, Int8Linear, quantise_rows, quantise_weight
from model.network.blocks import DecoderBlock
from model.network.whisper import TextDecoder

_REACH = 0.25
"""How much of a column's scale follows what it is multiplied by, and how little its own largest weight."""
_SMALLEST = 1e-6


def panels(weight: Tensor, group: int = 2, n_in: int | None = None) -> Tensor:
    """(n_out, n_in) -> (ceil(n_out / 16), n_in / group, 16, group), filled up with zeros, also to `n_in` inputs."""
    padded = F.pad(weight, (0, (n_in or weight.shape[1]) - weight.shape[1], 0, -len(weight) % PANEL))
    return padded.view(-1, PANEL, padded.shape[1] // group, group).transpose(1, 2).contiguous()


@dataclass(frozen=True, slots=True)
class RoundedEmbedding:
    """A token embedding (n_vocab, n_state) as `(tokens * scale[:, None]) / columns + mean`."""

    tokens: Tensor
    """(n_vocab, n_state) int8."""
    scale: Tensor
    """(n_vocab,), of each token."""
    columns: Tensor
    """(n_state,): by what each column was multiplied before it was rounded."""
    mean: Tensor
    """(n_state,): the mean of all tokens."""

    @classmethod
    def of(cls, embedding: Tensor, norm: nn.LayerNorm) -> "RoundedEmbedding":
        """`norm` is what logits are a product with: where it reaches far, an error of the column counts for more."""
        mean = embedding.detach().mean(0)
        centred = embedding.detach() - mean
        reach = torch.hypot(norm.weight.detach(), norm.bias.detach()).clamp(min=_SMALLEST)
        columns = reach**_REACH / centred.abs().amax(0).clamp(min=_SMALLEST) ** (1 - _REACH)
        return cls(*quantise_weight(centred * columns), columns, mean)


class NativeDecoder(nn.Module):
    """The weights of a text decoder in the order that `decoder_open` takes them."""

    def __init__(self, decoder: TextDecoder, dims: ModelDimensions, library: ctypes.CDLL) -> None:
        """`decoder` is float32 on a CPU; its `cross_attn_kv`, whatever it is by now, is kept."""
        super().__init__()
        if dims.n_text_state % PANEL or dims.n_text_state // dims.n_text_head % PANEL:
            raise ValueError(f"a state of {dims.n_text_state} in {dims.n_text_head} heads is not made of panels of 16")
        self.dims, self.library = dims, library
        self.cross_kv = nn.ModuleList(block.cross_attn_kv for block in decoder.blocks)  # type: ignore[misc]
        self._tensors: list[Tensor | None] = []
        self._add_embedding(decoder)
        for block in decoder.blocks:
            self._add_block(cast(DecoderBlock, block))

    def pointers(self) -> "list[c_void_p]":
        """Addresses of the tensors, which live as long as this object."""
        return [c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in self._tensors]

    def project(self, features: Tensor) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None]]:
        """Keys beside values of a window (n_ctx, n_state), layer by layer, as `decoder_fill` takes them: products
        (n_ctx, 2 * n_state), and what scales their rows and is added to them, if anything."""
        rows: tuple[Tensor, Tensor] | None = None
        for linear in self.cross_kv:
            if not isinstance(linear, Int8Linear):
                yield linear(features).float().contiguous(), None, None
                continue
            rows = rows or quantise_rows(features.float(), self.library)  # the same ones for all layers
            yield linear.product(rows[0]), rows[1], linear.bias

    def _add_embedding(self, decoder: TextDecoder) -> None:
        embedding = RoundedEmbedding.of(decoder.token_embedding.weight, decoder.ln)
        self._add_rounded(embedding.tokens, embedding.scale, None)
        self._tensors.append(1 / embedding.columns)
        self._tensors.append((decoder.positional_embedding.detach() + embedding.mean).contiguous())
        norm = decoder.ln
        self._tensors += [norm.weight.detach() / embedding.columns, norm.bias.detach() / embedding.columns]

    def _add_block(self, block: DecoderBlock) -> None:
        self._add_norm(block.attn_ln)
        self._add(block.attn_qkv)
        self._add(block.attn_out)
        self._add_norm(block.cross_attn_ln)
        self._add(block.cross_attn_query)
        self._add(block.cross_attn_out)
        self._add_norm(block.mlp_ln)
        self._add(block.mlp[0])
        self._add(block.mlp[2])

    def _add(self, module: nn.Module) -> None:
        linear = cast(nn.Linear, module)
        self._add_rounded(*quantise_weight(linear.weight), linear.bias)

    def _add_rounded(self, quantised: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        scale = torch.cat([scale, scale.new_zeros(-len(scale) % PANEL)])
        group = ctypes.c_int32.in_dll(self.library, "weight_group").value
        packed = panels(quantised, group, self.library.weight_inputs(quantised.shape[1]))
        self._tensors += [packed, scale, None if bias is None else bias.detach().contiguous()]

    def _add_norm(self, norm: nn.LayerNorm) -> None:
        self._tensors += [norm.weight.detach().contiguous(), norm.bias.detach().contiguous()]

"""A `TextDecoder` laid out for decoder.c: int8 panels with one scale for each output, everything else float32.

`NativeDecoder` takes the decoder's place in a `Whisper`; `model.native.inference` runs it. What it was made of can be
forgotten: the base model's decoder takes 49 MB instead of two times 208.
"""

import ctypes
from ctypes import c_void_p
from typing import cast

import torch
from torch import Tensor, nn

from model.dims import ModelDimensions
from model.native.rowwise import PANEL, quantise_weight
from model.network.whisper import DecoderBlock, TextDecoder


def panels(weight: Tensor) -> Tensor:
    """(n_out, n_in) -> (ceil(n_out / 16), n_in / 2, 16, 2), filled up with zeros."""
    n_out, n_in = weight.shape
    padded = torch.cat([weight, weight.new_zeros(-n_out % PANEL, n_in)])
    return padded.view(-1, PANEL, n_in // 2, 2).transpose(1, 2).contiguous()


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
        self._add_linear(decoder.token_embedding.weight, None)
        self._tensors.append(decoder.positional_embedding.detach().contiguous())
        self._add_norm(decoder.ln)
        for block in decoder.blocks:
            self._add_block(cast(DecoderBlock, block))

    def pointers(self) -> "list[c_void_p]":
        """Addresses of the tensors, which live as long as this object."""
        return [c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in self._tensors]

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
        self._add_linear(linear.weight, linear.bias)

    def _add_linear(self, weight: Tensor, bias: Tensor | None) -> None:
        quantised, scale = quantise_weight(weight)
        scale = torch.cat([scale, scale.new_zeros(-len(scale) % PANEL)])
        self._tensors += [panels(quantised), scale, None if bias is None else bias.detach().contiguous()]

    def _add_norm(self, norm: nn.LayerNorm) -> None:
        self._tensors += [norm.weight.detach().contiguous(), norm.bias.detach().contiguous()]

"""The encoder's self-attention in C, over 16-bit whole numbers: `attention.c`, its memory and its threads.

In int8 it takes the place of `model.network.blocks.attend_in_torch` in every `EncoderBlock`. Its error is small beside
that of the int8 projections around it, and a window's results are the same bits alone and among others, with any number
of threads.
"""

import ctypes

import torch
from torch import Tensor

from model.native.workspace import Workspace

HEAD = 64
"""Channels of a head that attention.c is made for: those of all sizes of Whisper."""


class NativeAttention:
    """Callable as `model.network.blocks.EncoderAttention`; one for all blocks of an encoder, which take turns."""

    def __init__(self, library: ctypes.CDLL, *, n_state: int, n_head: int, n_ctx: int) -> None:
        """Of at most `n_ctx` keys. `ValueError` where heads are not of 64 channels."""
        if n_state != n_head * HEAD:
            raise ValueError(f"a state of {n_state} in {n_head} heads is not of {HEAD} channels a head")
        self._library, self._n_state, self._n_head, self._n_ctx = library, n_state, n_head, n_ctx
        self._workspace = Workspace(library, "attention", n_head, n_ctx)

    def __call__(self, query: Tensor, keys_values: Tensor, n_head: int) -> Tensor:
        """See `EncoderAttention`, and `Workspace` for threads and memory."""
        batch, n_query, n_state = query.shape
        n_kv = keys_values.shape[1]
        if n_state != self._n_state or n_head != self._n_head or keys_values.shape != (batch, n_kv, 2 * n_state):
            raise ValueError(f"queries {tuple(query.shape)} do not fit keys and values {tuple(keys_values.shape)}")
        if not (0 < n_kv <= self._n_ctx and n_query):
            raise ValueError(f"{n_query} queries, {n_kv} keys: there must be some, and at most {self._n_ctx} keys")
        if not query.dtype == keys_values.dtype == torch.float32:
            raise ValueError(f"{query.dtype} queries, {keys_values.dtype} keys: both must be float32")
        query, keys_values = _by_rows(query), _by_rows(keys_values)
        out = query.new_empty(batch, n_query, n_state)
        with self._workspace.taken() as handle:
            for q, kv, to in zip(query, keys_values, out, strict=True):
                self._library.attention_run(
                    handle, n_query, q.data_ptr(), q.stride(0), n_kv, kv.data_ptr(), kv.stride(0), to.data_ptr()
                )
        return out


def _by_rows(x: Tensor) -> Tensor:
    """With channels side by side; rows may be further apart."""
    return x if x.stride(-1) == 1 else x.contiguous()

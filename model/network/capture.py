"""A view of the attention memory that notes what chosen cross-attention heads look at.

Used by `model.decoding.inference` for the one pass in which a window's text is aligned with its audio; no other pass
knows of it. It writes nothing into the memory, so it needs no row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.network.blocks import merge_heads, split_heads
from model.network.cache import KVCache, PrefillView
from model.transfer import send


class CaptureView:
    """A whole text at once, causal among its tokens, remembered nowhere."""

    def __init__(self, cache: KVCache, *, window: int, heads: tuple[tuple[int, int], ...]) -> None:
        """`heads`: (layer, head) of the cross-attention to note, in order of the layers."""
        self._cache, self._window, self._heads = cache, window, heads
        self._audio = PrefillView(cache, row=0, windows=[window])
        self._scores: list[Tensor] = []

    @property
    def scores(self) -> Tensor:
        """Scaled products of queries and keys, before the softmax: (heads, tokens, n_ctx), float32."""
        return torch.cat(self._scores)

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ARG002
        """See `model.network.blocks.Attention`; (n, n_state) for the n tokens of the text."""
        q, k, v = (split_heads(t[None], self._cache.n_head) for t in (query, key, value))
        return merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True))[0]

    def cross_attention(self, layer: int, query: Tensor) -> Tensor:
        """See `model.network.blocks.Attention`."""
        chosen = [head for at, head in self._heads if at == layer]
        if chosen:
            heads = send(chosen, query.device)
            q = split_heads(query[None].float(), self._cache.n_head)[0, heads]
            k = self._cache.cross(layer, self._window)[0][heads].float()
            scale = q.shape[-1] ** -0.25
            self._scores.append((q * scale) @ (k * scale).transpose(1, 2))
        return self._audio.cross_attention(layer, query)

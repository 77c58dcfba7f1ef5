"""The blocks of the network: attention and the MLP, of the encoder and of the decoder.

`model.network.whisper` stacks them. What attends is an argument or an attribute: the decoder's memory comes with each
call (`Attention`), the encoder's arithmetic is set once (`EncoderAttention`).

Source: "Attention Is All You Need"; openai/whisper `model.py`.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(Protocol):
    """The memory side of the decoder's attention; `model.network.cache` implements it."""

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Remember key and value, attend to everything before: (n, n_state) each, and so is the answer."""
        ...

    def cross_attention(self, layer: int, query: Tensor) -> Tensor:
        """Attend to the audio of each token's window: (n, n_state) in and out."""
        ...


class EncoderAttention(Protocol):
    """Self-attention of the encoder: `attend_in_torch`, or `model.native.attention` in int8."""

    def __call__(self, query: Tensor, keys_values: Tensor, n_head: int) -> Tensor:
        """Queries (batch, n, n_state), keys beside values (batch, n_ctx, 2 * n_state) -> (batch, n, n_state)."""
        ...


def split_heads(x: Tensor, n_head: int) -> Tensor:
    """(batch, n_ctx, n_state) -> (batch, n_head, n_ctx, n_state / n_head), a view."""
    return x.view(*x.shape[:-1], n_head, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(batch, n_head, n_ctx, head) -> (batch, n_ctx, n_state)."""
    return x.transpose(1, 2).flatten(2)


def gelu_(x: Tensor) -> Tensor:
    """GELU in place: a fresh result of a whole window would be fresh pages from the system."""
    return torch.ops.aten.gelu_(x)  # type: ignore[no-any-return]


def attend_in_torch(query: Tensor, keys_values: Tensor, n_head: int) -> Tensor:
    """See `EncoderAttention`."""
    q, k, v = (split_heads(t, n_head) for t in (query, *keys_values.chunk(2, dim=-1)))
    return merge_heads(F.scaled_dot_product_attention(q, k, v))


class MLP(nn.Sequential):
    """The position-wise network of a block: four times as wide, GELU."""

    def __init__(self, n_state: int) -> None:
        super().__init__(nn.Linear(n_state, 4 * n_state), nn.GELU(), nn.Linear(4 * n_state, n_state))

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_state) in and out; the wide activation is overwritten, not copied."""
        return self[2](gelu_(self[0](x)))  # type: ignore[no-any-return]


class EncoderBlock(nn.Module):
    """Self-attention over all audio positions, then the MLP; both pre-normalised and residual."""

    def __init__(self, n_state: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.attention: EncoderAttention = attend_in_torch
        self.attn_ln = nn.LayerNorm(n_state)
        self.attn_qkv = nn.Linear(n_state, 3 * n_state)
        self.attn_out = nn.Linear(n_state, n_state)
        self.mlp_ln = nn.LayerNorm(n_state)
        self.mlp = MLP(n_state)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_ctx, n_state) in and out; `x` is overwritten."""
        return self.attend(x, *self.project(x))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (batch, n_ctx, n_state), and keys beside values (batch, n_ctx, 2 * n_state)."""
        n_state = x.shape[-1]
        query, keys_values = self.attn_qkv(self.attn_ln(x)).split([n_state, 2 * n_state], dim=-1)
        return query, keys_values

    def attend(self, x: Tensor, query: Tensor, keys_values: Tensor) -> Tensor:
        """The rest of the block, `x` overwritten; there may be keys and values of more positions than queries."""
        x += self.attn_out(self.attention(query, keys_values, self.n_head))
        x += self.mlp(self.mlp_ln(x))
        return x


class DecoderBlock(nn.Module):
    """Self-attention over the text so far, cross-attention to the audio, the MLP."""

    def __init__(self, n_state: int) -> None:
        super().__init__()
        self.attn_ln = nn.LayerNorm(n_state)
        self.attn_qkv = nn.Linear(n_state, 3 * n_state)
        self.attn_out = nn.Linear(n_state, n_state)
        self.cross_attn_ln = nn.LayerNorm(n_state)
        self.cross_attn_query = nn.Linear(n_state, n_state)
        self.cross_attn_kv = nn.Linear(n_state, 2 * n_state)
        self.cross_attn_out = nn.Linear(n_state, n_state)
        self.mlp_ln = nn.LayerNorm(n_state)
        self.mlp = MLP(n_state)

    def forward(self, x: Tensor, layer: int, attention: Attention) -> Tensor:
        """(n, n_state) in and out, `x` is overwritten; `layer` is this block's place in the cache."""
        q, k, v = self.attn_qkv(self.attn_ln(x)).chunk(3, dim=-1)
        x += self.attn_out(attention.self_attention(layer, q, k, v))
        q = self.cross_attn_query(self.cross_attn_ln(x))
        x += self.cross_attn_out(attention.cross_attention(layer, q))
        x += self.mlp(self.mlp_ln(x))
        return x

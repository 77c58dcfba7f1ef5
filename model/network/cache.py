"""Attention memory: fixed slots, allocated once, and the views through which the decoder reads and writes them.

One **window slot** holds the cross-attention keys and values of one encoded window (n_audio_ctx positions: a fixed
size, so a pool and not pages). One **row slot** holds the self-attention keys and values of one hypothesis
(n_text_ctx positions). Several rows (beams, candidates, a temperature retry) point at one window slot, whose memory is
read once for them and never copied.

Rows are dense: the active ones are 0 .. n-1, so a step reads slices and gathers nothing. `copy_rows` closes a hole, and
lets a beam take over another one's past.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.dims import ModelDimensions
from model.network.audio_memory import AudioMemory, zeros
from model.network.blocks import merge_heads, split_heads
from model.network.whisper import TextDecoder
from model.transfer import send


class KVCache:
    """Keys and values of every slot; shapes (n_layer, slots, n_head, positions, head)."""

    def __init__(
        self,
        dims: ModelDimensions,
        *,
        n_windows: int,
        n_rows: int,
        device: torch.device,
        dtype: torch.dtype,
        cross_kv: str = "auto",
    ) -> None:
        """`cross_kv`: how the audio's are kept, see `model.network.audio_memory`; the text's are in `dtype`."""
        self.n_head = dims.n_text_head
        head = dims.n_text_state // dims.n_text_head

        def slots(count: int, positions: int) -> Tensor:
            shape = (dims.n_text_layer, count, dims.n_text_head, positions, head)
            return zeros(shape, device=device, dtype=dtype)

        self.cross_keys = AudioMemory(dims, n_windows, device=device, dtype=dtype, cross_kv=cross_kv)
        self.cross_values = AudioMemory(dims, n_windows, device=device, dtype=dtype, cross_kv=cross_kv)
        self.keys = slots(n_rows, dims.n_text_ctx)
        self.values = slots(n_rows, dims.n_text_ctx)
        self._n_audio_ctx = dims.n_audio_ctx
        self.filled = [dims.n_audio_ctx] * n_windows
        """Positions that each window slot holds."""

    def fill_windows(self, decoder: TextDecoder, features: Tensor, slots: Sequence[int]) -> None:
        """Project encoder features (batch, n_ctx, n_state) into the window slots, layer by layer.

        A window may be shorter than n_audio_ctx: its slot remembers how much of it is filled.
        """
        n_ctx = features.shape[1]
        for slot in slots:
            self.filled[slot] = n_ctx
        places = send(slots, features.device)
        for layer in range(len(self.keys)):
            key, value = decoder.cross_kv(features, layer)
            self.cross_keys.write(layer, places, split_heads(key, self.n_head))
            self.cross_values.write(layer, places, split_heads(value, self.n_head))

    def cross(self, layer: int, window: int) -> tuple[Tensor, Tensor]:
        """Cross-attention keys and values of a window, (n_head, n_ctx, head) each, in the model's format."""
        n_ctx = self.filled[window]
        return self.cross_keys.read(layer, window, n_ctx), self.cross_values.read(layer, window, n_ctx)

    def are_whole(self, windows: Sequence[int]) -> bool:
        """Whether each of these windows fills its slot."""
        return all(self.filled[window] == self._n_audio_ctx for window in windows)

    def clear_row(self, row: int) -> None:
        """Forget a row's last owner. A masked position still takes part in the product: it must hold no NaN."""
        self.keys[:, row] = 0
        self.values[:, row] = 0

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int], positions: slice) -> None:
        """Rows take over positions of other rows, all of them read before any is written."""
        if len(sources) == 1:  # a row that left, as in every other step of a full batch: an index would be sent first
            self.take_over(sources[0], targets[0], positions)
        else:
            self.take_over(send(sources, self.keys.device), send(targets, self.keys.device), positions)

    def take_over(self, read: int | Tensor, write: int | Tensor, positions: slice) -> None:
        """`copy_rows` for rows whose numbers are on the device, (n,) each, or for a single one."""
        for memory in (self.keys, self.values):
            memory[:, write, :, positions] = memory[:, read, :, positions]


class PrefillView:
    """The first tokens of rows, all of one length, one row after the other: causal in each, nothing before them."""

    def __init__(self, cache: KVCache, *, row: int, windows: Sequence[int]) -> None:
        """Rows from `row` on, one for each of `windows`."""
        self._cache, self._windows = cache, windows
        self._rows = slice(row, row + len(windows))
        # One after the other each is read where it lies, together they are copied: that is fewer operators for a GPU.
        together = len(windows) > 1 and cache.are_whole(windows)
        self._slots = send(windows, cache.keys.device) if together else None

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `model.network.blocks.Attention`; (rows * n, n_state) for the n tokens of each prompt."""
        rows, n_head = len(self._windows), self._cache.n_head
        q, k, v = (split_heads(t.reshape(rows, -1, t.shape[1]), n_head) for t in (query, key, value))
        n = q.shape[2]
        self._cache.keys[layer, self._rows, :, :n] = k
        self._cache.values[layer, self._rows, :, :n] = v
        return merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=n > 1)).flatten(0, 1)

    def cross_attention(self, layer: int, query: Tensor) -> Tensor:
        """See `model.network.blocks.Attention`."""
        if len(self._windows) == 1:
            return _attend_window(self._cache, layer, self._windows[0], query)
        if self._slots is not None:
            q = split_heads(query.view(len(self._windows), -1, query.shape[1]), self._cache.n_head)
            keys, values = (x.gather(layer, self._slots) for x in (self._cache.cross_keys, self._cache.cross_values))
            return merge_heads(F.scaled_dot_product_attention(q, keys, values)).flatten(0, 1)
        own = zip(self._windows, query.chunk(len(self._windows)), strict=True)
        return torch.cat([_attend_window(self._cache, layer, window, q) for window, q in own])


class StepView:
    """One token for each of the rows 0 .. n-1, which differ in length and in window."""

    def __init__(self, cache: KVCache, *, lengths: Sequence[int], windows: Sequence[int]) -> None:
        """`lengths`: tokens that each row holds already; `windows`: the window slot of each row."""
        device = cache.keys.device
        self._cache = cache
        self.positions = send(lengths, device)
        self._rows = torch.arange(len(lengths), device=device)
        self._longest = max(lengths) + 1
        self._mask = None
        if min(lengths) != max(lengths):
            unseen = torch.arange(self._longest, device=device) > self.positions[:, None]
            mask = torch.zeros(unseen.shape, device=device, dtype=cache.keys.dtype)
            self._mask = mask.masked_fill_(unseen, -torch.inf)[:, None, None]
        self._groups = _runs(windows)

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `model.network.blocks.Attention`; (rows, n_state)."""
        n, n_head = query.shape[0], self._cache.n_head
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys[self._rows, :, self.positions] = key.view(n, n_head, -1)
        values[self._rows, :, self.positions] = value.view(n, n_head, -1)
        heads = F.scaled_dot_product_attention(
            query.view(n, n_head, 1, -1),
            keys[:n, :, : self._longest],
            values[:n, :, : self._longest],
            attn_mask=self._mask,
        )
        return heads.flatten(1)

    def cross_attention(self, layer: int, query: Tensor) -> Tensor:
        """See `model.network.blocks.Attention`. Rows of one window are one product: its memory is read once."""
        if len(self._groups) == 1:
            return _attend_window(self._cache, layer, self._groups[0][0], query)
        return torch.cat(
            [_attend_window(self._cache, layer, window, query[start:stop]) for window, start, stop in self._groups]
        )


def _attend_window(cache: KVCache, layer: int, window: int, query: Tensor) -> Tensor:
    """Queries (n, n_state) of one window's rows to its (n_audio_ctx) keys -> (n, n_state)."""
    keys, values = cache.cross(layer, window)
    heads = F.scaled_dot_product_attention(split_heads(query[None], cache.n_head), keys[None], values[None])
    return merge_heads(heads)[0]


def _runs(windows: Sequence[int]) -> list[tuple[int, int, int]]:
    """(window, start, stop) for each run of neighbouring rows that share a window."""
    runs: list[tuple[int, int, int]] = []
    for row, window in enumerate(windows):
        if runs and runs[-1][0] == window:
            runs[-1] = (window, runs[-1][1], row + 1)
        else:
            runs.append((window, row, row + 1))
    return runs

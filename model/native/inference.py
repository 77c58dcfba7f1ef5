"""`model.decoding.inference.Inference` in C: owns the attention memory, checks every number, calls decoder.c.

The library trusts its caller; what could make it read or write beyond its memory is refused here with a `ValueError`.
A row's logits are the same bits alone and among others, whatever their number, and so is a prompt in one piece.
"""

import ctypes
import weakref
from collections.abc import Iterable, Sequence
from ctypes import c_int32, c_void_p

import torch
from torch import Tensor

from model.native.library import Dims, Memory
from model.native.rowwise import PANEL
from model.native.weights import NativeDecoder
from model.network.audio_memory import zeros
from model.search.rules import Limits


class NativeInference:
    """Decoder passes over int8 weights; see `model.decoding.inference.Inference` for what each method promises."""

    def __init__(self, decoder: NativeDecoder, *, n_windows: int, n_rows: int) -> None:
        """Allocate the memory of all slots; as many threads as torch uses now. `MemoryError` if that fails."""
        self._decoder, self.library = decoder, decoder.library
        dims = self._dims = decoder.dims
        # One row more than asked for: `attention` runs through it.
        self._n_rows, self._n_windows = n_rows, n_windows
        self._n_ctx = [0] * n_windows
        n_layer, n_head, size = dims.n_text_layer, dims.n_text_head, self._size
        n_panels = _padded(dims.n_text_ctx) // PANEL
        self._keys = _zeros(n_layer, n_rows + 1, n_head, n_panels, size, PANEL)
        self._values = _zeros(n_layer, n_rows + 1, n_head, size // PANEL, n_panels * PANEL, PANEL)
        n_panels = _padded(dims.n_audio_ctx) // PANEL
        self._cross_keys = _zeros(n_layer, n_windows, n_head, n_panels, size // 2, PANEL, 2, dtype=torch.int8)
        self._cross_values = _zeros(
            n_layer, n_windows, n_head, size // PANEL, n_panels * PANEL // 2, PANEL, 2, dtype=torch.int8
        )
        self._scales = torch.zeros(2, n_layer, n_windows, n_head, n_panels * PANEL)
        tensors = (
            self._keys, self._values, self._cross_keys, self._cross_values, self._scales[0], self._scales[1],
        )  # fmt: skip
        sizes = Dims(
            dims.n_text_state, dims.n_text_head, dims.n_text_layer, dims.n_vocab, dims.n_text_ctx, dims.n_audio_ctx,
            n_rows + 1, n_windows,
        )  # fmt: skip
        pointers = decoder.pointers()
        memory = Memory(*(tensor.data_ptr() for tensor in tensors))
        weights = (c_void_p * len(pointers))(*pointers)
        self._handle = c_void_p(self.library.decoder_open(sizes, memory, weights, torch.get_num_threads()))
        if not self._handle:
            raise MemoryError("no memory for the decoder")
        weakref.finalize(self, self.library.decoder_close, self._handle)

    @property
    def _size(self) -> int:
        return self._dims.n_text_state // self._dims.n_text_head

    def fill_windows(self, features: Tensor, slots: Sequence[int]) -> None:
        """See `Inference`. What a window leaves is int8 with a scale for each position and head."""
        if features.ndim != 3 or features.shape[1] > self._dims.n_audio_ctx or len(slots) != len(features):
            raise ValueError(f"features {tuple(features.shape)} do not fit {len(slots)} windows")
        _check("window", slots, self._n_windows)
        for slot, window in zip(slots, features, strict=True):
            for layer, tensors in enumerate(self._decoder.project(window)):
                pointers = (None if tensor is None else tensor.data_ptr() for tensor in tensors)
                self.library.decoder_fill(self._handle, layer, slot, len(window), *pointers)
            self._n_ctx[slot] = len(window)

    def prefill(self, tokens: Sequence[int], *, row: int, window: int, keep: Sequence[int]) -> Tensor:
        """See `Inference`."""
        _check("row", [row], self._n_rows)
        return self._pass(tokens, [row] * len(tokens), range(len(tokens)), [window] * len(tokens), keep)

    def prefill_many(
        self, prompts: Sequence[Sequence[int]], *, row: int, windows: Sequence[int], keep: Sequence[Sequence[int]]
    ) -> Tensor:
        """See `Inference`. One by one: a prompt alone keeps a CPU busy."""
        passes = zip(prompts, windows, keep, strict=True)
        logits = [self.prefill(p, row=row + i, window=window, keep=k) for i, (p, window, k) in enumerate(passes)]
        return logits[0][None] if len(logits) == 1 else torch.stack(logits)

    def step(self, tokens: Sequence[int], *, lengths: Sequence[int], windows: Sequence[int]) -> Tensor:
        """See `Inference`."""
        rows = range(len(tokens))
        _check("row", rows, self._n_rows)
        return self._pass(tokens, rows, lengths, windows, rows)

    def attention(
        self, tokens: Sequence[int], *, window: int, heads: tuple[tuple[int, int], ...], keep: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """See `Inference`."""
        n = len(tokens)
        n_head = self._dims.n_text_head
        _check("layer", [layer for layer, _ in heads], self._dims.n_text_layer)
        _check("head", [head for _, head in heads], n_head)
        _check("window", [window], self._n_windows)
        pages = [-1] * (self._dims.n_text_layer * n_head)
        for page, (layer, head) in enumerate(heads):
            pages[layer * n_head + head] = page
        seen = torch.empty(len(heads), n, self._n_ctx[window])
        logits = self._pass(tokens, [self._n_rows] * n, range(n), [window] * n, keep, watched=pages, seen=seen)
        return logits, seen

    def choose(
        self, logits: Tensor, limits: Sequence[Limits], timestamp_begin: int, count: int = 1
    ) -> tuple[list[list[int]], list[list[float]]]:
        """The `count` most probable tokens of each row of logits (rows, n_vocab) within its limits, best first, and
        their log-probabilities.

        What `Rules.constrain` and `model.search.sampling` do at temperature 0, in two readings instead of a dozen, and
        `model.search.beam` wants, in three.
        """
        if logits.shape != (len(limits), self._dims.n_vocab) or logits.dtype != torch.float32:
            raise ValueError(f"logits {tuple(logits.shape)} of {logits.dtype} are not those of {len(limits)} rows")
        if not 0 < count <= self._dims.n_vocab:
            raise ValueError(f"{count} tokens of {self._dims.n_vocab} cannot be chosen")
        bounds: list[int] = []
        for limit in limits:
            if not 0 <= limit.text_from <= timestamp_begin <= limit.time_from <= self._dims.n_vocab >= limit.time_to:
                raise ValueError(f"{limit} reach beyond the vocabulary")
            bounds += (limit.text_from, limit.time_from, limit.time_to, limit.timed)
        logits = logits.contiguous()
        tokens = torch.empty(len(limits), count, dtype=torch.int32)
        logprobs = torch.empty(len(limits), count)
        self.library.decoder_choose(
            self._handle, len(limits), logits.data_ptr(), _ints(bounds), timestamp_begin, count,
            tokens.data_ptr(), logprobs.data_ptr(),
        )  # fmt: skip
        return tokens.tolist(), logprobs.tolist()

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int], length: int, *, start: int = 0) -> None:
        """See `Inference`."""
        panels = slice(start // PANEL, -(-length // PANEL))
        for memory in (self._keys[:, :, :, panels], self._values[:, :, :, :, start:length]):
            # Row by row: torch takes twice as long for all at once, by an index.
            taken = [memory[:, row].clone() for row in sources]
            for row, values in zip(targets, taken, strict=True):
                memory[:, row] = values

    def replace_rows(self, source: int, targets: Sequence[int], length: int) -> None:
        """See `Inference`: nothing beyond a row's length is ever read here."""
        self.copy_rows([source] * len(targets), targets, length)

    def clear_row(self, row: int) -> None:
        """See `Inference`: nothing beyond a row's length is ever read here."""

    def _pass(
        self,
        tokens: Sequence[int],
        rows: Sequence[int],
        positions: Sequence[int],
        windows: Sequence[int],
        keep: Sequence[int],
        *,
        watched: list[int] | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        if not len(tokens) == len(rows) == len(positions) == len(windows):
            raise ValueError("tokens, rows, positions and windows differ in number")
        _check("token", tokens, self._dims.n_vocab)
        _check("position", positions, self._dims.n_text_ctx)
        _check("window", windows, self._n_windows)
        if any(not self._n_ctx[window] for window in windows):
            raise ValueError("a window was not filled")
        order = sorted(set(keep))
        _check("kept position", order, len(tokens))
        logits = torch.empty(len(order), self._dims.n_vocab)
        self.library.decoder_pass(
            self._handle, len(tokens), _ints(tokens), _ints(rows), _ints(positions), _ints(windows),
            len(order), _ints(order), logits.data_ptr(),
            None if watched is None else _ints(watched), None if seen is None else seen.data_ptr(),
        )  # fmt: skip
        return logits if list(keep) == order else logits[[order.index(position) for position in keep]]


def _padded(positions: int) -> int:
    return -(-positions // PANEL) * PANEL


def _zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return zeros(shape, device=torch.device("cpu"), dtype=dtype)


def _ints(values: Sequence[int]) -> "ctypes.Array[c_int32]":
    return (c_int32 * len(values))(*values)


def _check(what: str, values: Iterable[int], limit: int) -> None:
    for value in values:
        if not 0 <= value < limit:
            raise ValueError(f"{what} {value} is not below {limit}")

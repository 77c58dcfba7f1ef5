"""R33: a slot is used again: of what its former owners left, poisoned with NaN, not one bit reaches the next ones.

Every memory that a CPU can have: float32, with the audio in 8 bits, steps as they are captured on a GPU, and the
decoder in C in each variant that this CPU runs, whose audio is int8 with a scale for each position.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.decoding.batch import DecodingBatch
from model.decoding.inference import PyTorchInference
from model.decoding.opening import Start
from model.native.inference import NativeInference
from model.native.weights import NativeDecoder
from model.network.audio_memory import AudioMemory
from model.network.whisper import Whisper
from model.window import Window
from tests import decodings, tiny
from tests.graphs import Again, capture_steps, choose_on_device

OPTIONS = [*decodings.OPTIONS, replace(decodings.OPTIONS[0], word_timestamps=True)]
N = len(OPTIONS)
PROMPTS = [tuple(range(1000, 1000 + length)) for length in (0, 40, 40, 75, 110, 0, 150, 223, 9)]
MEL = torch.randn(2 * N, 80, 3000, generator=torch.Generator().manual_seed(33))
FORMER = [(8,), (7,), (6,), (3,), (4,), (5,), (1, 2), (0,)]
LATER = [(0, 5), (3,), (1,), (6,), (8,), (7,), (2,), (4,)]
"""Windows by their number, those that begin together together."""
DROPPED = 4
ROWS = 5


class ShortEncoder(nn.Module):
    """Hears a window as far as it has content, as the int8 encoder does."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, mel: Tensor, n_frames: Sequence[int] = (3000,)) -> Tensor:
        features: Tensor = self.encoder(mel)
        return features[:, : max(n_frames) // 2]


def _model(cross_kv: str = "auto") -> Whisper:
    model = tiny.transcriber().model
    model.encoder = ShortEncoder(model.encoder)
    model.cross_kv = cross_kv
    return model


def _batch(model: Whisper) -> DecodingBatch:
    return DecodingBatch(model, tiny.transcriber().tokenizer, max_windows=3, max_rows=ROWS)


def _said(
    batch: DecodingBatch, groups: list[tuple[int, ...]], first: int = 0, after: Callable[[], None] = lambda: None
) -> dict[int, Any]:
    """What the windows say, who join as soon as there is room; `after` each event. `first`: the first one's sound."""
    waiting, slots, results = list(groups), dict[int, int](), dict[int, Any]()
    while waiting or slots:
        width = sum(OPTIONS[i].width for i in waiting[0]) if waiting else 0
        if waiting and batch.free_windows >= len(waiting[0]) and batch.free_rows >= width:
            group = waiting.pop(0)
            frames = 500 + 200 * group[0] if (first + group[0]) % 2 else 3000
            begun = batch.encode(MEL[[first + i for i in group]], [frames] * len(group))
            after()
            windows = [Window(0, 0, frames, OPTIONS[i].language, PROMPTS[i]) for i in group]
            batch.start_all([Start(*start) for start in zip(begun, windows, (OPTIONS[i] for i in group), strict=True)])
            slots |= dict(zip(begun, group, strict=True))
        for slot, result in batch.step():
            results[slots.pop(slot)] = result, result.logprobs
        for slot in [slot for slot, i in slots.items() if i == DROPPED]:
            batch.drop(slot)
            del slots[slot]
        after()
    assert (batch.free_windows, batch.free_rows) == (3, ROWS)
    return results


def _poison(batch: DecodingBatch) -> None:
    """No number in any slot without an owner; what can be none gets the largest, and a scale that is none."""
    inference, rows, windows = batch._inference, slice(batch.active_rows, None), batch._free
    if isinstance(inference, NativeInference):
        inference._keys[:, rows] = torch.nan
        inference._values[:, rows] = torch.nan
        inference._cross_keys[:, windows] = -128
        inference._cross_values[:, windows] = -128
        inference._scales[:, :, windows] = torch.nan
        return
    assert isinstance(inference, PyTorchInference)
    cache = inference._cache
    cache.keys[:, rows] = torch.nan
    cache.values[:, rows] = torch.nan
    for memory in (cache.cross_keys, cache.cross_values):
        _poison_audio(memory, windows)


def _poison_audio(memory: AudioMemory, windows: list[int]) -> None:
    if memory.data.dtype.itemsize > 1:
        memory.data[:, windows] = torch.nan
    else:
        memory.data.view(torch.int8)[:, windows] = 127  # in e4m3 that is NaN
    if memory.scales is not None:
        memory.scales[:, windows] = torch.nan


@torch.inference_mode()
def _assert_nothing_is_left(model: Whisper) -> None:
    clean = _said(_batch(model), LATER)
    assert len({result.tokens for result, _ in clean.values()}) == N - 1  # none could pass for another
    for i, (result, _) in clean.items():
        assert _said(_batch(model), [(i,)])[i][0].tokens == result.tokens
    used = _batch(model)
    _said(used, FORMER, first=N)
    _poison(used)
    assert _said(used, LATER, after=lambda: _poison(used)) == clean


@pytest.mark.parametrize("cross_kv", ["auto", "int8", "fp8"])
def test_r33_nothing_of_a_slots_former_owner_is_heard(cross_kv: str) -> None:
    _assert_nothing_is_left(_model(cross_kv))


@pytest.mark.parametrize("cross_kv", ["auto", "int8", "fp8"])
def test_r33_nor_in_captured_steps(cross_kv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    capture_steps(monkeypatch, Again())
    choose_on_device(monkeypatch, ahead=True)
    _assert_nothing_is_left(_model(cross_kv))


def test_r33_nor_in_the_decoder_in_c(library: ctypes.CDLL) -> None:
    model = _model()
    model.decoder = NativeDecoder(model.decoder, model.dims, library)
    _assert_nothing_is_left(model)

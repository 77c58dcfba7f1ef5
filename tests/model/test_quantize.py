"""compute_type=int8, with the decoder in C and without."""

import ctypes
from pathlib import Path

import pytest
import torch

import model.quantize
from model import load
from model.inference import PyTorchInference, make_inference
from model.native.inference import NativeInference
from model.native.library import load_library
from model.quantize import decoder_name, quantise
from model.transcriber import Transcriber
from model.whisper import Whisper
from tests import tiny

PROMPT = (50258, 50259, 50359, 50363)


def _logits(whisper: Whisper) -> torch.Tensor:
    with torch.inference_mode():
        mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0)) * 0.3
        inference = make_inference(whisper, n_windows=1, n_rows=1)
        inference.fill_windows(whisper.encoder(mel), [0])
        return inference.prefill(PROMPT, row=0, window=0, keep=(0, 3))


def test_without_a_compiler_int8_runs_on_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.quantize, "load_library", lambda: None)
    whisper = tiny.transcriber().model
    wanted = _logits(whisper)
    quantise(whisper)
    assert whisper.compute_type == "int8"
    assert isinstance(make_inference(whisper, n_windows=1, n_rows=1), PyTorchInference)
    assert decoder_name(whisper) == "torch"
    got = _logits(whisper)
    assert 0 < (got - wanted).norm() < 0.05 * wanted.norm()


def test_the_decoder_runs_in_c_where_it_was_compiled(native_library: ctypes.CDLL) -> None:
    whisper = tiny.transcriber().model
    wanted = _logits(whisper)
    quantise(whisper)
    assert isinstance(make_inference(whisper, n_windows=1, n_rows=1), NativeInference)
    assert decoder_name(whisper) in ("native-avx512", "native-avx2", "native-generic")
    assert 0 < (_logits(whisper) - wanted).norm() < 0.05 * wanted.norm()
    with pytest.raises(TypeError, match="int8 already"):
        quantise(whisper)


@pytest.fixture
def native_library(monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    library = load_library()
    if library is None:
        pytest.skip("the decoder was not compiled (deploy/native.sh)")
    return library


@pytest.mark.weights
def test_int8_hears_what_float32_hears(base: Transcriber, clips: Path, native_library: ctypes.CDLL) -> None:
    int8 = load("base", "cpu", "int8")
    ours, wanted = (one.transcribe(clips / "en-jfk.flac", language="en", word_timestamps=True) for one in (int8, base))
    assert ours.text == wanted.text
    words, others = ([word for segment in one.segments for word in segment.words or ()] for one in (ours, wanted))
    assert len(words) > 20
    for word, other in zip(words, others, strict=True):
        assert abs(word.start - other.start) <= 0.1

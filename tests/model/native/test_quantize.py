"""compute_type=int8, with the decoder in C and without."""

import ctypes
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import model.native.quantize
from model import load
from model.decoding.inference import PyTorchInference, make_inference
from model.native.attention import NativeAttention
from model.native.inference import NativeInference
from model.native.library import VARIANTS, OutdatedLibraryError, cpu_capability, load_library
from model.native.quantize import decoder_name, give_attention, quantise
from model.network.padding import shorten
from model.network.whisper import Whisper
from model.transcriber import Transcriber
from tests import tiny

PROMPT = (50258, 50259, 50359, 50363)


def _logits(whisper: Whisper) -> torch.Tensor:
    with torch.inference_mode():
        mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0)) * 0.3
        inference = make_inference(whisper, n_windows=1, n_rows=1)
        inference.fill_windows(whisper.encoder(mel), [0])
        return inference.prefill(PROMPT, row=0, window=0, keep=(0, 3))


def test_without_a_compiler_int8_runs_on_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.native.quantize, "load_library", lambda: None)
    whisper = tiny.transcriber().model
    wanted = _logits(whisper)
    quantise(whisper)
    assert whisper.compute_type == "int8"
    assert isinstance(make_inference(whisper, n_windows=1, n_rows=1), PyTorchInference)
    assert decoder_name(whisper) == "torch"
    got = _logits(whisper)
    assert 0 < (got - wanted).norm() < 0.05 * wanted.norm()


def test_where_the_compiled_library_is_an_old_one_int8_runs_on_torch_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse() -> None:
        raise OutdatedLibraryError("compiled from other sources")

    monkeypatch.setattr(model.native.quantize, "load_library", refuse)
    with pytest.warns(RuntimeWarning, match="compiled from other sources"):
        transcriber = load(str(tiny.write_checkpoint(tmp_path / "tiny.pt")), "cpu", "int8", "full")
    assert transcriber.left_out == {"native": "compiled from other sources"}
    assert decoder_name(transcriber.model) == "torch"


def test_where_the_compiled_library_cannot_be_loaded_int8_runs_on_torch_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variant in VARIANTS.get(cpu_capability(), ("generic",)):
        (tmp_path / f"decoder-{variant}.so").write_bytes(b"x")
    monkeypatch.setattr(model.native.quantize, "load_library", lambda: load_library(tmp_path))
    whisper = tiny.transcriber().model
    assert "file too short" in (quantise(whisper) or "")
    assert decoder_name(whisper) == "torch"


def test_the_decoder_runs_in_c_where_it_was_compiled(native_library: ctypes.CDLL) -> None:
    whisper = tiny.transcriber().model
    wanted = _logits(whisper)
    quantise(whisper)
    assert isinstance(make_inference(whisper, n_windows=1, n_rows=1), NativeInference)
    assert decoder_name(whisper) in {f"native-{variant}" for variant in VARIANTS.get(cpu_capability(), ("generic",))}
    assert 0 < (_logits(whisper) - wanted).norm() < 0.05 * wanted.norm()
    with pytest.raises(TypeError, match="int8 already"):
        quantise(whisper)


@pytest.mark.parametrize("capability", ["AVX2", "AVX512", "DEFAULT"])
@torch.inference_mode()
def test_the_encoder_attends_in_c_where_that_is_faster(
    native_library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, capability: str
) -> None:
    whisper, small_heads = _with_heads_of_64(), tiny.transcriber().model
    mel = torch.randn(2, 80, 3000, generator=torch.Generator().manual_seed(0)) * 0.3
    wanted = whisper.encoder(mel)
    monkeypatch.setattr(model.native.quantize, "can_multiply_int8", lambda: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(model.native.quantize, "load_library", lambda: native_library)
    quantise(whisper)
    quantise(small_heads)
    in_c = [isinstance(block.attention, NativeAttention) for block in whisper.encoder.blocks]
    assert in_c == [capability != "DEFAULT"] * 2
    assert not any(isinstance(block.attention, NativeAttention) for block in small_heads.encoder.blocks)
    got = whisper.encoder(mel)
    if all(in_c):
        assert 0 < (got - wanted).norm() < 2e-3 * wanted.norm()
        assert torch.equal(got, torch.cat([whisper.encoder(window[None]) for window in mel]))
    else:
        assert torch.equal(got, wanted)


@torch.inference_mode()
def test_a_clip_without_its_padding_attends_in_c(native_library: ctypes.CDLL) -> None:
    mel = torch.zeros(1, 80, 3000)
    mel[:, :, :400] = torch.randn(80, 400, generator=torch.Generator().manual_seed(0)) * 0.3
    whisper = _with_heads_of_64()
    shorten(whisper)
    wanted = whisper.encode(mel, [400])
    give_attention(whisper, native_library)
    got = whisper.encode(mel, [400])
    assert 0 < (got - wanted).norm() < 2e-3 * wanted.norm()


def _with_heads_of_64() -> Whisper:
    dims = replace(
        tiny.DIMS, n_audio_state=128, n_audio_head=2, n_text_state=128, n_text_head=2, n_vocab=1000, n_text_layer=1
    )
    return Whisper.from_tensors(dims, tiny.tensors(dims))


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

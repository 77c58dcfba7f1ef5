"""The padding behind a clip, known beforehand."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model import load
from model.audio import decode_audio
from model.decoding.inference import make_inference
from model.dims import HOP_LENGTH
from model.mel import MelSpan
from model.network.padding import learn, positions, shorten, speech_windows
from model.network.whisper import AudioEncoder, Whisper
from model.transcriber import Transcriber
from tests import tiny

AUDIO = Path(__file__).parents[2] / "audio"
CLIPS = ("de-leichenhalle.wav", "de-mekka.ogg", "es-arenas.flac", "ja-kyanpu.mp3", "zh-guangzhou.flac")


def _tiny(n_layer: int) -> Whisper:
    dims = replace(tiny.DIMS, n_audio_layer=n_layer)
    return Whisper.from_tensors(dims, tiny.tensors(dims))


def _mel(n_frames: int, seed: int = 0) -> Tensor:
    mel = torch.zeros(1, 80, 3000)
    mel[:, :, :n_frames] = torch.randn(80, n_frames, generator=torch.Generator().manual_seed(seed)) * 0.3
    return mel


def _error(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("n_frames", [1, 250, 333, 1000, 2800])
@torch.inference_mode()
def test_one_block_hears_the_clip_exactly(n_frames: int) -> None:
    # The padding's keys and values of the first block are the same in every window: only their 16 bits are not exact.
    whisper = _tiny(n_layer=1)
    wanted = whisper.encoder(_mel(n_frames))
    shorten(whisper)
    got = whisper.encode(_mel(n_frames), [n_frames])
    assert got.shape == wanted.shape
    heard = positions(n_frames) + 50
    torch.testing.assert_close(got[:, :heard], wanted[:, :heard], atol=2e-3, rtol=2e-3)


@torch.inference_mode()
def test_a_window_without_room_for_a_shortcut_is_computed_whole() -> None:
    whisper = _tiny(n_layer=2)
    wanted = [whisper.encoder(_mel(n)) for n in (2860, 3000)]
    shorten(whisper)
    for features, n_frames in zip(wanted, (2860, 3000), strict=True):
        assert torch.equal(whisper.encode(_mel(n_frames), [n_frames]), features)
    assert torch.equal(whisper.encode(_mel(3000)), wanted[1])


@torch.inference_mode()
def test_neighbours_do_not_change_a_window() -> None:
    whisper = _tiny(n_layer=2)
    shorten(whisper)
    lengths = [400, 3000, 1200]
    together = whisper.encode(torch.cat([_mel(n, seed=n) for n in lengths]), lengths)
    for features, n_frames in zip(together, lengths, strict=True):
        assert torch.equal(whisper.encode(_mel(n_frames, seed=n_frames), [n_frames])[0], features)


def test_it_learns_from_padding_and_only_once() -> None:
    whisper = _tiny(n_layer=1)
    assert isinstance(whisper.encoder, AudioEncoder)
    with pytest.raises(ValueError, match="padding"):
        learn(whisper.encoder, [(_mel(3000), 3000)])
    shorten(whisper)
    assert whisper.encoder_context == "short"
    with pytest.raises(TypeError, match="already"):
        shorten(whisper)


def test_the_clips_are_speech_of_several_levels_and_lengths_and_then_padding() -> None:
    windows = list(speech_windows(80))
    assert [n_frames for _, n_frames in windows] == [250] * 5 + [1000] * 5
    for mel, n_frames in windows:
        assert mel[:, :, :n_frames].std() > 0.1
        assert not mel[:, :, n_frames:].any()
    loudest = [float(mel.max()) for mel, _ in windows[:5]]
    assert max(loudest) - min(loudest) > 0.8  # of 2.0, which are 80 dB


@pytest.mark.weights
@pytest.mark.parametrize("file", ["de-mekka.ogg", "zh-guangzhou.flac"])
def test_real_features_are_nearly_those_of_the_whole_window(file: str, base: Transcriber, short: Transcriber) -> None:
    samples = torch.from_numpy(decode_audio(AUDIO / file).samples)
    n_frames = len(samples) // HOP_LENGTH
    mel = base.log_mel.windows([MelSpan(samples, 0, n_frames, base.log_mel.maximum(samples))])
    heard = positions(n_frames)
    with torch.inference_mode():
        wanted, got = base.model.encode(mel), short.model.encode(mel, [n_frames])
        deaf = base.model.encoder.convolve(mel[:, :, : 2 * heard]) + base.model.encoder.positional_embedding[:heard]
        for block in base.model.encoder.blocks:
            deaf = block(deaf)
        deaf = base.model.encoder.ln_post(deaf)
    error = _error(got[:, :heard], wanted[:, :heard])
    assert error < 0.1
    # Far better than a window that ends with the clip.
    assert error < 0.25 * _error(deaf, wanted[:, :heard])
    assert _error(got[:, heard:], wanted[:, heard:]) < 0.35


@pytest.mark.weights
def test_the_decoder_hears_what_it_hears_in_the_whole_window(base: Transcriber, short: Transcriber) -> None:
    # Means that all probes move alike, in place of an estimate for each position, make it more than twice as much.
    divergences = [_divergence(AUDIO / file, base, short) for file in CLIPS]
    assert sum(divergences) / len(divergences) < 3e-3


@torch.inference_mode()
def _divergence(clip: Path, base: Transcriber, short: Transcriber) -> float:
    """Nats a token (Kullback-Leibler) between what the decoder expects in a whole window and in a short one."""
    samples = torch.from_numpy(decode_audio(clip).samples)
    n_frames = len(samples) // HOP_LENGTH
    mel = base.log_mel.windows([MelSpan(samples, 0, n_frames, base.log_mel.maximum(samples))])
    said = base.transcribe(clip, language=clip.name[:2], temperature=0.0)
    start = base.tokenizer.sot_sequence(said.language, "transcribe")
    tokens = [*start, *(token for segment in said.segments for token in segment.tokens)]
    inference = make_inference(base.model, n_windows=1, n_rows=1)
    expected = []
    for features in (base.model.encode(mel), short.model.encode(mel, [n_frames])):
        inference.fill_windows(features, [0])
        logits = inference.prefill(tokens, row=0, window=0, keep=range(len(start), len(tokens)))
        expected.append(logits.log_softmax(-1))
    whole, got = expected
    return float((whole.exp() * (whole - got)).sum(-1).mean())


@pytest.mark.weights
def test_a_short_context_writes_the_same(base: Transcriber, short: Transcriber) -> None:
    assert (base.model.encoder_context, short.model.encoder_context) == ("full", "short")
    clip = AUDIO / "en-jfk.flac"
    assert short.transcribe(clip).text == base.transcribe(clip).text


@pytest.fixture(scope="module")
def base() -> Transcriber:
    return load("base", device="cpu", compute_type="float32")


@pytest.fixture(scope="module")
def short() -> Transcriber:
    return load("base", device="cpu", compute_type="float32", encoder_context="short")

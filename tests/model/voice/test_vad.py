"""The detector's network, run over all chunks at once, held against the publisher's program chunk by chunk."""

import importlib.metadata

import numpy as np
import pytest
import torch

from model.audio import decode_audio
from model.errors import WeightsError
from model.voice import vad
from model.voice.speech import speech
from model.voice.vad import CHUNK, SOURCE, SpeechDetector
from tests import tiny


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return SpeechDetector()


def _samples(path) -> torch.Tensor:
    samples = decode_audio(path).samples
    return torch.from_numpy(samples)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_probabilities_equal_the_publishers_program(detector, clips) -> None:
    ((_, file),) = SOURCE.parts
    path = importlib.metadata.distribution("silero-vad").locate_file(file)
    theirs = torch.jit.load(str(path))
    samples = _samples(clips / "en-printing.ogg").float()[: 6 * 16_000 + 100]
    chunks = torch.nn.functional.pad(samples, (0, -len(samples) % CHUNK)).split(CHUNK)
    with torch.no_grad():
        wanted = [theirs(chunk, 16_000).item() for chunk in chunks]
    assert detector.scan(samples).finish() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("n_samples", [1, 63, 512, 513, 250 * CHUNK, 250 * CHUNK + 1, 1250 * CHUNK - 5])
def test_there_is_one_probability_for_every_chunk(detector, n_samples) -> None:
    assert len(detector.scan(tiny.speech(n_samples / 16_000)).finish()) == -(-n_samples // CHUNK)


def test_blocks_give_what_one_pass_gives(detector, monkeypatch) -> None:
    samples = tiny.speech(40.0)
    scan = detector.scan(samples)
    scan.advance()
    assert not scan.done
    assert len(scan.probabilities) == 250
    in_blocks = scan.finish()
    monkeypatch.setattr(vad, "_BLOCK_CHUNKS", 10_000)
    assert detector.scan(samples).finish() == pytest.approx(in_blocks, abs=1e-5)


def test_integers_are_heard_as_their_fractions(detector, clips) -> None:
    samples = _samples(clips / "en-jfk.flac")
    assert samples.dtype == torch.int16
    heard = detector.scan(samples).finish()
    assert heard == pytest.approx(detector.scan(samples.float() / 32768.0).finish(), abs=1e-6)
    ((start, end),) = speech(heard, len(samples) // 160)
    assert start < 50
    assert end > 1000


def test_a_recording_that_is_very_low_is_heard_like_a_louder_one(detector, clips) -> None:
    samples = _samples(clips / "en-jfk.flac").float() / 32768.0
    level = samples.abs().max()
    low, raised = detector.scan(samples * 0.003).finish(), detector.scan(samples * 0.05 / level).finish()
    assert low == pytest.approx(raised, abs=1e-4)
    ((start, end),) = speech(low, len(samples) // 160)
    assert (start < 50, end > 1000) == (True, True)
    whole_numbers = (samples * 0.003 * 32768.0).round().to(torch.int16)
    assert sum(p > 0.5 for p in detector.scan(whole_numbers).finish()) > 0.8 * sum(p > 0.5 for p in raised)


def test_silence_and_noise_are_no_speech(detector) -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.02, 160_000).astype(np.float32)
    for samples in (torch.zeros(160_000), torch.from_numpy(noise), torch.from_numpy(noise) * 0.005):
        assert speech(detector.scan(samples).finish(), 1000) == []


def test_other_weights_are_refused(tmp_path, monkeypatch) -> None:
    file = tmp_path / "silero_vad.jit"
    file.write_bytes(b"PK something else")
    monkeypatch.setattr(vad, "installed", lambda source: vad.Found((file,), source.sha256))
    with pytest.raises(WeightsError, match=r"silero_vad\.jit: has SHA-256"):
        SpeechDetector()
    monkeypatch.setattr(vad, "installed", lambda source: None)
    with pytest.raises(WeightsError, match="install silero-vad=="):
        SpeechDetector()

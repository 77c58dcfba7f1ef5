"""The real weights of the weights packages: their dimensions, and that the reference understands speech with them."""

import socket
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from model.dims import DIMENSIONS
from model.weights import Weights, load_weights
from model.weights.registry import SOURCES
from model.weights.sources import installed

AUDIO = Path(__file__).parents[2] / "audio" / "en-jfk.flac"


def load_offline(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    if not any(installed(package) for package in SOURCES[name].packages):
        pytest.skip(f"the weights package of {name} is not installed")
    monkeypatch.setattr(socket, "socket", lambda *args, **options: pytest.fail("a network was touched"))
    return load_weights(name, download_dir=folder)


@pytest.mark.weights
@pytest.mark.parametrize("name", ["base", "tiny.en"])
def test_a_weights_package_is_the_published_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = load_offline(name, tmp_path, monkeypatch)
    assert weights.dims == DIMENSIONS[name]
    assert (weights.name, weights.sha256) == (name, SOURCES[name].packages[0].sha256)
    assert {tensor.dtype for tensor in weights.tensors.values()} == {torch.float16}
    assert not list(tmp_path.iterdir())
    packages = {file.split("/")[0] for package in SOURCES[name].packages for _, file in package.parts}
    assert not packages & sys.modules.keys()


@pytest.mark.weights
@pytest.mark.oracle
@pytest.mark.parametrize("name", ["base", "tiny.en"])
def test_the_reference_understands_speech_with_them(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were two projections exchanged, or the layers out of order, no words would come out."""
    whisper = pytest.importorskip("whisper")
    from tests.oracle.reference import reference_model

    weights = load_offline(name, tmp_path, monkeypatch)
    samples, rate = soundfile.read(AUDIO, dtype="float32")
    assert rate == 16_000
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(samples))
    result = whisper.decode(reference_model(weights), mel, whisper.DecodingOptions(language="en", fp16=False))
    assert "ask not what your country can do for you" in result.text

"""The peer's process with a library in place of faster-whisper that says what it was asked."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.vad_peer import VadPeer, find

LIBRARY = """
from types import SimpleNamespace
print("noise on standard output")
class WhisperModel:
    def __init__(self, path, **settings):
        if path == "absent":
            raise ValueError("no such weights")
        self.path = path
    def transcribe(self, samples, language, vad_filter):
        texts = [f" {samples.dtype} {len(samples)}", f" {vad_filter} {self.path}"]
        return (SimpleNamespace(text=text) for text in texts), SimpleNamespace(language=language or "xx")
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faster_whisper.py").write_text(LIBRARY)
    for name, version in (("faster_whisper", "9.1"), ("ctranslate2", "9.2")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.setenv("PYTHONPATH", os.fspath(tmp_path))


@pytest.mark.usefixtures("library")
def test_it_gets_the_very_waveform_and_answers_with_text_and_language() -> None:
    with VadPeer(Path(sys.executable), Path("weights"), threads=1) as peer:
        assert peer.fingerprint == "9.1, CTranslate2 9.2/int8/vad"
        named = peer.transcribe(np.zeros(32_000, np.float32), language="de", task="transcribe")
        found = peer.transcribe(np.zeros(16_000, np.float32), language=None, task="transcribe")
    assert (named.text, named.language, named.duration) == (" float32 32000 True weights", "de", 2.0)
    assert (found.text, found.language, found.duration) == (" float32 16000 True weights", "xx", 1.0)


@pytest.mark.usefixtures("library")
def test_a_peer_that_does_not_start_says_so() -> None:
    with pytest.raises(RuntimeError, match="ended"):
        VadPeer(Path(sys.executable), Path("absent"), threads=1)


def test_a_peer_that_was_not_built_takes_no_part(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    python, weights = tmp_path / "faster-whisper" / "bin" / "python", tmp_path / "weights" / "ctranslate2"
    python.parent.mkdir(parents=True)
    python.touch()
    assert find(tmp_path) is None
    weights.mkdir(parents=True)
    assert find(tmp_path) == (python, weights)

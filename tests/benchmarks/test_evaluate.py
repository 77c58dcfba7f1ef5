"""The whole evaluation on a few shipped clips with the real weights, beside the reference."""

import json
from pathlib import Path

import pytest

from benchmarks.corpus import Clip
from benchmarks.evaluate import main, request

AUDIO = Path(__file__).parents[1] / "audio"


def clip(language: str | None, kind: str = "read", translation: str | None = None) -> Clip:
    return Clip("a.wav", Path("a.wav"), language, "", translation, kind, 1.0)


def test_every_pass_takes_its_clips() -> None:
    german = clip("de", translation="Hello.")
    assert request(german, "given") == ("de", "transcribe")
    assert request(german, "auto") == (None, "transcribe")
    assert request(german, "translate") == ("de", "translate")
    assert request(clip("de"), "translate") is None
    assert request(clip("en", translation="Hello."), "translate") is None
    assert request(clip(None, "nospeech"), "given") is None
    assert request(clip(None, "nospeech"), "auto") == (None, "transcribe")


def test_a_folder_without_clips_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "manifest" in capsys.readouterr().err


@pytest.mark.weights
@pytest.mark.oracle
def test_shipped_clips_come_out_as_the_reference_has_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "evaluation.json"
    passes = ["--passes", "given", "--language", "nl", "zh", "de", "--limit", "3"]
    assert main([str(AUDIO), "--against", *passes, "--results", str(tmp_path), "--output", str(output)]) == 0
    report = json.loads(output.read_text(encoding="utf-8"))
    assert report["parity"]["given"]["clips"] == 3
    assert report["parity"]["given"]["equal"] == 3
    assert report["parity"]["given"]["same_times"] == 3
    assert report["undecodable"] == {}
    assert "Parity with the reference" in capsys.readouterr().out
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 6

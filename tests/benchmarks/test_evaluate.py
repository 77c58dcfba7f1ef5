"""The evaluation: its parts without a model, and all of it on shipped clips with the real weights and the reference."""

import json
from pathlib import Path

import pytest

from benchmarks.accuracy.corpus import read_corpus
from benchmarks.accuracy.items import PASSES
from benchmarks.evaluate import items, main, parser

AUDIO = Path(__file__).parents[1] / "audio"


def test_a_folder_without_clips_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "manifest" in capsys.readouterr().err


def test_differences_are_explained_against_somebody(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(AUDIO), "--explain"])
    assert "--against" in capsys.readouterr().err


def test_a_sample_takes_part_of_every_pass() -> None:
    options, clips = parser().parse_args([str(AUDIO), "--limit", "2"]), read_corpus(AUDIO)
    counts = {name: sum(1 for _ in items(options, name, clips, {})) for name in PASSES}
    assert counts == {"given": 2, "auto": 2, "translate": 2, "longform": 1, "nospeech": 4, "noise": 9}


@pytest.mark.weights
@pytest.mark.oracle
def test_shipped_clips_come_out_as_the_reference_has_them(tmp_path: Path) -> None:
    results, docs = tmp_path / "results", tmp_path / "docs"
    asked = ["--passes", "given", "--language", "nl", "zh", "de", "--limit", "3", "--compute-type", "float32"]
    command = [str(AUDIO), "--against", "--no-guards", *asked, "--results", str(results), "--docs", str(docs)]
    for _ in range(2):  # the second run asks nobody
        assert main(command) == 0
        report = json.loads((results / "evaluation.json").read_text(encoding="utf-8"))
        assert report["parity"]["given"] == {"clips": 3, "equal": 3, "share": 100.0, "same_times": 3, "same_text": 3}
        assert report["refused"] == {}
        assert len((results / "answers.jsonl").read_text().splitlines()) == 6
    assert "| given | 3 | 3 | 3 | 3 |" in (results / "accuracy.md").read_text(encoding="utf-8")
    assert not docs.exists(), "a sample takes the place of the evidence"

from pathlib import Path
from typing import Any

import pytest

from benchmarks.corpus import Clip
from benchmarks.report import markdown
from benchmarks.summary import Outcome, summarise
from model.segments import Transcription


def clip(file: str, language: str | None, text: str, kind: str = "read", translation: str | None = None) -> Clip:
    return Clip(file, Path(file), language, text, translation, kind, 5.0)


def answer(text: str, language: str = "en") -> Transcription:
    return Transcription("transcribe", language, None, 5.0, text, ())


CAT = clip("cat.wav", "en", "the cat sat")
DOG = clip("dog.wav", "en", "the dog ran off", kind="spontaneous")
KATZE = clip("katze.wav", "de", "die Katze saß", translation="the cat sat")
CHINESE = clip("zh.wav", "zh", "广州市")
HUM = clip("hum.wav", None, "", kind="nospeech")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    outcomes = [
        Outcome("given", CAT, {"ours": answer("the hat sat"), "reference": answer("the cat sat")}, False, False),
        Outcome("given", DOG, {"ours": answer("the dog ran off"), "reference": answer("the dog ran off")}, True, True),
        Outcome("given", CHINESE, {"ours": answer("廣州"), "reference": answer("廣州")}, True, False),
        Outcome("auto", KATZE, {"ours": answer("x", "nl"), "reference": answer("x", "de")}, False, False),
        Outcome("auto", CAT, {"ours": answer("x", "en"), "reference": answer("x", "en")}, True, True),
        Outcome("auto", HUM, {"ours": answer(" Thank you."), "reference": answer("")}, False, False),
        Outcome("translate", KATZE, {"ours": answer("the cat sat"), "reference": answer("a cat")}, False, False),
    ]
    difference = {
        "file": "cat.wav",
        "reason": "near tie",
        "divergence": {"window": 0, "temperature": 0.0, "position": 2, "ours": 1, "reference": 2, "margin": None},
        "gap": 0.0001234,
        "detail": "reference ' cat', ours ' h|at'",
    }
    return {
        "corpus": "tiny",
        "model": "base",
        "device": "cpu",
        "compute_type": "float32",
        **summarise(outcomes),
        "differences": {"given": [difference], "auto": [], "translate": []},
        "undecodable": {"x.raw": "no header"},
    }


def rates(report: dict[str, Any], grouping: str, group: str) -> dict[str, float]:
    (row,) = [row for row in report["error_rates"] if (row["grouping"], row["group"]) == (grouping, group)]
    return {name: round(cell["rate"], 3) for name, cell in row["systems"].items()}


def test_error_rates_by_language_and_kind(report: dict[str, Any]) -> None:
    assert rates(report, "all", "WER") == {"ours": round(100 / 7, 3), "reference": 0.0}
    assert rates(report, "all", "CER") == {"ours": round(100 / 3, 3), "reference": round(100 / 3, 3)}
    assert rates(report, "language", "en") == {"ours": round(100 / 7, 3), "reference": 0.0}
    assert rates(report, "kind", "spontaneous, WER") == {"ours": 0.0, "reference": 0.0}
    assert rates(report, "language and kind", "en read") == {"ours": round(100 / 3, 3), "reference": 0.0}


def test_languages_count_what_was_confused(report: dict[str, Any]) -> None:
    assert report["languages"]["ours"] == {
        "clips": 2,
        "right": 1,
        "accuracy": 50.0,
        "confusions": [{"true": "de", "found": "nl", "clips": 1}],
    }
    assert report["languages"]["reference"]["right"] == 2


def test_words_on_silence_are_counted(report: dict[str, Any]) -> None:
    assert report["nospeech"]["ours"] == {"clips": 1, "clips_with_words": 1, "words": 2, "by_clip": {"hum.wav": 2}}
    assert report["nospeech"]["reference"]["words"] == 0


def test_translation_is_scored_by_system(report: dict[str, Any]) -> None:
    assert report["translation"]["ours"]["chrf"] > report["translation"]["reference"]["chrf"]


def test_parity_counts_times_among_equal_tokens(report: dict[str, Any]) -> None:
    assert report["parity"]["given"] == {
        "clips": 3,
        "equal": 2,
        "share": pytest.approx(200 / 3),
        "same_times": 1,
        "same_times_share": 50.0,
    }


def test_markdown_shows_every_table(report: dict[str, Any]) -> None:
    text = markdown(report)
    assert "| all | WER | WER | 2 | 14.29 % (1/7) | 0.00 % (0/7) |" in text
    assert "| ours | 1/2 | 50.00 % | de as nl (1) |" in text
    assert "| given | 2/3 (66.67 %) | 1/2 | near tie 1 |" in text
    assert "| cat.wav | near tie | 0 | 0.0 | 2 | 0.000123 | reference ' cat', ours ' h\\|at' |" in text
    assert "| x.raw | no header |" in text


def test_one_system_alone_has_no_parity() -> None:
    figures = summarise([Outcome("given", CAT, {"ours": answer("the cat sat")})])
    assert figures["parity"] == {}
    assert figures["systems"] == ["ours"]
    report = {
        **figures,
        "corpus": "c",
        "model": "m",
        "device": "d",
        "compute_type": "t",
        "differences": {},
        "undecodable": {},
    }
    assert "Parity" not in markdown(report)

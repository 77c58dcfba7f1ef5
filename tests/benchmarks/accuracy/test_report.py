"""Tables, the document and its pictures, from figures that `summarise` makes of answers written by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import tables
from benchmarks.accuracy.items import Item
from benchmarks.accuracy.noise import CLEAN, NOISES, RATIOS, group_name
from benchmarks.accuracy.plot import language_figure, noise_figure
from benchmarks.accuracy.report import Circumstances, document, write
from benchmarks.accuracy.summary import Outcome, summarise
from model.segments import Skipped, Transcription

PNG = b"\x89PNG\r\n\x1a\n"


def outcome(item: Item, ours: str, reference: str, *, found: str = "en", peer: str | None = None) -> Outcome:
    texts = {"ours": ours, "reference": reference} | ({} if peer is None else {"faster-whisper": peer})
    answers = {name: Transcription(item.task, found, None, 30.0, text, ()) for name, text in texts.items()}
    if not ours:
        answers["ours"] = replace(answers["ours"], warnings=(Skipped("no_voice", 0.5, 5.0),))
    return Outcome(item, answers)


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    outcomes = [
        outcome(Item("given", "a", "read", "en", True, "the cat sat", 30.0), "the cat", "the cat sat"),
        outcome(Item("given", "b", "read", "zh", True, "广州市", 30.0), "广州", "广州市"),
        outcome(Item("auto", "c", "read", "de", False, "die Katze", 30.0), "die Katze", "die Katze", found="nl"),
        outcome(Item("translate", "c", "read", "de", True, "the cat", 30.0, "translate"), "the cat", "the cat"),
        outcome(Item("longform", "d", "pauses", "en", True, "one two", 90.0), "one two three", "one two"),
        outcome(Item("nospeech", "hum", "synthetic", None, False, "", 30.0), "", "Thank you.", peer=""),
    ]
    for group in (CLEAN, *(group_name(noise, ratio) for noise in NOISES for ratio in RATIOS)):
        item = Item("noise", "e", group, "en", True, "one two three four", 30.0)
        outcomes.append(outcome(item, "one two three", "one two three four five", peer="one two three four"))
    difference = {
        "pass": "given",
        "file": "a",
        "reason": "near tie",
        "divergence": {"window": 0, "temperature": 0.0, "position": 2, "ours": 1, "reference": 2, "margin": None},
        "gap": 0.0001234,
        "detail": "reference ' cat', ours ' h|at'",
    }
    return summarise(outcomes) | {"refused": {"x.raw": "no header"}, "differences": [difference]}


def circumstances(**changes: Any) -> Circumstances:
    known: dict[str, Any] = {
        "corpus": "tiny",
        "model": "base",
        "device": "cpu",
        "compute_type": "int8",
        "guards": True,
        "sample": False,
        "fingerprints": {"ours": "abc/int8", "reference": "1/float32", "faster-whisper": "2/int8"},
    }
    return Circumstances.now(**(known | changes))


def test_the_report_holds_every_table(figures: dict[str, Any]) -> None:
    text = document(circumstances(), figures)
    for line in (
        "| all | WER | 1 | 33.33 % (1/3) | 0.00 % (0/3) |",
        "| all | CER | 1 | 33.33 % (1/3) | 0.00 % (0/3) |",
        "| read | WER | 1 | 33.33 % (1/3) | 0.00 % (0/3) |",
        "| zh | CER | 1 | 33.33 % (1/3) | 0.00 % (0/3) |",
        "| pauses | 1 | 2 | 50.0 %, 0, 1 | 0.0 %, 0, 0 |",
        "| openai-whisper | 0 of 1 | 0.0 % |",
        "| de | 1 | 0 | 1 |",
        "| this project | 1 | 0.00 | 100.00 |",
        "| sounds without speech | 0.5 | openai-whisper | 2 | 4.00 |  |",
        "| speech in babble | 2.0 | this project | 0 | 0.00 | 4 of 16 |",
        "| speech in white noise | 2.0 | openai-whisper | 4 | 2.00 | 0 of 16 |",
        "| together | 4.5 | openai-whisper | 10 | 2.22 | 0 of 32 |",
        "| synthetic | openai-whisper | 1 | 1 | 2 |",
        "| white 5 dB | 1 | 4 | 25.0 %, 1, 0 | 25.0 %, 0, 1 | 0.0 %, 0, 0 |",
        "| given | 2 | 0 | 2 | 2 |",
        "| given | a | near tie | 0 | 0.0 | 2 | 0.000123 | reference ' cat', ours ' h\\|at' |",
        "| x.raw | no header |",
        "| source | WER | 1 | 33.33 % (1/3) | 0.00 % (0/3) |",
        "| nospeech | no_voice | 1 | 4.5 |",
        "Together this project invents 0 words where faster-whisper, VAD, the least inventive of the others, invents 0",
        "invents 0; it loses 8 words (openai-whisper 0, faster-whisper, VAD 0).",
        "- this project: int8, default options (`abc/int8`)",
    ):
        assert line in text, line
    assert "A word that was said and stands nowhere is *lost*" in text
    assert "by `make evaluate CORPUS=dir ARGS=--against`" in text


def test_a_sample_says_that_it_is_one(figures: dict[str, Any]) -> None:
    assert "not the evidence" not in document(circumstances(), figures)
    assert "not the evidence" in document(circumstances(sample=True), figures)


def test_what_was_not_measured_has_no_section() -> None:
    figures = summarise([]) | {"refused": {}, "differences": []}
    text = document(circumstances(fingerprints={"ours": "abc"}, guards=False), figures)
    assert "##" not in text
    assert "guards off" in text
    assert "--against" not in text


def test_one_system_alone_is_compared_with_nobody() -> None:
    item = Item("given", "a", "read", "en", True, "the cat sat", 30.0)
    alone = Outcome(item, {"ours": Transcription("transcribe", "en", None, 30.0, "the cat", ())})
    figures = summarise([alone] * 9)
    assert tables.error_table(figures["error_rates"], "all").splitlines() == [
        "|  |  | clips | this project |",
        "| --- | --- | --- | --- |",
        "| all | WER | 9 | 33.33 % (9/27) |",
    ]


def test_invention_is_put_beside_the_least_inventive_of_the_others() -> None:
    def row(**counts: tuple[int, int]) -> dict[str, Any]:
        return {"systems": {name: {"invented": made, "lost": lost} for name, (made, lost) in counts.items()}}

    text = tables.invention_verdict([row(ours=(3, 1), reference=(9, 4), **{"faster-whisper": (6, 2)})])
    assert "invents 3 words where faster-whisper, VAD" in text
    assert "invents 6, 0.50 times as many; it loses 1 words (openai-whisper 4, faster-whisper, VAD 2)" in text
    assert tables.invention_verdict([row(ours=(3, 1))]) == ""


def test_enough_clips_give_an_interval() -> None:
    clips = [Item("given", str(i), "read", "en", True, "the cat sat", 30.0) for i in range(9)]
    figures = summarise([outcome(clip, "the cat", "the cat sat") for clip in clips])
    last = tables.error_table(figures["error_rates"], "all").splitlines()[-1]
    assert last == "| all | WER | 9 | 33.33 % (9/27) | 0.00 % (0/27) | +33.33 to +33.33 |"


def test_confusions_are_laid_out_as_spoken_by_found() -> None:
    pairs = [{"true": "nl", "found": "de", "clips": 2}, {"true": "is", "found": "nn", "clips": 1}]
    found = {"clips": 20, "right": 17, "spoken": {"nl": 12, "is": 3, "en": 5}, "confusions": pairs}
    assert tables.confusion_table(found).splitlines()[2:] == ["| is | 3 | 2 |  | 1 |", "| nl | 12 | 10 | 2 |  |"]
    assert tables.confusion_table({**found, "confusions": []}) == ""


def test_the_noise_picture_has_a_line_for_each_system_in_each_noise(figures: dict[str, Any]) -> None:
    panels = noise_figure(figures["noise"]).axes
    drawn = [{str(line.get_label()): list(line.get_ydata()) for line in panel.lines} for panel in panels]
    assert len(drawn) == len(NOISES)
    assert drawn[0] == drawn[1]
    assert drawn[0] == {
        "this project": [25.0] * 5,
        "openai-whisper": [25.0] * 5,
        "faster-whisper, VAD": [0.0] * 5,
    }


def test_the_language_picture_has_a_bar_for_each_system_and_language(figures: dict[str, Any]) -> None:
    rows = [row for row in figures["error_rates"] if row["grouping"] == "language"]
    (panel,) = language_figure(rows).axes
    assert [bar.get_height() for bar in panel.patches] == pytest.approx([100 / 3, 100 / 3, 0.0, 0.0], abs=1e-3)
    assert [label.get_text() for label in panel.get_xticklabels()] == ["en\n1", "zh*\n1"]


def test_report_and_pictures_lie_side_by_side(figures: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "docs", circumstances(), figures)
    pictures = sorted(tmp_path.rglob("*.png"))
    assert [picture.name for picture in pictures] == ["accuracy-languages.png", "accuracy-noise.png"]
    text = path.read_text(encoding="utf-8")
    for picture in pictures:
        assert f"({picture.name})" in text
        assert picture.read_bytes().startswith(PNG)
        assert picture.parent == path.parent

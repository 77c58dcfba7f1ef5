"""The accuracy report, from answers written by hand; and the recordings that the answers are about."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.accuracy import error_rates_in_noise, in_noise, invented, main
from benchmarks.noise import NOISES, RATIOS, mix
from benchmarks.plot import plot

GROUPS = ["clean", *(f"{noise} {ratio} dB" for noise in NOISES for ratio in RATIOS)]


def _answers(text: str, *, nothing: str = "", clips: int = 2) -> dict[str, dict[str, object]]:
    common = {"language": "en", "said": "one fox ran home", "seconds": 2.0}
    entries = [
        {"name": clip if group == "clean" else f"{clip}, {group}", "group": group, "text": text, **common}
        for clip in ("a.wav", "b.wav")[:clips]
        for group in GROUPS
    ]
    entries.append(
        {"name": "hum", "group": "synthetic", "text": nothing, "language": None, "said": "", "seconds": 30.0}
    )
    entries.append({"name": "sheep", "group": "corpus", "text": nothing, "language": None, "said": "", "seconds": 60.0})
    return {str(entry["name"]): entry for entry in entries}


def test_lost_and_invented_words_are_counted_over_clips_that_all_have_answered() -> None:
    systems = {"ours": _answers("One fox ran."), "theirs": _answers("One fox ran home now.", clips=1)}
    rates = error_rates_in_noise(systems)
    assert rates["ours"]["white 5 dB"] == (1, 1, 0, 4)
    assert rates["theirs"]["clean"] == (1, 0, 1, 4)
    assert "| all (36 words) | 25.0 %, 9, 0 | 25.0 %, 0, 9 |" in in_noise(rates, 1)


def test_invented_words_are_given_a_minute() -> None:
    table = invented({"ours": _answers("."), "theirs": _answers(".", nothing="Thank you.")})
    assert "| ours | corpus | 1 | 0 | 0 | 0.00 |" in table
    assert "| theirs | synthetic | 1 | 1 | 2 | 4.00 |" in table


def test_the_plot_is_a_picture_with_a_line_for_each_system_and_noise() -> None:
    picture = ElementTree.fromstring(plot(error_rates_in_noise({"a < b": _answers("x"), "theirs": _answers("one")})))
    lines = [element for element in picture if element.tag.endswith("polyline")]
    assert len(lines) == 2 * len(NOISES)
    assert all(len(line.attrib["points"].split()) == 1 + len(RATIOS) for line in lines)


def test_the_report_stands_in_the_folder(tmp_path: Path) -> None:
    answers = tmp_path / "ours.jsonl"
    answers.write_text("".join(json.dumps(one) + "\n" for one in _answers("One fox ran.").values()), encoding="utf-8")
    assert main([str(tmp_path), "--noise", f"ours={answers}"]) == 0
    report = (tmp_path / "accuracy.md").read_text(encoding="utf-8")
    assert "## Words where nobody speaks" in report
    assert "(accuracy-noise.svg)" in report
    assert (tmp_path / "accuracy-noise.svg").exists()


@pytest.mark.parametrize("ratio", RATIOS)
def test_noise_is_so_many_decibels_below_speech(ratio: int) -> None:
    generator = np.random.default_rng(0)
    speech = 0.01 * generator.standard_normal(16_000).astype(np.float32)
    noise = generator.standard_normal(16_000).astype(np.float32)
    rest = mix(speech, noise, ratio) - speech
    assert 10 * np.log10(np.mean(speech**2) / np.mean(rest**2)) == pytest.approx(ratio, abs=0.01)

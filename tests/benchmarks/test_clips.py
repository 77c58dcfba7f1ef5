"""The clips that the tests ship: what the manifest says is true of the files, and the licences allow it."""

import json
from pathlib import Path

import pytest

from benchmarks.accuracy.corpus import read_corpus
from benchmarks.accuracy.waveform import read_waveform
from model.language import LANGUAGES

AUDIO = Path(__file__).parents[1] / "audio"
ENTRIES = json.loads((AUDIO / "manifest.json").read_text(encoding="utf-8"))


def test_manifest_lists_every_clip_and_no_other() -> None:
    files = {path.name for path in AUDIO.iterdir()} - {"manifest.json", "README.md"}
    assert files == {entry["file"] for entry in ENTRIES}


def test_readme_names_every_clip() -> None:
    text = (AUDIO / "README.md").read_text(encoding="utf-8")
    assert [entry["file"] for entry in ENTRIES if f"`{entry['file']}`" not in text] == []


def test_clips_stay_small_and_free() -> None:
    assert sum(path.stat().st_size for path in AUDIO.iterdir()) < 6_000_000
    for entry in ENTRIES:
        assert "-SA" not in entry["license"]
        assert "-NC" not in entry["license"]
        assert entry["language"] is None or entry["language"] in LANGUAGES


@pytest.mark.parametrize("clip", read_corpus(AUDIO), ids=lambda clip: clip.file)
def test_clip_lasts_as_long_as_the_manifest_says(clip) -> None:
    samples = read_waveform(clip.path)
    assert len(samples) / 16000 == pytest.approx(clip.seconds, abs=0.1)
    assert (abs(samples).max() > 0.01) == (clip.file != "silence.flac")

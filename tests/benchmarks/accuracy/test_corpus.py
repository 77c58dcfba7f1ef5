import json
from pathlib import Path

import pytest

from benchmarks.accuracy.corpus import read_corpus

ENTRY = {"language": "en", "text": "Hi.", "translation": None, "kind": "read", "seconds": 1.5, "license": "CC0-1.0"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    entries = [
        {**ENTRY, "file": "a.wav"},
        {**ENTRY, "file": "b.wav", "language": "de", "translation": "Hello.", "ref_origin": "here"},
        {**ENTRY, "file": "c.wav", "kind": "nospeech", "language": None, "text": ""},
        {**ENTRY, "file": "bad.wav", "kind": "hostile", "seconds": None},
    ]
    (tmp_path / "manifest.jsonl").write_text("\n".join(json.dumps(entry) for entry in entries) + "\n\n")
    return tmp_path


def test_hostile_files_are_left_out(folder: Path) -> None:
    clips = read_corpus(folder)
    assert [clip.file for clip in clips] == ["a.wav", "b.wav", "c.wav"]
    assert clips[1].path == folder / "b.wav"
    assert [clip.origin for clip in clips] == ["source", "here", "source"]
    assert (clips[1].language, clips[1].translation, clips[1].seconds) == ("de", "Hello.", 1.5)


def test_filters_by_kind_language_and_number(folder: Path) -> None:
    assert [clip.file for clip in read_corpus(folder, kinds=["nospeech"])] == ["c.wav"]
    assert [clip.file for clip in read_corpus(folder, languages=["de", "fr"])] == ["b.wav"]
    assert [clip.file for clip in read_corpus(folder, limit=2)] == ["a.wav", "b.wav"]


def test_filters_that_leave_nothing_are_an_error(folder: Path) -> None:
    with pytest.raises(ValueError, match="no clip"):
        read_corpus(folder, languages=["fi"])


def test_reads_a_list_too(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps([{**ENTRY, "file": "a.wav"}]))
    assert [clip.file for clip in read_corpus(tmp_path)] == ["a.wav"]


def test_a_folder_without_a_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither"):
        read_corpus(tmp_path)

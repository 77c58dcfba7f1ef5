import wave
from pathlib import Path

import pytest

from benchmarks.accuracy.corpus import Clip
from benchmarks.accuracy.items import Item, asked, clip_items, sample


def clip(language: str | None, kind: str = "read", translation: str | None = None, path: str = "a.wav") -> Clip:
    return Clip(path, Path(path), language, "Hallo.", translation, kind, 1.0)


def test_every_pass_takes_its_clips() -> None:
    german = clip("de", translation="Hello.")
    assert asked(german, "given") == Item("given", "a.wav", "read", "de", True, "Hallo.", 1.0)
    assert asked(german, "auto") == Item("auto", "a.wav", "read", "de", False, "Hallo.", 1.0)
    assert asked(german, "translate") == Item("translate", "a.wav", "read", "de", True, "Hello.", 1.0, "translate")
    assert asked(clip("de"), "translate") is None
    assert asked(clip("en", translation="Hello."), "translate") is None


def test_clips_without_speech_have_a_pass_of_their_own() -> None:
    assert [asked(clip(None, "nospeech"), name) for name in ("given", "auto", "translate")] == [None] * 3


def test_a_clip_of_unknown_language_is_asked_about_where_it_is_detected() -> None:
    assert asked(clip(None), "given") is None
    assert asked(clip(None), "auto") is not None


@pytest.mark.parametrize("pass_name", ["given", "auto"])
def test_a_system_is_told_the_language_where_it_is_named(pass_name: str) -> None:
    item = asked(clip("de"), pass_name)
    assert item is not None
    assert item.language == (None if pass_name == "auto" else "de")


def silence(path: Path) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\0\0" * 160)
    return path


def test_files_that_are_refused_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    good, bad = silence(tmp_path / "good.wav"), tmp_path / "bad.wav"
    bad.write_bytes(b"no audio")
    refused: dict[str, str] = {}
    found = list(clip_items([clip("de", path=str(bad)), clip("de", path=str(good))], "given", refused))
    assert [(item.name, len(samples)) for item, samples in found] == [(str(good), 160)]
    assert list(refused) == [str(bad)]


def test_each_take_of_a_clip_begins_a_little_later(tmp_path: Path) -> None:
    good = silence(tmp_path / "good.wav")
    found = list(clip_items([clip("de", path=str(good))], "given", {}, takes=3))
    assert [(item.name, len(samples)) for item, samples in found] == [(str(good), 160 + 37 * n) for n in range(3)]


def test_a_sample_is_the_same_every_time_and_keeps_the_order() -> None:
    clips = [clip("de", path=f"{number:02}.wav") for number in range(50)]
    chosen = sample(clips, 10)
    assert chosen == sample(clips, 10) == sorted(chosen, key=lambda one: one.file)
    assert len(chosen) == 10
    assert chosen != clips[:10]
    assert sample(clips, None) == sample(clips, 50) == clips

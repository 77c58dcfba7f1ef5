import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import texts
from benchmarks.accuracy.corpus import read_corpus
from benchmarks.texts import compare, hear, main, take, taken
from tests import tiny

CLIPS = Path(__file__).parents[1] / "audio"


def test_clips_are_taken_evenly_and_come_back_as_they_are(tmp_path) -> None:
    clips = [clip for clip in read_corpus(CLIPS) if clip.text and clip.language and clip.seconds <= 30]
    count = take(clips, sum(clip.seconds for clip in clips) / 2, tmp_path / "clips.npz")
    about, sounds = taken(tmp_path / "clips.npz")
    assert count == len(about) == len(sounds) == len(clips) // 2
    assert {sound.dtype for sound in sounds} == {np.dtype(np.int16)}
    known = {clip.file: clip for clip in clips}
    for clip, sound in zip(about, sounds, strict=True):
        assert clip["text"] == known[clip["file"]].text
        assert len(sound) / 16_000 == pytest.approx(known[clip["file"]].seconds, abs=0.2)


def test_clips_that_come_at_once_get_the_texts_that_each_gets_alone() -> None:
    model = tiny.transcriber()
    sounds = [
        (tiny.speech(seconds, seed) * 32767).to(dtype=tiny.torch.int16).numpy()
        for seed, seconds in enumerate((3.0, 9.0, 2.0))
    ]
    languages = ["en", "de", "fr"]
    wanted = [
        model.transcribe(sound, language=language, temperature=(0.0,), guards=False).text
        for language, sound in zip(languages, sounds, strict=True)
    ]
    assert hear(model, languages, sounds, rows=2) == wanted


def test_words_count_and_letters_do_not() -> None:
    pytest.importorskip("rapidfuzz")
    pytest.importorskip("zhconv")
    about = [{"language": "en", "text": "one two three four"}, {"language": "ja", "text": "はい"}]
    figures = compare(about, ["One, two three four.", "はい"], ["One two tree four.", "はい"])
    assert figures == {"same": 50.0, "wer_one": 0.0, "wer_other": 25.0}


def test_answers_say_who_heard_what(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(texts, "load", lambda *_, **__: tiny.transcriber())
    clips = read_corpus(CLIPS)
    take([clip for clip in clips if clip.file == "en-jfk.flac"], 60.0, tmp_path / "clips.npz")
    assert main(["hear", str(tmp_path / "clips.npz"), str(tmp_path / "answers.json"), "--device", "cpu"]) == 0
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert len(answers["texts"]) == 1
    assert (answers["captured"], answers["left_out"], answers["compute_type"]) == (False, {}, "float32")
    assert json.loads(capsys.readouterr().out)["clips"] == 1
    if not texts.torch.cuda.is_available():
        assert main(["hear", str(tmp_path / "clips.npz"), str(tmp_path / "answers.json")]) == 2

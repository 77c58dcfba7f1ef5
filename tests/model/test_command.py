"""The command line: one text per file, and no file in place of another."""

import io
import json
import os
import sys
import threading
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from model.__main__ import main
from model.arguments import options_of, parse
from model.audio import decode_audio
from model.dims import DIMENSIONS
from model.errors import WeightsError
from model.options import TranscribeOptions
from model.segments import SKIP_REASONS, Segment, Skipped, Transcription
from tests import tiny


def _sound(path: Path) -> str:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, tiny.speech(1.0).numpy().astype(np.float32), 16_000)
    return str(path)


class _Stub:
    """In the place of a model: hears every file, says the same of each, checks options as a model does."""

    def options(self, **options: object) -> None:
        tiny.transcriber().options(**options)

    def transcribe(self, file: Path, **_: object) -> Transcription:
        duration = decode_audio(file).duration
        segment = Segment(0, 0, 0.0, duration, "그는 café", (), 0.0, 0.0, 1.0, 0.0)
        return Transcription("transcribe", "ko", None, duration, segment.text, (segment,))


@pytest.fixture
def stub(monkeypatch) -> None:
    """The command without a model."""
    monkeypatch.setattr("model.__main__.load", lambda *_, **__: _Stub())


def _no_model(*_: object, **__: object) -> None:
    raise AssertionError("loaded for nothing")


def test_each_file_has_its_text_and_one_that_fails_is_named(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("model.__main__.load", lambda *_, **__: tiny.transcriber())
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    files = [_sound(tmp_path / "a.flac"), str(broken), _sound(tmp_path / "b.wav")]
    out = tmp_path / "out"
    assert main([*files, "--language", "en", "--output-dir", str(out), "--format", "srt", "--quiet"]) == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.srt", "b.srt"]
    assert str(broken) in capsys.readouterr().err


def test_one_hearing_is_written_in_as_many_forms_as_are_asked_for(tmp_path, capsys, stub) -> None:
    out, heard = tmp_path / "out", []
    hear = _Stub.transcribe
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Stub, "transcribe", lambda *at, **of: heard.append(at) or hear(*at, **of))
        asked = [_sound(tmp_path / "a.wav"), "--output-dir", str(out)]
        assert main([*asked, "--format", "srt,json,srt", "--max-line-width", "42"]) == 0
        assert sorted(path.name for path in out.iterdir()) == ["a.json", "a.srt"]
        assert main([*asked, "--format", "all"]) == 0
    assert len(heard) == 2
    written = {path.suffix: path.read_text() for path in out.iterdir()}
    assert written.keys() == {".txt", ".json", ".srt", ".vtt", ".tsv"}
    assert written[".txt"] == "그는 café\n"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("--format", "srt,json"), "needs --output-dir"),
        (("--format", "all"), "needs --output-dir"),
        (("--format", "doc"), "with commas between them, or all"),
        (("--format", "srt,,"), "with commas between them, or all"),
        (("--format", "text,json", "--max-line-width", "42", "--output-dir", "x"), "not for json"),
    ],
)
def test_forms_that_cannot_be_written_are_refused(capsys, asked, told) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(["a.wav", *asked])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(f"{told}\n")


def test_files_of_one_name_are_not_written_over_each_other(tmp_path, capsys) -> None:
    files = [_sound(tmp_path / "x" / "talk.flac"), _sound(tmp_path / "y" / "talk.wav"), _sound(tmp_path / "b.wav")]
    assert parse(files).output_dir is None
    with pytest.raises(SystemExit) as stopped:
        parse([*files, "--output-dir", str(tmp_path / "out")])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert files[0] in error
    assert files[1] in error
    assert files[2] not in error


def test_what_the_terminal_cannot_show_is_no_reason_to_stop(tmp_path, monkeypatch, stub) -> None:
    file = _sound(tmp_path / "a.wav")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    assert main([file]) == 0
    assert raw.getvalue() == b"\\uadf8\\ub294 caf\xe9\n"


def test_a_text_is_written_when_it_is_there(tmp_path, monkeypatch, stub) -> None:
    raw, seen = io.BytesIO(), []
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    hear = _Stub.transcribe

    def watched(self: _Stub, file: Path, **options: object) -> Transcription:
        seen.append(raw.getvalue().decode())
        return hear(self, file, **options)

    monkeypatch.setattr(_Stub, "transcribe", watched)
    assert main([_sound(tmp_path / "a.wav"), _sound(tmp_path / "b.wav")]) == 0
    assert seen == ["", "그는 café\n"]


def test_a_reader_that_left_ends_the_work_without_a_word(tmp_path, monkeypatch, capfd, stub) -> None:
    read, write = os.pipe()
    os.close(read)
    files = [_sound(tmp_path / "a.wav"), str(tmp_path / "missing.wav")]
    with os.fdopen(write, "w", encoding="utf-8") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert main(files) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_as_such(tmp_path, monkeypatch, capfd, stub) -> None:
    files = [_sound(tmp_path / "a.wav"), str(tmp_path / "missing.wav")]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(files) == 1
    assert capfd.readouterr().err.startswith("standard output: ")


def test_a_recording_may_come_through_a_pipe(tmp_path, capsys, stub) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = Path(_sound(tmp_path / "a.wav")).read_bytes()
    sender = threading.Thread(target=pipe.write_bytes, args=(content,))
    sender.start()
    assert main([str(pipe)]) == 0
    sender.join()
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("model.__main__.load", _no_model)
    file = tmp_path / "file"
    file.touch()
    assert main([_sound(tmp_path / "a.wav"), "--output-dir", str(file)]) == 2
    assert str(file) in capsys.readouterr().err
    monkeypatch.setattr("model.__main__.os.access", lambda *_: False)
    assert main([_sound(tmp_path / "a.wav"), "--output-dir", str(tmp_path)]) == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "language"), [("auto", None), (" Auto", None), ("de", "de")])
def test_auto_is_no_language(given, language) -> None:
    assert parse(["a.wav", "--language", given]).language == language


@pytest.mark.parametrize("wrong", [("--language", "klingon"), ("--beam-size", "99"), ("--temperature", "2")])
def test_an_option_that_is_wrong_is_told_once_and_no_fault_of_the_files(tmp_path, capsys, wrong, stub) -> None:
    files = [_sound(tmp_path / "a.wav"), _sound(tmp_path / "b.wav")]
    assert main([*files, *wrong]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert files[0] not in error


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_was_skipped_is_told_on_standard_error_or_in_the_json(tmp_path, capsys, monkeypatch, stub, form) -> None:
    plain = _Stub.transcribe
    skipped = (Skipped("no_voice", 0.0, 0.5),)
    monkeypatch.setattr(_Stub, "transcribe", lambda *at, **of: replace(plain(*at, **of), warnings=skipped))
    file = _sound(tmp_path / "a.wav")
    assert main([file, "--format", form]) == 0
    told = capsys.readouterr()
    assert told.err == (f"{file}: 0.0 to 0.5 s: {SKIP_REASONS['no_voice']}\n" if form == "text" else "")
    assert ("no_voice" in told.out) == (form == "json")


def test_options_are_those_of_the_library_and_keep_its_defaults() -> None:
    every = ["--suppress-tokens", "none", "--prepend-punctuations", "(", "--append-punctuations", ")"]
    bounds = ["max-initial-timestamp", "no-speech-threshold", "logprob-threshold", "compression-ratio-threshold"]
    every += [f"--{name}=none" for name in bounds]
    assert set(options_of(parse(["a.wav", *every]))) == {field.name for field in fields(TranscribeOptions)}
    assert TranscribeOptions(**options_of(parse(["a.wav"]))) == TranscribeOptions()
    asked = [
        "--suppress-tokens=-1,11",
        "--max-tokens",
        "9",
        "--clip-timestamps",
        "1,2.5",
        "--logprob-threshold",
        "none",
    ]
    asked += [
        "--no-suppress-blank",
        "--no-speech-threshold",
        "0.5",
        "--compression-ratio-threshold",
        "3",
        "--max-initial-timestamp",
        "2",
    ]
    assert TranscribeOptions(**options_of(parse(["a.wav", *asked]))) == TranscribeOptions(
        suppress_tokens=(-1, 11),
        sample_len=9,
        suppress_blank=False,
        clip_timestamps=(1.0, 2.5),
        logprob_threshold=None,
        no_speech_threshold=0.5,
        compression_ratio_threshold=3.0,
        max_initial_timestamp=2.0,
    )
    assert options_of(parse(["a.wav", "--suppress-tokens", "none"]))["suppress_tokens"] == ()


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_language_is_told_alone(tmp_path, monkeypatch, capsys, form) -> None:
    heard = {"ht": 0.75, "en": 0.2500004}
    monkeypatch.setattr(_Stub, "detect_language", lambda _, file: heard if decode_audio(file) else {}, raising=False)
    monkeypatch.setattr(_Stub, "dims", DIMENSIONS["tiny"], raising=False)
    monkeypatch.setattr(_Stub, "name", "tiny", raising=False)
    monkeypatch.setattr("model.__main__.load", lambda *_, **__: _Stub())
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    asked = [_sound(tmp_path / "a.wav"), str(broken), "--task", "detect-language", "--format", form]
    assert main(asked) == 1
    told = capsys.readouterr()
    assert told.err.startswith(f"{broken}: ")
    if form == "text":
        assert told.out == "ht\thaitian creole\t0.750\n"
    else:
        name = {"language": "ht", "language_name": "haitian creole", "probability": 0.75}
        assert json.loads(told.out) == {**name, "probabilities": {"ht": 0.75, "en": 0.25}}
    monkeypatch.setattr(_Stub, "dims", DIMENSIONS["tiny.en"])
    assert main(asked) == 2
    assert capsys.readouterr().err == "model tiny knows English only\n"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--format", "srt"), "not srt"),
        (("--language", "de"), "no language"),
        (("--beam-size", "2", "--vad"), "no beam_size, vad"),
    ],
)
def test_whoever_asks_for_the_language_alone_gets_no_text(capsys, more, told) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(["a.wav", "--task", "detect-language", *more])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(f"{told}\n")


@pytest.mark.parametrize(
    "wrong",
    [
        ("--threads", "-1"),
        ("--temperature", "hot"),
        ("--suppress-tokens", "music"),
        ("--logprob-threshold", "low"),
    ],
)
def test_numbers_that_are_none_are_refused_in_words(capsys, wrong) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(["a.wav", *wrong])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert wrong[0] in error
    assert "must be" in error


def test_an_interrupt_ends_it_without_a_traceback(monkeypatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("model.__main__.load", interrupted)
    assert main(["a.wav"]) == 130


@pytest.mark.parametrize("quiet", [False, True])
def test_a_download_shows_its_progress(monkeypatch, capsys, quiet) -> None:
    asked: dict[str, object] = {}

    def load(*_: object, **options: object) -> None:
        asked.update(options)
        raise WeightsError("not there")

    monkeypatch.setattr("model.__main__.load", load)
    assert main(["a.wav", "--download-dir", "weights", *(["--quiet"] if quiet else [])]) == 2
    assert asked["show_progress"] is not quiet
    assert asked["download_dir"] == Path("weights")
    assert capsys.readouterr().err == "not there\n"

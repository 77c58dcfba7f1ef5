"""The command line: one text per file, and no file in place of another."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from model.__main__ import main, parse
from tests import tiny


def _sound(path: Path) -> str:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, tiny.speech(1.0).numpy().astype(np.float32), 16_000)
    return str(path)


def test_each_file_has_its_text_and_one_that_fails_is_named(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("model.__main__.load", lambda *_, **__: tiny.transcriber())
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    files = [_sound(tmp_path / "a.flac"), str(broken), _sound(tmp_path / "b.wav")]
    out = tmp_path / "out"
    assert main([*files, "--language", "en", "--output-dir", str(out), "--format", "srt", "--quiet"]) == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.srt", "b.srt"]
    assert str(broken) in capsys.readouterr().err


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

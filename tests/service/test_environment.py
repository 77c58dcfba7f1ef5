import os
import subprocess
import sys

import pytest

from service.environment import environment_of_children, load, unknown_variables, visible_gpus
from service.settings import Settings, SettingsError
from tests.serving import ROOT


def test_no_child_gets_the_keys_however_their_variable_is_written(monkeypatch):
    monkeypatch.setenv("WHISPER_MODEL", "tiny")
    for name in ("WHISPER_API_KEYS", "whisper_api_keys", "Whisper_Api_Keys"):
        monkeypatch.setenv(name, "first-key")
        assert load().api_keys[0].get_secret_value() == "first-key"
        assert "first-key" not in environment_of_children().values()
        assert environment_of_children()["WHISPER_MODEL"] == "tiny"
        monkeypatch.delenv(name)


def test_quotes_inside_of_keys_are_theirs_and_a_key_of_somebody_else_does_not_matter(monkeypatch):
    monkeypatch.setenv("WHISPER_API_KEYS", '"first\'key,second"key')
    monkeypatch.setenv("WHISPER_API_KEY", "key-of-a-client")
    assert [key.get_secret_value() for key in load().api_keys] == ["\"first'key", 'second"key']
    assert "key-of-a-client" not in environment_of_children().values()


def test_an_empty_variable_is_an_absent_one(monkeypatch):
    monkeypatch.setenv("WHISPER_DOCS", "")
    monkeypatch.setenv("WHISPER_PORT", "")
    assert load().port == 8000


def test_every_fault_is_named_at_once(monkeypatch):
    monkeypatch.setenv("WHISPER_PORT", "-1")
    monkeypatch.setenv("WHISPER_LOG_LEVEL", "chatty")
    with pytest.raises(SettingsError, match=r"WHISPER_PORT: .*; WHISPER_LOG_LEVEL: "):
        load()


@pytest.mark.parametrize(
    ("listed", "n_gpus"),
    [(None, None), ("", 0), ("-1", 0), ("0", 1), ("2, 3", 2), ("GPU-8932f937,GPU-5ad1", 2), ("1,-1,0", 1)],
)
def test_cuda_shows_the_gpus_that_the_environment_lists(monkeypatch, listed, n_gpus):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == n_gpus


def test_misspelt_variables_are_found():
    assert unknown_variables({"WHISPER_PROT": "1", "WHISPER_PORT": "1", "PATH": ""}) == ("WHISPER_PROT",)


def service(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(command, cwd=ROOT, env={"PATH": ""} | environment, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        ((), {"WHISPER_PORT": "eighty"}, "WHISPER_PORT"),
        (("--port", "9000"), {}, "arguments: there are none but --help"),
    ],
)
def test_a_wrong_setting_stops_the_process_with_one_log_line(arguments, environment, named):
    run = service(*arguments, **environment)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert named in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("package", ["service", "model"])
def test_a_reader_that_has_seen_enough_of_the_help_is_no_fault(package):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        command = [sys.executable, "-m", package, "--help"]
        run = subprocess.run(command, cwd=ROOT, env={}, stdout=gone, stderr=subprocess.PIPE, timeout=30, check=False)
    assert run.stderr == b""


def test_whoever_asks_for_help_is_told_every_setting():
    run = service("--help", WHISPER_PORT="eighty")
    assert (run.returncode, run.stderr) == (0, "")
    for name, field in Settings.model_fields.items():
        assert f"\nWHISPER_{name.upper()}=" in run.stdout
        assert str(field.description) in run.stdout
    assert "\nWHISPER_PORT=8000\n" in run.stdout

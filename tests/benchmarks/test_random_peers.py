import importlib.util
import json
import sys

import pytest
import torch

from benchmarks import random_peers
from benchmarks.peer.random_engines import FasterWhisper, OpenaiWhisper, Transformers
from benchmarks.random_peers import borrow, main, measure
from tests import tiny

CPU = torch.device("cpu")


class _Noted:
    def __init__(self, name: str, calls: list[str]) -> None:
        self._name, self._calls = name, calls

    def decode(self, rows: int) -> int:
        self._calls.append(f"{self._name}{rows}")
        return 1


def test_rounds_go_forth_and_back_and_the_first_is_not_counted() -> None:
    calls: list[str] = []
    seconds = measure({"a": _Noted("a", calls), "b": _Noted("b", calls)}, {}, CPU, rows=4, tokens=1, rounds=2)
    assert calls == ["a4", "b4", "b4", "a4", "a4", "b4"]
    assert [len(times) for times in seconds.values()] == [2, 2]


def test_a_peer_that_raises_costs_itself_only() -> None:
    class Broken:
        def decode(self, rows: int) -> int:
            raise torch.OutOfMemoryError("CUDA out of\n memory")

    missing: dict[str, str] = {}
    found = {"a": _Noted("a", []), "b": Broken(), "c": _Noted("c", [])}
    seconds = measure(found, missing, CPU, rows=4, tokens=1, rounds=2)
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "c": 2}
    assert missing == {"b": "OutOfMemoryError: CUDA out of memory"}


def test_a_peer_that_makes_other_than_the_tokens_it_should_is_not_compared() -> None:
    class Short:
        def decode(self, rows: int) -> int:
            return 57

    missing: dict[str, str] = {}
    assert list(measure({"a": _Noted("a", []), "b": Short()}, missing, CPU, rows=4, tokens=1, rounds=1)) == ["a"]
    assert missing == {"b": "RuntimeError: made 57 tokens of a window, not 1"}


def test_packages_of_the_peers_environments_are_found_after_ours(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    ours = list(sys.path)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = tmp_path / "faster-whisper" / "lib" / version / "site-packages"
    folder.mkdir(parents=True)
    (folder / "only_there.py").touch()
    (tmp_path / "faster-whisper" / "lib" / "python2.7" / "site-packages").mkdir(parents=True)
    for _ in range(2):
        borrow(tmp_path)
    assert sys.path == [*ours, str(folder)]
    assert importlib.util.find_spec("only_there") is not None


def test_who_is_not_installed_is_named(monkeypatch, capsys) -> None:
    monkeypatch.setattr("benchmarks.machine.random_model.DIMENSIONS", {"small-random": tiny.DIMS})

    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(random_peers.importlib, "import_module", absent)
    arguments = ["--random", "small-random", "--device", "cpu", "--cache", "none"]
    assert main([*arguments, "--rows", "2", "--tokens", "3", "--rounds", "1"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["missing"]) == {"faster-whisper", "transformers", "openai-whisper"}
    assert list(result["seconds"]) == ["ours"]
    assert result["card"]["product_per_s"] > 0
    assert result["bound_speed"] > 0


@pytest.mark.oracle
def test_the_reference_makes_as_many_tokens_as_it_should() -> None:
    assert OpenaiWhisper(tiny.DIMS, CPU, 5).decode(2) == 5


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_transformers_makes_as_many_tokens_as_it_should() -> None:
    assert Transformers(tiny.DIMS, CPU, 5).decode(2) == 5


@pytest.mark.skipif(importlib.util.find_spec("ctranslate2") is None, reason="ctranslate2 is not installed")
@pytest.mark.parametrize("tokens", [1, 2, 3, 30])
def test_ctranslate2_opens_what_we_write_and_makes_as_many_tokens_as_it_should(tokens, monkeypatch) -> None:
    monkeypatch.setattr("benchmarks.machine.random_model.DIMENSIONS", {"small-random": tiny.DIMS})
    assert FasterWhisper("small-random", CPU, tokens).decode(2) == tokens

import importlib.util
import json

import pytest
import torch

from benchmarks import random_peers
from benchmarks.random_peers import OpenaiWhisper, Transformers, main, measure
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
    seconds = measure({"a": _Noted("a", calls), "b": _Noted("b", calls)}, {}, CPU, 4, 2)
    assert calls == ["a4", "b4", "b4", "a4", "a4", "b4"]
    assert [len(times) for times in seconds.values()] == [2, 2]


def test_a_peer_that_raises_costs_itself_only() -> None:
    class Broken:
        def decode(self, rows: int) -> int:
            raise torch.OutOfMemoryError("CUDA out of\n memory")

    missing: dict[str, str] = {}
    seconds = measure({"a": _Noted("a", []), "b": Broken(), "c": _Noted("c", [])}, missing, CPU, 4, 2)
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "c": 2}
    assert missing == {"b": "OutOfMemoryError: CUDA out of memory"}


def test_who_is_not_installed_is_named(monkeypatch, capsys) -> None:
    monkeypatch.setattr("benchmarks.random_model.DIMENSIONS", {"small-random": tiny.DIMS})

    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(random_peers.importlib, "import_module", absent)
    assert main(["--random", "small-random", "--device", "cpu", "--rows", "2", "--tokens", "3", "--rounds", "1"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["missing"]) == {"faster-whisper", "transformers", "openai-whisper"}
    assert list(result["seconds"]) == ["ours"]


@pytest.mark.oracle
def test_the_reference_makes_as_many_tokens_as_it_should() -> None:
    assert OpenaiWhisper(tiny.DIMS, CPU, 5).decode(2) == 5


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_transformers_makes_as_many_tokens_as_it_should() -> None:
    assert Transformers(tiny.DIMS, CPU, 5).decode(2) == 5

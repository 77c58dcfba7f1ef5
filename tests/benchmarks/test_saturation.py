import json

from benchmarks.saturation import Saturation, main
from tests import tiny


def test_as_many_windows_are_counted_as_were_asked_for_and_the_rows_stay_full() -> None:
    engine = Saturation(tiny.transcriber(), rows=3, windows_per_encode=1, tokens=30)
    many = engine.saturated(5)
    assert many.windows == 5
    assert many.speed == 150.0 / many.seconds
    assert many.mean_rows > 1.5
    assert not engine._engine.busy
    assert engine.alone(1) > 0.0


def test_every_window_has_the_tokens_that_it_is_made_to_have() -> None:
    engine = Saturation(tiny.transcriber(), rows=2, windows_per_encode=1, tokens=9)
    engine.alone(2)
    assert engine._engine.batch.steps == {1: 3 * 8}  # the first token of each is its prompt's
    assert engine._engine.stats.encodes == 3


def test_the_path_of_a_gpu_runs_without_one(monkeypatch, capsys) -> None:
    monkeypatch.setattr("benchmarks.random_model.DIMENSIONS", {"small-random": tiny.DIMS})
    arguments = ["--random", "small-random", "--device", "cpu", "--compute-type", "float32", "--cross-kv", "int8"]
    assert main([*arguments, "--rows", "2", "--windows", "3", "--tokens", "4", "--repeats", "1"]) == 0
    *card, last = capsys.readouterr().out.splitlines()
    assert any("RTFx" in line for line in card)
    result = json.loads(last)
    assert (result["model"], result["cross_kv"], result["cuda_graphs"]) == ("small-random", "int8", False)
    assert result["saturated"]["windows"] == 3
    assert result["bound_alone_s"] > 0
    assert result["alone_s"] > 0

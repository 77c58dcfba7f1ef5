import json
from types import SimpleNamespace

from benchmarks import saturation
from benchmarks.saturation import Saturation, in_turn, main
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


def test_windows_with_beams_share_the_rows(monkeypatch, capsys) -> None:
    monkeypatch.setattr("benchmarks.machine.random_model.DIMENSIONS", {"small-random": tiny.DIMS})
    arguments = ["--random", "small-random", "--device", "cpu", "--compute-type", "float32", "--beams", "2"]
    assert main([*arguments, "--rows", "4", "--windows", "3", "--tokens", "4", "--repeats", "1"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["beams"], result["saturated"]["windows"]) == (2, 3)
    assert 2.0 < result["saturated"]["mean_rows"] <= 4.0
    engine = Saturation(tiny.transcriber(), rows=4, windows_per_encode=1, tokens=9, beams=2)
    engine.together(1)
    assert engine._engine.batch.steps == {2: 8}


def test_both_ways_to_encode_take_turns_and_one_has_a_stream_of_its_own(monkeypatch) -> None:
    besides = []
    monkeypatch.setattr(saturation, "SideStream", lambda device: "side")
    transcriber = tiny.transcriber()
    monkeypatch.setattr(type(transcriber.model), "device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(transcriber.model, "captures_steps", True)
    monkeypatch.setattr(saturation, "Engine", lambda *a, beside, **k: besides.append(beside))
    for overlaps in (True, False):
        Saturation(transcriber, rows=2, windows_per_encode=1, tokens=3, overlaps=overlaps)
    assert besides == ["side", None]

    class Noted:
        def __init__(self, speeds: list[float]) -> None:
            self.speeds = speeds

        def saturated(self, windows: int) -> SimpleNamespace:
            return SimpleNamespace(speed=self.speeds.pop(0) * windows)

    assert in_turn(Noted([3.0, 4.0]), Noted([1.0, 2.0]), 10) == [(30.0, 10.0), (40.0, 20.0)]


def test_the_path_of_a_gpu_runs_without_one(monkeypatch, capsys) -> None:
    monkeypatch.setattr("benchmarks.machine.random_model.DIMENSIONS", {"small-random": tiny.DIMS})
    arguments = ["--random", "small-random", "--device", "cpu", "--compute-type", "float32", "--cross-kv", "int8"]
    assert main([*arguments, "--rows", "2", "--windows", "3", "--tokens", "4", "--repeats", "1", "--inline"]) == 0
    *card, last = capsys.readouterr().out.splitlines()
    assert any("RTFx" in line for line in card)
    result = json.loads(last)
    assert (result["model"], result["cross_kv"], result["cuda_graphs"]) == ("small-random", "int8", False)
    assert result["saturated"]["windows"] == 3
    assert result["bound_alone_s"] > 0
    assert result["alone_s"] > 0
    assert len(result["beside_and_inline"]) == 2
    assert any("encoded beside the steps" in line for line in card)

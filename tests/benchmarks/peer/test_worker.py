import io
import json
import sys
import threading
import wave
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from benchmarks import peers
from benchmarks.peer import worker
from benchmarks.peer.engine import Samples, Threaded
from benchmarks.peer.formats import write_ctranslate2_anew
from benchmarks.peer.process import Answer
from benchmarks.peer.scenarios import SCENARIOS, Scenario, scenarios
from benchmarks.peer.table import CUDA_SYSTEMS, OURS, OURS_CUDA, SYSTEMS, System, build_weights
from model.weights import Weights, load_weights
from tests import tiny


def test_each_thread_has_an_engine_of_its_own_and_answers_keep_their_order() -> None:
    both = threading.Barrier(2)
    made: list[int] = []

    def make() -> Callable[[Samples], str]:
        number = len(made)
        made.append(number)
        busy = threading.Lock()

        def transcribe(samples: Samples) -> str:
            assert busy.acquire(blocking=False), "two requests in one engine"
            both.wait(10)  # returns only where both engines are at work
            busy.release()
            return str(len(samples))

        return transcribe

    engine = Threaded(make, workers=2)
    assert engine.many([np.zeros(n, np.float32) for n in (3, 1, 4, 2)]) == ["3", "1", "4", "2"]
    assert made == [0, 1]


def test_wav_is_read_as_the_model_scales_it(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.array([-32768, 0, 16384], "<i2").tobytes())
    (tmp_path / "a.wav").write_bytes(buffer.getvalue())
    assert worker.read_wav(str(tmp_path / "a.wav")).tolist() == [-1.0, 0.0, 0.5]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_compared_on_one(tmp_path: Path, capsys) -> None:
    assert peers.main([str(tmp_path), "--device", "cuda", "--output", str(tmp_path / "peers.json")]) == 2
    assert "no CUDA device here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_on_a_gpu_everybody_is_told_so_and_ours_comes_first() -> None:
    assert all(system.load["device"] == "cuda" for system in CUDA_SYSTEMS)
    assert (CUDA_SYSTEMS[0].name, SYSTEMS[0].name) == (OURS_CUDA, OURS)
    assert all(system.engine in worker.ENGINES for system in (*SYSTEMS, *CUDA_SYSTEMS))


class _Process:
    """Answers as the script of its system says: seconds, or an error."""

    def __init__(self, load: dict, *, log: Path, libraries: list[Path], python: Path) -> None:
        self.load, self.log, self.libraries, self.python = load, log, libraries, python
        self.calls: list[str] = []

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def one(self, path: Path) -> Answer:
        return self._answer("one", (path,))

    def many(self, paths: tuple[Path, ...]) -> Answer:
        return self._answer("many", paths)

    def _answer(self, kind: str, paths: tuple[Path, ...]) -> Answer:
        self.calls.append(kind)
        if self.load["engine"] == "breaks" and len(self.calls) > 1:
            raise RuntimeError("the process ended: CUDA out of memory")
        return Answer(("said",) * len(paths), 2.0 if self.load["engine"] == "peer" else 1.0, 10)


def test_a_peer_whose_process_ends_is_named_and_the_others_are_compared(tmp_path: Path, monkeypatch) -> None:
    started: list[_Process] = []

    def start(python: Path, load: dict, *, log: Path, libraries: list[Path]) -> _Process:
        started.append(_Process(load, log=log, libraries=libraries, python=python))
        return started[-1]

    monkeypatch.setattr(peers, "PeerProcess", start)
    monkeypatch.setattr(peers, "cuda_libraries", lambda: [tmp_path])
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "installed").touch()
    cuda = {"device": "cuda"}
    systems = [
        System("ours", "ours", load=cuda),
        System("b", "breaks", "not-built", load=cuda),
        System("c", "peer", "whole", "file"),
    ]
    comparison = peers.Comparison(tmp_path, systems, threads=1, rounds=2, model="base.bin", defaults=True)
    records = comparison.measure(Scenario("one request", "clip", (tmp_path / "a.wav",), ("said",), 10.0))
    assert [(record.system, record.rounds) for record in records] == [
        ("ours", ((1.0, 1.0), (1.0, 1.0))),
        ("c", ((1.0, 2.0), (1.0, 2.0))),
    ]
    assert comparison.missing == {"b": "the process ended: CUDA out of memory"}
    assert started[0].load["model"] == "base.bin"
    assert all(process.load["defaults"] for process in started)
    here = Path(sys.executable)
    assert [process.python for process in started] == [here, here, tmp_path / "whole" / "bin" / "python"]
    assert [process.libraries for process in started] == [[tmp_path], [tmp_path], []]
    assert [process.calls for process in started] == [["one"] * 3, ["one"] * 2, ["one"] * 3]


@pytest.mark.parametrize(("defaults", "named"), [(False, {"temperature": (0.0,)}), (True, {})])
def test_ours_is_asked_for_greedy_decoding_or_for_nothing_but_the_language(monkeypatch, defaults, named) -> None:
    model = Mock()
    monkeypatch.setattr("model.loading.load", lambda *a, **b: model)
    load = {"engine": "ours", "threads": torch.get_num_threads(), "model": "base", "compute_type": "int8"}
    worker.ENGINES["ours"]({**load, "defaults": defaults}).one(np.zeros(3, np.float32))
    (call,) = model.transcribe.call_args_list
    assert call.kwargs == {"language": "en", **named}


def test_without_a_scorer_no_words_are_counted(monkeypatch) -> None:
    assert peers._errors(["one two"], ["one too"]) == (1, 2)
    monkeypatch.setitem(sys.modules, "benchmarks.accuracy.scoring", None)
    assert peers._errors(["one two"], ["one too"]) == (0, 0)


def test_clips_of_a_file_become_requests_without_a_codec(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks.accuracy.waveform", None)
    about = [{"file": f"{i}.flac", "language": "de" if i == 1 else "en", "text": f"text {i}"} for i in range(4)]
    sounds = {str(i): np.full(16_000 * seconds, i, np.int16) for i, seconds in enumerate((4, 11, 10, 29))}
    np.savez(tmp_path / "clips.npz", about=np.array(json.dumps(about)), **sounds)
    short, clip, streams = scenarios(tmp_path / "clips.npz", SCENARIOS, 16, tmp_path)
    assert (short.texts, clip.texts, clip.seconds) == (("text 0",), ("text 2",), 10.0)
    assert sorted(streams.texts) == ["text 0", "text 2"]
    assert worker.read_wav(str(clip.paths[0])).tolist() == [2 / 32768] * 160_000


def test_what_the_peers_open_can_be_made_of_a_model_bin_alone(tmp_path: Path) -> None:
    tensors = {name: tensor.half() for name, tensor in tiny.tensors().items()}
    write_ctranslate2_anew(Weights(tiny.DIMS, tensors, "tiny-random", None), tmp_path / "base")
    (tmp_path / "peers").mkdir()
    build_weights(tmp_path / "peers", tmp_path / "base" / "model.bin")
    made = tmp_path / "peers"
    assert (made / "ctranslate2" / "model.bin").read_bytes() == (tmp_path / "base" / "model.bin").read_bytes()
    assert torch.equal(
        load_weights(str(made / "base.pt")).tensors["decoder.ln.weight"].half(), tensors["decoder.ln.weight"]
    )
    assert (made / "transformers" / "config.json").exists()


def test_only_the_environments_of_those_who_are_compared_are_made(tmp_path: Path, monkeypatch) -> None:
    built: list[str] = []
    monkeypatch.setattr(peers, "build_weights", lambda cache, model: None)
    monkeypatch.setattr(peers, "export_openvino", lambda *a: built.append("export"))

    def build_environment(cache: Path, name: str) -> None:
        built.append(name)
        if name == "transformers":
            raise OSError("no network")

    monkeypatch.setattr(peers, "build_environment", build_environment)
    assert peers.build(tmp_path, CUDA_SYSTEMS, None, here=True) == {}
    assert built == []
    assert peers.build(tmp_path, CUDA_SYSTEMS, None, here=False) == {"transformers": "no network"}
    assert built == ["transformers", "faster-whisper"]
    peers.build(tmp_path, SYSTEMS, None, here=False)
    assert built[-2:] == ["openvino-export", "export"]

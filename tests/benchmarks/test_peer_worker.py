import io
import threading
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import peer_worker, peers
from benchmarks.peer_engine import Samples, Threaded
from benchmarks.peer_table import CUDA_SYSTEMS, OURS, OURS_CUDA, SYSTEMS


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
    assert peer_worker.read_wav(str(tmp_path / "a.wav")).tolist() == [-1.0, 0.0, 0.5]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_compared_on_one(tmp_path: Path, capsys) -> None:
    assert peers.main([str(tmp_path), "--device", "cuda", "--output", str(tmp_path / "peers.json")]) == 2
    assert "no CUDA device here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_on_a_gpu_everybody_is_told_so_and_ours_comes_first() -> None:
    assert all(system.load["device"] == "cuda" for system in CUDA_SYSTEMS)
    assert (CUDA_SYSTEMS[0].name, SYSTEMS[0].name) == (OURS_CUDA, OURS)
    assert all(system.engine in peer_worker.ENGINES for system in (*SYSTEMS, *CUDA_SYSTEMS))

"""faster-whisper with its voice activity detector as a `System`: the one that invents least among those people use.

It runs in the environment that `python -m benchmarks.peers CORPUS --build` makes, on the same weights (converted), and
gets the same waveforms. It takes part in the passes that count invention and loss.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.systems import Samples
from benchmarks.peer.table import interpreter
from model.segments import Transcription

_ROOT = Path(__file__).parents[2]


class VadPeer:
    """A process of `benchmarks.accuracy.vad_worker`. Use as a context manager."""

    name = "faster-whisper"

    def __init__(self, python: Path, weights: Path, *, threads: int) -> None:
        """Start and load; RuntimeError where that fails."""
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.accuracy.vad_worker"],
            cwd=_ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.fingerprint = f"{self._exchange({'path': str(weights), 'threads': threads})['version']}/int8/vad"
        except BaseException:
            self.close()
            raise

    def transcribe(self, samples: Samples, *, language: str | None, task: str) -> Transcription:
        """See `System.transcribe`; text and language only."""
        path = Path(self._folder.name, "samples.npy")
        np.save(path, samples)
        answer = self._exchange({"path": str(path), "language": language})
        return Transcription(task, answer["language"], None, len(samples) / 16_000, answer["text"], ())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def __enter__(self) -> "VadPeer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError("faster-whisper's process ended; it said why above")
        reply: dict[str, Any] = json.loads(line)
        return reply


def find(cache: Path) -> tuple[Path, Path] | None:
    """Interpreter and weights in the peers' folder; None where they are not built."""
    python, weights = interpreter(cache, "faster-whisper"), cache / "weights" / "ctranslate2"
    return (python, weights) if python.exists() and weights.exists() else None

"""Transcriptions kept on disk: an evaluation that was cut off goes on, and the reference runs once per waveform.

One JSON object a line, appended as answers come, each in one write: two runs may share the file. The key covers
everything the answer depends on: the system's code and settings, the weights, the samples, language and task.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.systems import System
from model.segments import Segment, Skipped, Transcription


class Store:
    """Transcriptions by key, in a file that only grows."""

    def __init__(self, path: Path, *, weights: str) -> None:
        self._path = path
        self._weights = weights
        self._answers: dict[str, Transcription] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = path.read_bytes() if path.exists() else b""
        if kept and not kept.endswith(b"\n"):  # a run that was killed may have left half a line
            _append(path, b"\n")
        for line in kept.decode(errors="replace").split("\n"):
            with suppress(json.JSONDecodeError):
                entry = json.loads(line)
                self._answers[entry["key"]] = _from_json(entry["transcription"])

    def transcribe(
        self, system: System, samples: NDArray[np.float32], *, language: str | None, task: str
    ) -> Transcription:
        """The stored answer, or a new one that is stored before it is returned."""
        waveform = hashlib.sha256(samples.tobytes()).hexdigest()
        key = _key(system.name, system.fingerprint, self._weights, waveform, str(language), task)
        if key not in self._answers:
            answer = system.transcribe(samples, language=language, task=task)
            entry = {"key": key, "transcription": asdict(answer)}
            _append(self._path, json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            self._answers[key] = answer
        return self._answers[key]


def _append(path: Path, data: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(data)


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _from_json(fields: dict[str, Any]) -> Transcription:
    segments = tuple(Segment(**{**segment, "tokens": tuple(segment["tokens"])}) for segment in fields["segments"])
    warnings = tuple(Skipped(**skipped) for skipped in fields.get("warnings", ()))
    return Transcription(**{**fields, "segments": segments, "warnings": warnings})

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.store import Store
from model.segments import Segment, Transcription


@dataclass
class Counting:
    """A system that counts how often it is asked."""

    name: str = "counting"
    fingerprint: str = "1"
    calls: list[tuple[str | None, str]] = field(default_factory=list)

    def transcribe(self, samples: NDArray[np.float32], *, language: str | None, task: str) -> Transcription:
        self.calls.append((language, task))
        text = hashlib.sha256(samples.tobytes()).hexdigest()
        segment = Segment(0, 0, 0.0, 1.0, text, (50364, 1, 50414), 0.2, -0.1, 1.0, 0.5)
        return Transcription(task, language or "en", None, 1.0, text, (segment,), {"en": 0.9})


SAMPLES = np.linspace(-1, 1, 100, dtype=np.float32)


def test_an_answer_is_asked_for_once_and_survives_the_process(tmp_path: Path) -> None:
    system, path = Counting(), tmp_path / "results" / "answers.jsonl"
    first = Store(path, weights="w").transcribe(system, SAMPLES, language="en", task="transcribe")
    again = Store(path, weights="w").transcribe(system, SAMPLES, language="en", task="transcribe")
    assert first == again
    assert len(system.calls) == 1


def test_everything_the_answer_depends_on_is_part_of_the_key(tmp_path: Path) -> None:
    system, path = Counting(), tmp_path / "answers.jsonl"
    store = Store(path, weights="w")
    store.transcribe(system, SAMPLES, language="en", task="transcribe")
    store.transcribe(system, SAMPLES[:-1], language="en", task="transcribe")
    store.transcribe(system, SAMPLES, language=None, task="transcribe")
    store.transcribe(system, SAMPLES, language="en", task="translate")
    system.fingerprint = "2"
    store.transcribe(system, SAMPLES, language="en", task="transcribe")
    Store(path, weights="other").transcribe(system, SAMPLES, language="en", task="transcribe")
    assert len(system.calls) == 6


def test_half_a_line_left_by_a_killed_run_is_passed_over(tmp_path: Path) -> None:
    system, path = Counting(), tmp_path / "answers.jsonl"
    Store(path, weights="w").transcribe(system, SAMPLES, language="en", task="transcribe")
    with path.open("a") as file:
        file.write('{"key": "abc", "transcr')
    Store(path, weights="w").transcribe(system, SAMPLES, language="en", task="transcribe")
    assert len(system.calls) == 1


def test_what_comes_after_half_a_line_is_kept(tmp_path: Path) -> None:
    system, path = Counting(), tmp_path / "answers.jsonl"
    path.write_text('{"key": "abc", "transcr')
    for _ in range(2):
        Store(path, weights="w").transcribe(system, SAMPLES, language="en", task="transcribe")
    assert len(system.calls) == 1

"""A system that transcribes, behind one method, and ours.

All take (n,) float32 at 16 kHz and answer with our `Transcription`, so that nothing after this module knows which one
spoke; `benchmarks.accuracy.reference` and `benchmarks.accuracy.vad_peer` are the others. A fingerprint covers what a
system's answers depend on and nothing else: a change of ours leaves the others' answers as they are.
"""

import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

import model as ours
from benchmarks.accuracy.parity import Attempt
from model import window
from model.compute import choose_compute_type, choose_device
from model.decoding.row import Decoding
from model.segments import Transcription

Samples = NDArray[np.float32]
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"beam_size": 5, "best_of": 5},
    "samples": {"temperature": (0.6,), "best_of": 5},
}
"""Ways to look for a text, as options that ours and openai-whisper both know: its default in Python, the default of its
command line, and one rung of the ladder for itself."""


class System(Protocol):
    """Something that transcribes."""

    name: str
    fingerprint: str
    """Changes when the system's answers may: part of the cache key."""

    def transcribe(self, samples: Samples, *, language: str | None, task: str) -> Transcription:
        """The transcription of (n,) float32 samples at 16 kHz, greedy with the fallback ladder."""
        ...


class Ours:
    """The package under test; `attempts` holds the decodings of the last transcription."""

    name = "ours"

    def __init__(self, weights: str, *, device: str, compute_type: str, cross_kv: str = "auto", **options: Any) -> None:
        """`options`: those of `TranscribeOptions` that are not the defaults."""
        self._model = ours.load(weights, device=device, compute_type=compute_type, cross_kv=cross_kv)
        self._options = options
        self.compute_type = choose_compute_type(compute_type, choose_device(device))
        """What `auto` stands for here."""
        settings = (f"{name}={value}" for name, value in options.items())
        kept = () if cross_kv == "auto" else (f"cross_kv={cross_kv}",)
        self.fingerprint = "/".join((source_hash(), torch.__version__, device, self.compute_type, *kept, *settings))
        self.attempts: list[Attempt] = []
        self._model.batch.on_attempt = self._note

    def transcribe(self, samples: Samples, *, language: str | None, task: str) -> Transcription:
        """See `System.transcribe`."""
        self.attempts = []
        return self._model.transcribe(samples, language=language, task=task, **self._options)

    def decode_with_timestamps(self, tokens: list[int]) -> str:
        """Text of tokens with the timestamps shown, for people."""
        return self._model.tokenizer.decode_with_timestamps(tokens)

    def _note(self, decoding: Decoding, result: window.DecodingResult) -> None:
        self.attempts.append(attempt_of(decoding.window.index, result))


def attempt_of(index: int, result: window.DecodingResult) -> Attempt:
    """What parity wants of one decoding; the reference's results have the same fields."""
    return Attempt(
        window=index,
        temperature=result.temperature,
        tokens=tuple(result.tokens),
        avg_logprob=result.avg_logprob,
        compression_ratio=result.compression_ratio,
        no_speech_prob=result.no_speech_prob,
    )


def source_hash() -> str:
    """Of the package's code in Python and C."""
    digest = hashlib.sha256()
    for path in sorted(Path(ours.__file__).parent.rglob("*")):
        if path.suffix in (".py", ".c", ".h"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]

"""Engines over the random model, requests for them, and what they answer."""

from typing import Any

import pytest
import torch

from model.options import TranscribeOptions
from model.segments import Segment, Transcription
from model.transcriber import Transcriber
from service.wire.messages import Finished, Message, SegmentsReady, Transcribe
from service.worker.engine import Engine
from tests import tiny

GREEDY: dict[str, Any] = {
    "language": "en",
    "temperature": (0.0,),
    "sample_len": 6,
    "no_speech_threshold": None,
    "guards": False,
}
"""What a test asks for: every window is decoded once, and briefly."""


def make_engine(model: Transcriber, rows: int = 4, together: int = 1) -> Engine:
    return Engine(model, max_rows=rows, windows_per_encode=together)


def request_of(name: str, seconds: float, deadline: float | None = None, **options: Any) -> Transcribe:
    return Transcribe(name, "float32", round(seconds * 16_000), TranscribeOptions(**GREEDY | options), deadline)


def alone(model: Transcriber, seconds: float, seed: int = 0, **options: Any) -> Transcription:
    """What the library makes of the recording of such a request."""
    return model.transcribe(tiny.speech(seconds, seed), **GREEDY | options)


def submit(engine: Engine, request: Transcribe, seed: int = 0, now: float = 0.0) -> list[Message]:
    return engine.submit(request, tiny.speech(request.n_samples / 16_000, seed), now)


def run(engine: Engine, steps: int = 10_000) -> list[Message]:
    messages: list[Message] = []
    while engine.busy and steps:
        messages += engine.iterate(1.0)
        steps -= 1
    assert not engine.busy
    assert engine.batch.free_windows == engine.batch.max_rows
    return messages


def answer_of(messages: list[Message], name: str) -> tuple[tuple[Segment, ...], Finished]:
    ours = [m for m in messages if getattr(m, "request_id", None) == name]
    segments = [s for m in ours if isinstance(m, SegmentsReady) for s in m.segments]
    assert isinstance(ours[-1], Finished)
    return tuple(segments), ours[-1]


EXHAUSTED = torch.OutOfMemoryError("CUDA out of memory")


def starve(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, name: str, windows: int, error: Exception = EXHAUSTED
) -> None:
    """Let `engine.batch`'s method `name` run out of memory wherever more than `windows` windows are in the batch."""
    method = getattr(engine.batch, name)

    def starved(*arguments):
        if len(engine.seats) + (len(arguments[0]) if name == "encode" else 0) > windows:
            raise error
        return method(*arguments)

    monkeypatch.setattr(engine.batch, name, starved)

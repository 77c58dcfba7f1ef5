"""R32 with the real model: 30 mixed requests in random order of arrival, some cancelled, each as if it were alone."""

import random
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from model.loading import load
from model.samples import read_samples
from model.transcriber import Transcriber
from service.wire.messages import Failed, Finished, Message, SegmentsReady, Transcribe
from service.worker.engine import Engine

pytestmark = [pytest.mark.fault, pytest.mark.weights]
MIXED: list[tuple[str, dict[str, Any]]] = [
    ("en-stereo.flac", {"language": "en", "temperature": 0.0}),
    ("en-stereo.flac", {"language": "de", "temperature": (0.8,), "seed": 4}),
    ("en-video.mp4", {"temperature": (0.0, 0.4), "logprob_threshold": -0.01}),
    ("nl-teleurstelling.webm", {"task": "translate", "temperature": 0.0}),
    ("nl-teleurstelling.webm", {"language": "nl", "temperature": (0.3,), "initial_prompt": "Goedemorgen, dames."}),
    ("zh-guangzhou.flac", {"temperature": 0.0, "without_timestamps": True}),
    ("zh-guangzhou.flac", {"language": "zh", "temperature": (1.0,), "best_of": 2, "seed": 1}),
    ("ko-geotda.flac", {"language": "ko", "task": "translate", "temperature": 0.0, "beam_size": 2}),
    ("ko-geotda.flac", {"temperature": 0.0, "suppress_tokens": ()}),
    ("en-video.mp4", {"language": "en", "temperature": 0.0, "word_timestamps": True}),
]
SHORT = {"sample_len": 16, "no_speech_threshold": None, "guards": False}
CANCELLED = 6


def _request(system: Transcriber, name: str, options: dict[str, Any], samples: Tensor) -> Transcribe:
    return Transcribe(name, "float32", len(samples), system.options(**SHORT, **options), None)


@pytest.fixture(params=["float32", "int8"])
def system(request: pytest.FixtureRequest, base: Transcriber) -> Transcriber:
    return base if request.param == "float32" else load("base", "cpu", "int8")


@pytest.fixture
def heard_once(system: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder hears one window at a time, alone and in company: let it hear each only once."""
    encode, heard = system.model.encoder.forward, dict[tuple[bytes, str], Tensor]()

    def remembered(mel: Tensor, *n_frames: object) -> Tensor:
        assert len(mel) == 1
        key = mel.numpy().tobytes(), str(n_frames)
        if key not in heard:
            heard[key] = encode(mel, *n_frames)
        return heard[key].clone()

    monkeypatch.setattr(system.model.encoder, "forward", remembered)


@pytest.mark.usefixtures("heard_once")
def test_r32_thirty_requests_get_what_each_gets_alone(system: Transcriber, clips: Path) -> None:
    sounds = {clip: read_samples(clips / clip) for clip, _ in MIXED}
    alone = [system.transcribe(sounds[clip], **SHORT, **options) for clip, options in MIXED]
    assert len({one.text for one in alone}) >= 8  # hardly one could pass for another
    draw = random.Random(32)
    order = [number % len(MIXED) for number in range(30)]
    draw.shuffle(order)
    cancelled = set(draw.sample(range(30), CANCELLED))
    engine, messages = Engine(system, max_rows=8, windows_per_encode=1), []
    doomed: list[str] = []
    for place, number in enumerate(order):
        clip, options = MIXED[number]
        assert engine.submit(_request(system, f"r{place}", options, sounds[clip]), sounds[clip], 0.0) == []
        if place in cancelled:
            doomed.append(f"r{place}")
        for _ in range(draw.randrange(8)):
            messages += engine.iterate(0.0)
        if doomed and draw.random() < 0.4:
            engine.cancel(doomed.pop(0))
    for name in doomed:
        engine.cancel(name)
    while engine.busy:
        messages += engine.iterate(0.0)
    assert max(engine.batch.steps) >= 5
    assert not [message for message in messages if isinstance(message, Failed)]
    finished = _finished(messages)
    assert len(finished) >= 30 - CANCELLED
    for name, (text, segments) in finished.items():
        one = alone[order[int(name[1:])]]
        assert text == one.text
        assert segments == [(s.text, s.tokens, s.start, s.end, s.temperature) for s in one.segments]


def _finished(messages: list[Message]) -> dict[str, tuple[str, list[Any]]]:
    """Text and segments of those who got to their end."""
    segments: dict[str, list[Any]] = {}
    for message in messages:
        if isinstance(message, SegmentsReady):
            segments.setdefault(message.request_id, []).extend(
                (s.text, s.tokens, s.start, s.end, s.temperature) for s in message.segments
            )
    ends = [message for message in messages if isinstance(message, Finished)]
    return {end.request_id: (end.text, segments.get(end.request_id, [])) for end in ends}

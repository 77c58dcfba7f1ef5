"""R25: a model that never ends stops at the token cap and at the end of the ladder, or at its deadline."""

import pytest

from model.options import TEMPERATURES, TranscribeOptions
from service.wire.messages import Failed, Finished, SegmentsReady, Transcribe
from service.worker.engine import Engine
from tests import tiny

pytestmark = pytest.mark.fault

SECONDS = 3.0


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny.transcriber(), max_rows=2, windows_per_encode=1)


def _endless(name: str, engine: Engine, deadline: float | None) -> Transcribe:
    options = TranscribeOptions(
        language="en",
        suppress_tokens=(engine.batch.tokenizer.eot,),
        without_timestamps=True,
        no_speech_threshold=None,
        guards=False,
    )
    return Transcribe(name, "float32", int(SECONDS * 16_000), options, deadline)


def test_it_stops_at_the_token_cap_on_the_last_rung(engine) -> None:
    engine.submit(_endless("endless", engine, None), tiny.speech(SECONDS), 0.0)
    messages = []
    while engine.busy:
        messages += engine.iterate(0.0)
    (ready,) = [m for m in messages if isinstance(m, SegmentsReady)]
    (segment,) = ready.segments
    assert (len(segment.tokens), segment.temperature) == (224, TEMPERATURES[-1])
    assert engine.batch.fallbacks.total() == len(TEMPERATURES) - 1
    # The first token of a rung comes with the rung itself, not with a step.
    assert engine.batch.steps.total() == 223 * len(TEMPERATURES)
    assert isinstance(messages[-1], Finished)


def test_it_stops_at_its_deadline_within_a_step_and_frees_its_row(engine) -> None:
    engine.submit(_endless("endless", engine, 10.0), tiny.speech(SECONDS), 0.0)
    for _ in range(20):
        assert not [m for m in engine.iterate(9.9) if isinstance(m, Failed)]
    (failed,) = engine.iterate(10.0)
    assert isinstance(failed, Failed)
    assert failed.code == "deadline_exceeded"
    assert (engine.busy, engine.batch.active_rows, engine.batch.free_windows) == (False, 0, 2)

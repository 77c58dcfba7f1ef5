"""Several windows of one request in the batch: order, fairness, and everything that may happen to it meanwhile."""

from typing import Any

import pytest
import torch

from model.options import TranscribeOptions
from model.segments import Skipped
from model.transcriber import Transcriber
from service.wire.messages import Failed, Finished, LanguageDetected, Message, SegmentsReady, Transcribe
from tests import tiny
from tests.engines import alone, answer_of, make_engine, request_of, run, starve, submit

BATCHED: dict[str, Any] = {"long_form": "batched", "sample_len": 30}


@pytest.fixture(scope="module")
def model() -> Transcriber:
    return tiny.transcriber()


def test_the_parts_of_a_long_file_are_decoded_together_and_come_out_in_order(model) -> None:
    engine = make_engine(model, rows=8)
    submit(engine, request_of("long", 170.0, **BATCHED), seed=3)
    submit(engine, request_of("other", 3.0, **BATCHED), seed=4)
    messages = run(engine)
    assert max(engine.batch.steps) > 3
    for name, seconds, seed in (("long", 170.0, 3), ("other", 3.0, 4)):
        expected = alone(model, seconds, seed, **BATCHED)
        segments, finished = answer_of(messages, name)
        assert [(s.id, s.start, s.end, s.tokens) for s in segments] == [
            (s.id, s.start, s.end, s.tokens) for s in expected.segments
        ]
        assert finished.text == expected.text


def test_a_short_request_joins_a_long_file_at_once(model) -> None:
    engine = make_engine(model, rows=4)
    submit(engine, request_of("long", 400.0, long_form="batched", sample_len=40))
    while engine.batch.active_rows < 3:
        engine.iterate(0.0)
    encodes = engine.stats.encodes
    submit(engine, request_of("short", 2.0, sample_len=20))
    messages: list[Message] = []
    while not any(isinstance(m, Finished) and m.request_id == "short" for m in messages):
        messages += engine.iterate(0.0)
    assert engine.stats.encodes <= encodes + 2
    assert engine.batch.active_rows <= 3
    assert {m.request_id for m in run(engine) if isinstance(m, Finished)} == {"long"}


def test_all_parts_have_the_language_of_the_first(model) -> None:
    engine = make_engine(model)
    submit(engine, request_of("long", 130.0, language=None, **BATCHED))
    messages = run(engine)
    (detected,) = [m for m in messages if isinstance(m, LanguageDetected)]
    assert len(detected.probabilities) == 99
    assert next(m for m in messages if isinstance(m, Finished)).language == detected.language
    assert messages.index(detected) < min(i for i, m in enumerate(messages) if isinstance(m, SegmentsReady))


@pytest.mark.parametrize("when", ["cancelled", "late"])
def test_a_long_file_that_is_dropped_leaves_no_part_behind(model, when) -> None:
    engine = make_engine(model)
    submit(engine, request_of("long", 300.0, deadline=5.0 if when == "late" else None, **BATCHED))
    while engine.batch.active_rows < 2:
        engine.iterate(0.0)
    submit(engine, request_of("calm", 40.0, sample_len=100))
    for _ in range(20):
        engine.iterate(0.0)
    assert engine.batch.active_rows > 1
    if when == "late":
        failed = [m for m in engine.iterate(6.0) if isinstance(m, Failed)]
        assert [(m.request_id, m.code) for m in failed] == [("long", "deadline_exceeded")]
    else:
        engine.cancel("long")
    assert engine.batch.active_rows <= 1
    assert {m.request_id for m in run(engine) if isinstance(m, Finished)} == {"calm"}


def test_r29_a_part_whose_step_raises_ends_its_file_only(model, monkeypatch) -> None:
    engine = make_engine(model, rows=8)
    for name in ("bad", "good"):
        submit(engine, request_of(name, 100.0, **BATCHED), seed=ord(name[0]))
    step = engine.batch.step

    def failing():
        if any(job.request_id == "bad" and lane == 1 for job in engine._jobs.values() for lane in job.lanes.values()):
            raise IndexError("bad index")
        return step()

    monkeypatch.setattr(engine.batch, "step", failing)
    messages = run(engine)
    assert [m.request_id for m in messages if isinstance(m, Failed)] == ["bad"]
    segments, _ = answer_of(messages, "good")
    assert [s.tokens for s in segments] == [s.tokens for s in alone(model, 100.0, ord("g"), **BATCHED).segments]


@pytest.mark.parametrize("name", ["encode", "step"])
def test_memory_that_runs_out_under_a_long_file_costs_it_nothing(model, monkeypatch, name) -> None:
    engine = make_engine(model, rows=8)
    starve(engine, monkeypatch, name, 2)
    submit(engine, request_of("long", 160.0, **BATCHED), seed=5)
    segments, _ = answer_of(run(engine), "long")
    assert engine.recovery.room.shrinks
    assert [s.tokens for s in segments] == [s.tokens for s in alone(model, 160.0, 5, **BATCHED).segments]


def test_a_file_without_speech_is_answered_with_what_was_skipped(model) -> None:
    engine = make_engine(model)
    silence = torch.zeros(50 * 16_000, dtype=torch.int16)
    engine.submit(
        Transcribe("a", "int16", len(silence), TranscribeOptions(language="en", vad=True), None), silence, 0.0
    )
    (finished,) = run(engine)
    assert isinstance(finished, Finished)
    assert (finished.text, finished.warnings) == ("", (Skipped("vad", 0.0, 50.0),))
    assert (engine.stats.encodes, engine.stats.guards) == (0, {"vad": 1})


def test_hearing_speech_stalls_no_row(model, monkeypatch) -> None:
    engine = make_engine(model)
    submit(engine, request_of("row", 200.0, sample_len=60))
    engine.iterate(0.0)
    hour = torch.zeros(600 * 16_000, dtype=torch.int16)
    engine.submit(Transcribe("long", "int16", len(hour), TranscribeOptions(vad=True), None), hour, 0.0)
    turns = 0
    while any(job.request_id == "long" for job in engine._listening):
        heard, steps = engine.stats.heard, engine.batch.steps.total()
        engine.iterate(0.0)
        turns += 1
        assert engine.stats.heard - heard <= 8
        assert engine.batch.steps.total() == steps + 1
    assert turns > 10
    engine.cancel("row")
    run(engine)

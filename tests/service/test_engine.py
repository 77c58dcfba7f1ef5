from typing import Any

import pytest
import torch

from model.options import TranscribeOptions
from model.segments import Segment, Skipped
from model.transcriber import Transcriber
from service.engine import Engine
from service.messages import DetectLanguage, Failed, Finished, LanguageDetected, Message, SegmentsReady, Transcribe
from tests import tiny


@pytest.fixture(scope="module")
def model() -> Transcriber:
    return tiny.transcriber()


def _engine(model: Transcriber, rows: int = 4) -> Engine:
    return Engine(model, max_rows=rows, windows_per_encode=1)


def _request(name: str, seconds: float, deadline: float | None = None, **options: Any) -> Transcribe:
    values = {"language": "en", "temperature": (0.0,), "sample_len": 6, "no_speech_threshold": None} | options
    return Transcribe(name, "float32", int(seconds * 16_000), TranscribeOptions(**values), deadline)


def _submit(engine: Engine, request: Transcribe, seed: int = 0, now: float = 0.0) -> list[Message]:
    return engine.submit(request, tiny.speech(request.n_samples / 16_000, seed), now)


def _run(engine: Engine, steps: int = 10_000) -> list[Message]:
    messages: list[Message] = []
    while engine.busy and steps:
        messages += engine.iterate(1.0)
        steps -= 1
    assert not engine.busy
    assert engine.batch.free_windows == engine.batch.max_rows
    return messages


def _of(messages: list[Message], name: str) -> tuple[tuple[Segment, ...], Finished]:
    ours = [m for m in messages if getattr(m, "request_id", None) == name]
    segments = [s for m in ours if isinstance(m, SegmentsReady) for s in m.segments]
    assert isinstance(ours[-1], Finished)
    return tuple(segments), ours[-1]


def test_requests_share_steps_and_each_gets_what_the_library_gives(model) -> None:
    engine = _engine(model)
    sizes = {"a": 3.0, "b": 65.0, "c": 31.0, "d": 8.0, "e": 1.0, "f": 40.0}
    for seed, (name, seconds) in enumerate(sizes.items()):
        assert _submit(engine, _request(name, seconds), seed) == []
    messages = _run(engine)
    assert max(engine.batch.steps) > 1
    for seed, (name, seconds) in enumerate(sizes.items()):
        alone = model.transcribe(
            tiny.speech(seconds, seed), language="en", temperature=0.0, sample_len=6, no_speech_threshold=None
        )
        segments, finished = _of(messages, name)
        assert [s.tokens for s in segments] == [s.tokens for s in alone.segments]
        assert [(s.id, s.start, s.end) for s in segments] == [(s.id, s.start, s.end) for s in alone.segments]
        assert (finished.text, finished.language) == (alone.text, "en")
    assert engine.stats.audio_seconds == pytest.approx(sum(sizes.values()))


def test_a_short_request_behind_a_long_one_ends_first(model) -> None:
    engine = _engine(model, rows=1)
    _submit(engine, _request("long", 200.0))
    engine.iterate(0.0)
    _submit(engine, _request("short", 2.0))
    ends = [m.request_id for m in _run(engine) if isinstance(m, Finished)]
    assert ends == ["short", "long"]


def test_language_is_detected_for_both_kinds_of_request(model) -> None:
    engine = _engine(model)
    samples = tiny.speech(4.0)
    engine.submit(DetectLanguage("which", "float32", len(samples), None), samples, 0.0)
    _submit(engine, _request("what", 4.0, language=None))
    messages = _run(engine)
    detected = [m for m in messages if isinstance(m, LanguageDetected)]
    assert {m.request_id for m in detected} == {"which", "what"}
    assert detected[0].probabilities == pytest.approx(detected[1].probabilities, abs=1e-5)
    assert next(iter(model.detect_language(samples))) == detected[0].language
    assert len(detected[0].probabilities) == 99


def test_a_cancelled_request_leaves_nothing_behind(model) -> None:
    engine = _engine(model)
    for name in ("a", "b", "waiting"):
        _submit(engine, _request(name, 70.0))
    for _ in range(3):
        engine.iterate(0.0)
    for name in ("a", "waiting", "unknown"):
        engine.cancel(name)
    messages = _run(engine)
    assert {m.request_id for m in messages if isinstance(m, Finished)} == {"b"}


def test_a_late_request_fails_wherever_it_is(model) -> None:
    engine = _engine(model, rows=1)
    _submit(engine, _request("running", 70.0, deadline=5.0))
    _submit(engine, _request("queued", 70.0, deadline=5.0))
    _submit(engine, _request("calm", 2.0))
    engine.iterate(1.0)
    failed = [m for m in engine.iterate(5.0) if isinstance(m, Failed)]
    assert [(m.request_id, m.code) for m in failed] == [
        ("running", "deadline_exceeded"),
        ("queued", "deadline_exceeded"),
    ]
    assert {m.request_id for m in _run(engine) if isinstance(m, Finished)} == {"calm"}


@pytest.mark.parametrize("options", [{"language": "yue"}, {"language": "klingon"}])
def test_what_the_model_cannot_do_is_refused_at_once(model, options) -> None:
    engine = _engine(model)
    (answer,) = _submit(engine, _request("a", 2.0, **options))
    assert isinstance(answer, Failed)
    assert answer.code == "invalid_value"
    assert not engine.busy


def test_r29_a_window_that_cannot_start_fails_alone(model, monkeypatch) -> None:
    engine = _engine(model)
    for name in ("a", "bad", "c"):
        _submit(engine, _request(name, 3.0))
    start = engine.batch.start

    def failing(slot, window, options):
        if engine._by_slot[slot].request_id == "bad":
            raise MemoryError("no room for 'secret words'")
        start(slot, window, options)

    monkeypatch.setattr(engine.batch, "start", failing)
    messages = _run(engine)
    (failed,) = [m for m in messages if isinstance(m, Failed)]
    assert (failed.request_id, failed.code) == ("bad", "internal_error")
    assert "MemoryError" in failed.message
    assert "secret" not in failed.message
    assert {m.request_id for m in messages if isinstance(m, Finished)} == {"a", "c"}


def test_r29_a_step_that_raises_ends_the_guilty_row_only(model, monkeypatch) -> None:
    engine = _engine(model)
    for name in ("a", "b", "bad", "c"):
        _submit(engine, _request(name, 40.0, sample_len=12), seed=ord(name[0]))
    step = engine.batch.step

    def failing():
        if any(job.request_id == "bad" for job in engine._by_slot.values()):
            raise IndexError("bad index")
        return step()

    monkeypatch.setattr(engine.batch, "step", failing)
    messages = _run(engine)
    failed = [m.request_id for m in messages if isinstance(m, Failed)]
    assert failed == ["bad"]
    for name in ("a", "b", "c"):
        segments, _ = _of(messages, name)
        alone = model.transcribe(
            tiny.speech(40.0, ord(name)), language="en", temperature=0.0, sample_len=12, no_speech_threshold=None
        )
        assert [s.tokens for s in segments] == [s.tokens for s in alone.segments]


def test_a_long_recording_stalls_nobody_while_it_is_heard(model, monkeypatch) -> None:
    engine = _engine(model)
    _submit(engine, _request("row", 200.0, sample_len=60, temperature=(0.0,)))
    engine.iterate(0.0)
    heard: list[int] = []
    loudest = model.log_mel.loudest

    def counted(samples, seek, n_frames):
        heard[-1] += 1
        return loudest(samples, seek, n_frames)

    monkeypatch.setattr(model.log_mel, "loudest", counted)
    hour = torch.zeros(3600 * 16_000, dtype=torch.int16)
    engine.submit(Transcribe("long", "int16", len(hour), TranscribeOptions(language="en"), None), hour, 0.0)
    short = _request("short", 1.0)
    _submit(engine, short)
    ends = []
    while sum(heard) < 121:
        heard.append(0)
        before = engine.batch.steps.total()
        ends += [m.request_id for m in engine.iterate(0.0) if isinstance(m, Finished)]
        assert engine.batch.steps.total() == before + 1
    assert max(heard) == 8
    assert ends[0] == "short"
    engine.cancel("long")


def test_a_recording_is_forgotten_while_it_is_heard(model) -> None:
    engine = _engine(model)
    for name in ("late", "cancelled"):
        _submit(engine, _request(name, 300.0, deadline=5.0 if name == "late" else None))
    engine.iterate(0.0)
    assert (engine.stats.encodes, engine.waiting_windows) == (0, 2)
    engine.cancel("cancelled")
    (failed,) = engine.iterate(6.0)
    assert isinstance(failed, Failed)
    assert (failed.request_id, failed.code, engine.busy, engine.waiting_windows) == (
        "late",
        "deadline_exceeded",
        False,
        0,
    )


def _starved(engine: Engine, monkeypatch: pytest.MonkeyPatch, name: str, windows: int) -> None:
    """Let `engine.batch`'s method `name` run out of memory wherever more than `windows` windows are in the batch."""
    method = getattr(engine.batch, name)

    def starved(*arguments):
        if len(engine._by_slot) + (name == "encode") > windows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return method(*arguments)

    monkeypatch.setattr(engine.batch, name, starved)


@pytest.mark.parametrize("name", ["encode", "step"])
def test_out_of_memory_shrinks_the_batch_and_fails_nobody(model, monkeypatch, name) -> None:
    engine = _engine(model)
    _starved(engine, monkeypatch, name, 2)
    names = "abcde"
    for letter in names:
        _submit(engine, _request(letter, 20.0, sample_len=30), seed=ord(letter))
    messages = _run(engine)
    assert not [m for m in messages if isinstance(m, Failed)]
    assert 1 <= engine.room.shrinks <= 4
    assert max(engine.batch.steps) == 2
    for letter in names:
        segments, _ = _of(messages, letter)
        alone = model.transcribe(
            tiny.speech(20.0, ord(letter)), language="en", temperature=0.0, sample_len=30, no_speech_threshold=None
        )
        assert [s.tokens for s in segments] == [s.tokens for s in alone.segments]


@pytest.mark.parametrize("name", ["encode", "step"])
def test_a_window_that_does_not_fit_alone_fails(model, monkeypatch, name) -> None:
    engine = _engine(model)
    with monkeypatch.context() as starving:
        _starved(engine, starving, name, 0)
        for letter in "ab":
            _submit(engine, _request(letter, 2.0))
        failed = [m for m in _run(engine) if isinstance(m, Failed)]
        assert {m.request_id for m in failed} == {"a", "b"}
        assert all("OutOfMemoryError" in m.message for m in failed)
    _submit(engine, _request("later", 2.0))
    _of(_run(engine), "later")


def test_beams_and_samples_share_the_batch_and_change_nobody(model) -> None:
    asked: dict[str, dict[str, Any]] = {
        "beams": {"beam_size": 3},
        "greedy": {},
        "samples": {"temperature": (0.7,), "best_of": 4},
        "ladder": {"temperature": (0.0, 0.8), "beam_size": 2, "best_of": 3},
    }
    engine = _engine(model)
    for seed, (name, options) in enumerate(asked.items()):
        assert _submit(engine, _request(name, 4.0, **options), seed) == []
    messages = _run(engine)
    for seed, (name, options) in enumerate(asked.items()):
        common = {"language": "en", "temperature": 0.0, "sample_len": 6, "no_speech_threshold": None}
        alone = model.transcribe(tiny.speech(4.0, seed), **(common | options))
        assert _of(messages, name)[1].text == alone.text
    assert engine.batch.free_rows == 4


def test_more_rows_than_there_are_is_a_refusal_that_names_the_option(model) -> None:
    engine = _engine(model)
    (refused,) = _submit(engine, _request("r", 1.0, beam_size=5))
    assert isinstance(refused, Failed)
    assert refused.code == "invalid_value"
    assert "beam_size is 5" in refused.message
    assert not engine.busy


BATCHED = {"long_form": "batched", "sample_len": 30}


def test_the_parts_of_a_long_file_are_decoded_together_and_come_out_in_order(model) -> None:
    engine = _engine(model, rows=8)
    _submit(engine, _request("long", 170.0, **BATCHED), seed=3)
    _submit(engine, _request("other", 3.0, **BATCHED), seed=4)
    messages = _run(engine)
    assert max(engine.batch.steps) > 3
    for name, seconds, seed in (("long", 170.0, 3), ("other", 3.0, 4)):
        alone = model.transcribe(
            tiny.speech(seconds, seed), language="en", temperature=0.0, no_speech_threshold=None, **BATCHED
        )
        segments, finished = _of(messages, name)
        assert [(s.id, s.start, s.end, s.tokens) for s in segments] == [
            (s.id, s.start, s.end, s.tokens) for s in alone.segments
        ]
        assert finished.text == alone.text


def test_a_short_request_joins_a_long_file_at_once(model) -> None:
    engine = _engine(model, rows=4)
    _submit(engine, _request("long", 400.0, long_form="batched", sample_len=40))
    while engine.batch.active_rows < 3:
        engine.iterate(0.0)
    encodes = engine.stats.encodes
    _submit(engine, _request("short", 2.0, sample_len=20))
    messages: list[Message] = []
    while not any(isinstance(m, Finished) and m.request_id == "short" for m in messages):
        messages += engine.iterate(0.0)
    assert engine.stats.encodes <= encodes + 2
    assert engine.batch.active_rows <= 3
    assert {m.request_id for m in _run(engine) if isinstance(m, Finished)} == {"long"}


def test_all_parts_have_the_language_of_the_first(model) -> None:
    engine = _engine(model)
    _submit(engine, _request("long", 130.0, language=None, **BATCHED))
    messages = _run(engine)
    (detected,) = [m for m in messages if isinstance(m, LanguageDetected)]
    assert len(detected.probabilities) == 99
    assert next(m for m in messages if isinstance(m, Finished)).language == detected.language
    assert messages.index(detected) < min(i for i, m in enumerate(messages) if isinstance(m, SegmentsReady))


@pytest.mark.parametrize("when", ["cancelled", "late"])
def test_a_long_file_that_is_dropped_leaves_no_part_behind(model, when) -> None:
    engine = _engine(model)
    _submit(engine, _request("long", 300.0, deadline=5.0 if when == "late" else None, **BATCHED))
    while engine.batch.active_rows < 2:
        engine.iterate(0.0)
    _submit(engine, _request("calm", 40.0, sample_len=100))
    for _ in range(20):
        engine.iterate(0.0)
    assert engine.batch.active_rows > 1
    if when == "late":
        failed = [m for m in engine.iterate(6.0) if isinstance(m, Failed)]
        assert [(m.request_id, m.code) for m in failed] == [("long", "deadline_exceeded")]
    else:
        engine.cancel("long")
    assert engine.batch.active_rows <= 1
    assert {m.request_id for m in _run(engine) if isinstance(m, Finished)} == {"calm"}


def test_r29_a_part_whose_step_raises_ends_its_file_only(model, monkeypatch) -> None:
    engine = _engine(model, rows=8)
    for name in ("bad", "good"):
        _submit(engine, _request(name, 100.0, **BATCHED), seed=ord(name[0]))
    step = engine.batch.step

    def failing():
        if any(job.request_id == "bad" and lane == 1 for job in engine._jobs.values() for lane in job.lanes.values()):
            raise IndexError("bad index")
        return step()

    monkeypatch.setattr(engine.batch, "step", failing)
    messages = _run(engine)
    assert [m.request_id for m in messages if isinstance(m, Failed)] == ["bad"]
    segments, _ = _of(messages, "good")
    alone = model.transcribe(
        tiny.speech(100.0, ord("g")), language="en", temperature=0.0, no_speech_threshold=None, **BATCHED
    )
    assert [s.tokens for s in segments] == [s.tokens for s in alone.segments]


@pytest.mark.parametrize("name", ["encode", "step"])
def test_memory_that_runs_out_under_a_long_file_costs_it_nothing(model, monkeypatch, name) -> None:
    engine = _engine(model, rows=8)
    _starved(engine, monkeypatch, name, 2)
    _submit(engine, _request("long", 160.0, **BATCHED), seed=5)
    segments, _ = _of(_run(engine), "long")
    assert engine.room.shrinks
    alone = model.transcribe(tiny.speech(160.0, 5), language="en", temperature=0.0, no_speech_threshold=None, **BATCHED)
    assert [s.tokens for s in segments] == [s.tokens for s in alone.segments]


def test_a_file_without_speech_is_answered_with_what_was_skipped(model) -> None:
    engine = _engine(model)
    silence = torch.zeros(50 * 16_000, dtype=torch.int16)
    engine.submit(
        Transcribe("a", "int16", len(silence), TranscribeOptions(language="en", vad=True), None), silence, 0.0
    )
    (finished,) = _run(engine)
    assert isinstance(finished, Finished)
    assert (finished.text, finished.warnings) == ("", (Skipped("vad", 0.0, 50.0),))
    assert (engine.stats.encodes, engine.stats.guards) == (0, {"vad": 1})


def test_hearing_speech_stalls_no_row(model, monkeypatch) -> None:
    engine = _engine(model)
    _submit(engine, _request("row", 200.0, sample_len=60))
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
    _run(engine)

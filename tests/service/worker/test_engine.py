import itertools
from typing import Any

import pytest
import torch

from model.options import TranscribeOptions
from model.transcriber import Transcriber
from service.wire.messages import (
    DetectLanguage,
    Failed,
    Finished,
    LanguageDetected,
    Started,
    Transcribe,
    decode,
    encode,
)
from service.worker.job import Job
from service.worker.stats import StageClock
from tests import tiny
from tests.engines import alone, answer_of, make_engine, request_of, run, submit
from tests.graphs import Again, capture_steps, choose_on_device


@pytest.fixture(scope="module")
def model() -> Transcriber:
    return tiny.transcriber()


TOGETHER = pytest.mark.parametrize("together", [1, 3])


@TOGETHER
def test_requests_share_steps_and_each_gets_what_the_library_gives(model, together) -> None:
    engine = make_engine(model, together=together)
    sizes = {"a": 3.0, "b": 65.0, "c": 31.0, "d": 8.0, "e": 1.0, "f": 40.0}
    for seed, (name, seconds) in enumerate(sizes.items()):
        assert submit(engine, request_of(name, seconds), seed) == []
    messages = run(engine)
    assert max(engine.batch.steps) > 1
    for seed, (name, seconds) in enumerate(sizes.items()):
        expected = alone(model, seconds, seed)
        segments, finished = answer_of(messages, name)
        assert [s.tokens for s in segments] == [s.tokens for s in expected.segments]
        assert [(s.id, s.start, s.end) for s in segments] == [(s.id, s.start, s.end) for s in expected.segments]
        assert (finished.text, finished.language) == (expected.text, "en")
    assert engine.stats.audio_seconds == pytest.approx(sum(sizes.values()))


def test_time_is_told_by_what_it_was_spent_on(model, monkeypatch) -> None:
    engine, now = make_engine(model), [0.0]
    engine.stats.clock = StageClock(lambda: now[0])

    def at_a_cost(method, cost):
        def done(*given):
            now[0] += cost
            return method(*given)

        return done

    monkeypatch.setattr(Job, "listen", at_a_cost(Job.listen, 100.0))
    monkeypatch.setattr(engine.batch, "encode", at_a_cost(engine.batch.encode, 10.0))
    monkeypatch.setattr(engine.batch, "step", at_a_cost(engine.batch.step, 1.0))
    submit(engine, request_of("a", 65.0))
    turns = 0
    while engine.busy:
        engine.iterate(1.0)
        now[0] += 1000.0  # what lies between turns is nobody's
        turns += 1
    assert engine.stats.encodes > 2
    spent = {"hear": 100.0 * engine.stats.heard, "encode": 10.0 * engine.stats.encodes, "decode": 1.0 * turns}
    assert engine.stats.clock.seconds == spent


def test_words_cross_the_pipe_and_only_those_asked_for(model) -> None:
    engine = make_engine(model)
    submit(engine, request_of("words", 12.0, word_timestamps=True, sample_len=20))
    submit(engine, request_of("none", 12.0, sample_len=20))
    messages = run(engine)
    expected = alone(model, 12.0, sample_len=20, word_timestamps=True)
    segments, _ = answer_of(messages, "words")
    assert [[(w.word, w.start, w.end) for w in s.words] for s in segments] == [
        [(w.word, w.start, w.end) for w in s.words] for s in expected.segments
    ]
    assert any(segment.words for segment in segments)
    assert all(segment.words is None for segment in answer_of(messages, "none")[0])
    for message in messages:
        assert decode(encode(message)) == message


def test_a_short_request_behind_a_long_one_ends_first(model) -> None:
    engine = make_engine(model, rows=1)
    submit(engine, request_of("long", 200.0))
    engine.iterate(0.0)
    submit(engine, request_of("short", 2.0))
    ends = [m.request_id for m in run(engine) if isinstance(m, Finished)]
    assert ends == ["short", "long"]


@TOGETHER
def test_language_is_detected_for_both_kinds_of_request(model, together) -> None:
    engine = make_engine(model, together=together)
    samples = tiny.speech(4.0)
    engine.submit(DetectLanguage("which", "float32", len(samples), None), samples, 0.0)
    submit(engine, request_of("what", 4.0, language=None))
    messages = run(engine)
    detected = [m for m in messages if isinstance(m, LanguageDetected)]
    assert {m.request_id for m in detected} == {"which", "what"}
    assert detected[0].probabilities == pytest.approx(detected[1].probabilities, abs=1e-5)
    assert next(iter(model.detect_language(samples))) == detected[0].language
    assert len(detected[0].probabilities) == 99


def test_a_request_says_once_when_its_first_window_is_taken_up(model) -> None:
    engine = make_engine(model, rows=1)
    submit(engine, request_of("first", 65.0), now=1.0)
    submit(engine, request_of("second", 65.0), now=1.0)
    messages, now = [], 1.5
    while engine.busy:
        messages += engine.iterate(now)
        now += 0.5
    waits = {m.request_id: m.queue_seconds for m in messages if isinstance(m, Started)}
    assert len([m for m in messages if isinstance(m, Started)]) == 2
    assert waits["first"] == 0.5 < waits["second"]
    for name, wait in waits.items():
        assert answer_of(messages, name)[1].queue_seconds == wait
        assert isinstance(next(m for m in messages if getattr(m, "request_id", None) == name), Started)


def test_a_cancelled_request_leaves_nothing_behind(model) -> None:
    engine = make_engine(model)
    for name in ("a", "b", "waiting"):
        submit(engine, request_of(name, 70.0))
    for _ in range(3):
        engine.iterate(0.0)
    for name in ("a", "waiting", "unknown"):
        engine.cancel(name)
    messages = run(engine)
    assert {m.request_id for m in messages if isinstance(m, Finished)} == {"b"}


def test_a_late_request_fails_wherever_it_is(model) -> None:
    engine = make_engine(model, rows=1)
    submit(engine, request_of("running", 70.0, deadline=5.0))
    submit(engine, request_of("queued", 70.0, deadline=5.0))
    submit(engine, request_of("calm", 2.0))
    engine.iterate(1.0)
    failed = [m for m in engine.iterate(5.0) if isinstance(m, Failed)]
    assert [(m.request_id, m.code) for m in failed] == [
        ("running", "deadline_exceeded"),
        ("queued", "deadline_exceeded"),
    ]
    assert {m.request_id for m in run(engine) if isinstance(m, Finished)} == {"calm"}


@pytest.mark.parametrize(
    "options", [{"language": "yue"}, {"language": "klingon"}, {"clip_timestamps": (2.0, 3.0)}, {"beam_size": 16}]
)
def test_what_the_model_cannot_do_is_refused_at_once(model, options) -> None:
    engine = make_engine(model)
    (answer,) = submit(engine, request_of("a", 2.0, **options))
    assert isinstance(answer, Failed)
    assert (answer.code, [answer.param]) == ("invalid_value", list(options))
    assert answer.message.endswith(".")
    assert not engine.busy


def test_a_long_recording_stalls_nobody_while_it_is_heard(model, monkeypatch) -> None:
    engine = make_engine(model)
    submit(engine, request_of("row", 200.0, sample_len=60, temperature=(0.0,)))
    engine.iterate(0.0)
    heard: list[int] = []
    loudest = model.log_mel.loudest

    def counted(samples, seek, n_frames):
        heard[-1] += 1
        return loudest(samples, seek, n_frames)

    monkeypatch.setattr(model.log_mel, "loudest", counted)
    hour = torch.zeros(3600 * 16_000, dtype=torch.int16)
    engine.submit(Transcribe("long", "int16", len(hour), TranscribeOptions(language="en"), None), hour, 0.0)
    short = request_of("short", 1.0)
    submit(engine, short)
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
    engine = make_engine(model)
    for name in ("late", "cancelled"):
        submit(engine, request_of(name, 300.0, deadline=5.0 if name == "late" else None))
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


def test_beams_and_samples_share_the_batch_and_change_nobody(model) -> None:
    asked: dict[str, dict[str, Any]] = {
        "beams": {"beam_size": 3},
        "greedy": {},
        "samples": {"temperature": (0.7,), "best_of": 4},
        "ladder": {"temperature": (0.0, 0.8), "beam_size": 2, "best_of": 3},
    }
    engine = make_engine(model)
    for seed, (name, options) in enumerate(asked.items()):
        assert submit(engine, request_of(name, 4.0, **options), seed) == []
    messages = run(engine)
    for seed, (name, options) in enumerate(asked.items()):
        assert answer_of(messages, name)[1].text == alone(model, 4.0, seed, **options).text
    assert engine.batch.free_rows == 4


def test_more_rows_than_there_are_is_a_refusal_that_names_the_option(model) -> None:
    engine = make_engine(model)
    (refused,) = submit(engine, request_of("r", 1.0, beam_size=5))
    assert isinstance(refused, Failed)
    assert refused.code == "invalid_value"
    assert "beam_size is 5" in refused.message
    assert not engine.busy


def test_windows_that_are_admitted_together_share_their_passes(model, monkeypatch) -> None:
    engine = make_engine(model, together=4)
    passes: list[tuple[str, int]] = []

    def note(owner: object, name: str) -> None:
        method = getattr(owner, name)

        def noted(first, *others, **named):
            passes.append((name, len(first)))
            return method(first, *others, **named)

        monkeypatch.setattr(owner, name, noted)

    note(engine.batch, "encode")
    note(engine.batch._inference, "prefill_many")
    for seed, name in enumerate("abc"):
        submit(engine, request_of(name, 5.0, language="en" if name == "b" else None), seed)
    submit(engine, request_of("prompted", 5.0, initial_prompt="Hello"), 3)
    messages = run(engine)
    # Languages of two, prompts of one length of three, and the one that is longer.
    assert passes == [("encode", 4), ("prefill_many", 2), ("prefill_many", 3), ("prefill_many", 1)]
    for seed, name in enumerate("abc"):
        assert answer_of(messages, name)[1].text == alone(model, 5.0, seed, language="en" if name == "b" else None).text
    assert answer_of(messages, "prompted")[1].text == alone(model, 5.0, 3, initial_prompt="Hello").text


def test_parts_of_a_file_wait_for_its_language_and_then_share_a_pass(model, monkeypatch) -> None:
    engine = make_engine(model, rows=8, together=8)
    encode, passes = engine.batch.encode, []
    monkeypatch.setattr(engine.batch, "encode", lambda mel, n: (passes.append(len(mel)), encode(mel, n))[1])
    options: dict[str, Any] = {"language": None, "long_form": "batched", "sample_len": 12}
    submit(engine, request_of("long", 170.0, **options), seed=3)
    messages = run(engine)
    assert passes[0] == 1
    assert max(passes) > 2
    assert len([m for m in messages if isinstance(m, LanguageDetected)]) == 1
    assert answer_of(messages, "long")[1].text == alone(model, 170.0, 3, **options).text


def test_tokens_chosen_on_the_device_a_step_ahead_change_no_answer(model, monkeypatch) -> None:
    """Memory runs out in the first capture, one request is poison in the middle, one is cancelled."""
    sizes = {"a": 40.0, "b": 3.0, "poison": 20.0, "c": 31.0, "leaving": 50.0, "d": 8.0}
    expected = {name: alone(model, seconds, seed) for seed, (name, seconds) in enumerate(sizes.items())}
    choose_on_device(monkeypatch, ahead=True)
    again = Again()
    again.failures = [torch.OutOfMemoryError("CUDA out of memory") for _ in range(2)]  # before there is work, and in it
    capture_steps(monkeypatch, again)
    engine = make_engine(model, together=3)
    step = engine.batch.step

    def failing():
        if engine.batch.steps.total() > 8 and any(job.request_id == "poison" for job in engine.seats.jobs):
            raise IndexError("bad index")
        return step()

    monkeypatch.setattr(engine.batch, "step", failing)
    for seed, (name, seconds) in enumerate(sizes.items()):
        submit(engine, request_of(name, seconds), seed)
    messages: list[Any] = []
    while engine.stats.tokens < 10:
        messages += engine.iterate(0.0)
    engine.cancel("leaving")
    messages += run(engine)
    assert engine.recovery.out_of_memory == 1
    assert {m.request_id for m in messages if isinstance(m, Failed)} <= {"poison"}
    for name in "abcd":
        assert [s.tokens for s in answer_of(messages, name)[0]] == [s.tokens for s in expected[name].segments]


def test_a_request_tells_when_its_windows_were_worked_on(model) -> None:
    engine = make_engine(model, rows=1)
    submit(engine, request_of("first", 65.0), now=0.0)
    submit(engine, request_of("second", 3.0), now=0.0)
    messages: list[Any] = []
    now = 0.0
    while engine.busy:
        now += 1.0
        messages += engine.iterate(now)
    (_, first), (_, second) = answer_of(messages, "first"), answer_of(messages, "second")
    assert len(first.windows) >= 3
    assert len(second.windows) == 1
    for window in (*first.windows, *second.windows):
        assert window.taken < window.encoded <= window.done
        assert window.steps == window.done - window.taken + 1
    turns = sorted((w.taken, w.done) for w in (*first.windows, *second.windows))
    assert all(done <= taken for (_, done), (taken, _) in itertools.pairwise(turns))
    assert first.queue_seconds == first.windows[0].taken

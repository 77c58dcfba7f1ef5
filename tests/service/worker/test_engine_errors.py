"""What raises in the engine, or finds no memory: nobody fails for somebody else's window."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from model.decoding import ladder
from model.errors import DeviceLostError
from model.transcriber import Transcriber
from service.wire.messages import Failed, Finished, Started
from service.worker.faults import fault_of
from service.worker.job import Job
from tests import tiny
from tests.engines import EXHAUSTED, alone, answer_of, make_engine, request_of, run, starve, submit
from tests.graphs import Again, capture_steps

TOGETHER = pytest.mark.parametrize("together", [1, 3])
NO_MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")


@pytest.fixture(scope="module")
def model() -> Transcriber:
    return tiny.transcriber()


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What the log says of bugs."""
    return [record.fields for record in caplog.records if record.message == "internal_error"]  # type: ignore[attr-defined]


def test_r29_a_request_that_cannot_be_taken_in_fails_alone(model, monkeypatch, caplog) -> None:
    engine = make_engine(model)
    submit(engine, request_of("a", 3.0))

    def failing(*_, **__):
        raise OverflowError("secret words")

    with monkeypatch.context() as patch:
        patch.setattr("service.worker.engine.Job", failing)
        (failed,) = submit(engine, request_of("bad.1", 3.0))
    assert (failed.request_id, failed.code) == ("bad.1", "internal_error")
    assert failed.message == "The request failed inside the model (OverflowError)."
    (line,) = told(caplog)
    assert (line["request_id"], line["exception"]) == ("bad", "OverflowError")
    assert line["where"].startswith("service.worker.engine:")
    assert {m.request_id for m in run(engine) if isinstance(m, Finished)} == {"a"}


@pytest.mark.parametrize("method", ["step", "encode"])
def test_a_device_that_is_lost_ends_the_worker_and_not_a_request(model, monkeypatch, method) -> None:
    engine = make_engine(model)
    for name in ("a", "b"):
        submit(engine, request_of(name, 3.0))

    def failing(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(engine.batch, method, failing)
    monkeypatch.setattr("service.worker.faults.is_lost", lambda device: True)
    with pytest.raises(DeviceLostError):
        run(engine)


def test_r29_a_window_whose_shadow_cannot_be_cast_fails_alone(model, monkeypatch) -> None:
    engine = make_engine(model)
    submit(engine, request_of("doubtful", 3.0, guards=True, temperature=(0.0, 0.2), sample_len=12))
    submit(engine, request_of("innocent", 3.0, sample_len=40))

    def failing(*_, **__):
        raise RuntimeError("no room")

    monkeypatch.setattr(engine.batch._inference, "prefill", failing)  # the shadow's own
    messages = run(engine)
    assert [m.request_id for m in messages if isinstance(m, Failed)] == ["doubtful"]
    assert {m.request_id for m in messages if isinstance(m, Finished)} == {"innocent"}
    assert (engine.batch.active_rows, engine.batch.free_windows) == (0, engine.batch.max_windows)


@TOGETHER
def test_r29_a_window_that_cannot_start_fails_alone(model, monkeypatch, together) -> None:
    engine = make_engine(model, together=together)
    for name in ("a", "bad", "c"):
        submit(engine, request_of(name, 3.0))
    start_all = engine.batch.start_all

    def failing(starts):
        if any(engine.seats.job(start.slot).request_id == "bad" for start in starts):
            raise ArithmeticError("nothing was made of 'secret words'")
        start_all(starts)

    monkeypatch.setattr(engine.batch, "start_all", failing)
    messages = run(engine)
    (failed,) = [m for m in messages if isinstance(m, Failed)]
    assert (failed.request_id, failed.code) == ("bad", "internal_error")
    assert "ArithmeticError" in failed.message
    assert "secret" not in failed.message
    assert {m.request_id for m in messages if isinstance(m, Finished)} == {"a", "c"}


def test_r29_a_step_that_raises_ends_the_guilty_row_only(model, monkeypatch, caplog) -> None:
    engine = make_engine(model)
    for name in ("a", "b", "bad.1", "c"):
        submit(engine, request_of(name, 40.0, sample_len=12), seed=ord(name[0]))
    step = engine.batch.step

    def failing():
        if any(job.request_id == "bad.1" for job in engine.seats.jobs):
            raise IndexError("bad index")
        return step()

    monkeypatch.setattr(engine.batch, "step", failing)
    messages = run(engine)
    failed = [m.request_id for m in messages if isinstance(m, Failed)]
    assert failed == ["bad.1"]
    assert [(line["request_id"], line["exception"]) for line in told(caplog)] == [("bad", "IndexError")]
    for name in ("a", "b", "c"):
        segments, _ = answer_of(messages, name)
        expected = alone(model, 40.0, ord(name), sample_len=12)
        assert [s.tokens for s in segments] == [s.tokens for s in expected.segments]


@pytest.mark.parametrize("score", ["avg_logprob", "no_speech_prob"])
def test_r29_scores_that_are_no_numbers_end_their_request_only(model, monkeypatch, score) -> None:
    engine = make_engine(model)
    for name in ("bad", "good"):
        submit(engine, request_of(name, 3.0, guards=False, sample_len=12))
    step = engine.batch.step

    def broken():
        ended = step()
        jobs = {slot: engine.seats.job(slot).request_id for slot, _ in ended}
        return [
            (slot, replace(result, **{score: float("nan")}) if jobs[slot] == "bad" else result)
            for slot, result in ended
        ]

    monkeypatch.setattr(engine.batch, "step", broken)
    messages = run(engine)
    assert [(m.request_id, m.code) for m in messages if isinstance(m, Failed)] == [("bad", "internal_error")]
    assert [m.request_id for m in messages if isinstance(m, Finished)] == ["good"]


@pytest.mark.parametrize("vad", [False, True])
def test_a_recording_begins_although_memory_ran_out_when_it_first_would(model, monkeypatch, vad) -> None:
    engine = make_engine(model)
    submit(engine, request_of("a", 12.0, sample_len=12, vad=vad))
    begin, errors = Job._begin, [EXHAUSTED]

    def starved(job, probabilities):
        if errors:
            raise errors.pop()
        begin(job, probabilities)

    monkeypatch.setattr(Job, "_begin", starved)
    assert [m.request_id for m in run(engine) if isinstance(m, Finished)] == ["a"]
    assert not errors


def test_r29_a_result_that_cannot_be_used_ends_its_request_only(model, monkeypatch) -> None:
    engine = make_engine(model)
    submit(engine, request_of("bad", 100.0, long_form="batched"), seed=1)
    submit(engine, request_of("good", 40.0), seed=2)
    feed = engine._feed

    def failing(job, lane, result, now):
        if job.request_id == "bad":
            raise ArithmeticError("it does not add up")
        return feed(job, lane, result, now)

    monkeypatch.setattr(engine, "_feed", failing)
    messages = run(engine)
    (failed,) = [m for m in messages if isinstance(m, Failed)]
    assert (failed.request_id, "ArithmeticError" in failed.message) == ("bad", True)
    assert answer_of(messages, "good")[1].text


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        NO_MEMORY,
        RuntimeError("could not create a primitive"),
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ValueError(),
    ],
)
def test_memory_runs_out_otherwise_than_in_torchs_own_of_a_gpu(error) -> None:
    assert fault_of(error, torch.device("cpu")).exhausted is not isinstance(error, ValueError)


@TOGETHER
@pytest.mark.parametrize(("name", "error"), [("encode", EXHAUSTED), ("step", NO_MEMORY)])
def test_out_of_memory_shrinks_the_batch_and_fails_nobody(model, monkeypatch, name, error, together) -> None:
    engine = make_engine(model, together=together)
    starve(engine, monkeypatch, name, 2, error)
    names = "abcde"
    for letter in names:
        submit(engine, request_of(letter, 20.0, sample_len=30), seed=ord(letter))
    messages = run(engine)
    assert not [m for m in messages if isinstance(m, Failed)]
    assert 1 <= engine.recovery.room.shrinks <= 4
    assert max(engine.batch.steps) == 2
    for letter in names:
        segments, _ = answer_of(messages, letter)
        expected = alone(model, 20.0, ord(letter), sample_len=30)
        assert [s.tokens for s in segments] == [s.tokens for s in expected.segments]


def test_a_capture_without_memory_shrinks_the_batch_too(model, monkeypatch) -> None:
    expected = {letter: alone(model, 20.0, ord(letter), sample_len=30) for letter in "abcde"}
    again = Again(rows=2)
    capture_steps(monkeypatch, again)
    engine = make_engine(model)
    for letter in expected:
        submit(engine, request_of(letter, 20.0, sample_len=30), seed=ord(letter))
    messages = run(engine)
    for letter, wanted in expected.items():
        assert [s.tokens for s in answer_of(messages, letter)[0]] == [s.tokens for s in wanted.segments]
    assert engine.recovery.room.shrinks == again.resets >= 1
    assert again.replays > 2 * again.captures


@pytest.mark.parametrize("fails", [1, 2])
@pytest.mark.parametrize(("where", "error"), [("loudest", NO_MEMORY), ("weigh", EXHAUSTED)])
def test_what_is_done_for_one_request_alone_is_tried_again(model, monkeypatch, where, error, fails) -> None:
    owner, failures = (model.log_mel if where == "loudest" else model), []
    method = getattr(owner, where)

    def failing(*arguments):
        if len(failures) < fails:
            failures.append(where)
            raise error
        return method(*arguments)

    expected = alone(model, 3.0, 1)
    monkeypatch.setattr(owner, where, failing)
    engine = make_engine(model)
    submit(engine, request_of("unlucky", 3.0), 1)
    messages = run(engine)
    if fails == 1:
        assert [s.tokens for s in answer_of(messages, "unlucky")[0]] == [s.tokens for s in expected.segments]
    else:
        assert [type(m) for m in messages if not isinstance(m, Started)] == [Failed]


@pytest.mark.parametrize("fails", [1, 2, 3])
def test_a_detector_that_fails_among_the_rows_fails_nobody_but_its_request(model, monkeypatch, fails) -> None:
    weigh, failures = model.weigh, []

    def failing(result, window, samples, options):
        if len(samples) == 48_000 and len(failures) < fails:
            failures.append(window)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return weigh(result, window, samples, options)

    monkeypatch.setattr(ladder, "may_be_nobodys", lambda *_: True)  # which this model's windows never are
    expected = {name: alone(model, seconds, 1, guards=True) for name, seconds in (("a", 3.0), ("b", 4.0))}
    monkeypatch.setattr(model, "weigh", failing)
    engine = make_engine(model)
    for name, seconds in (("a", 3.0), ("b", 4.0)):
        submit(engine, request_of(name, seconds, guards=True), 1)
    messages = run(engine)
    answered = "ab" if fails < 3 else "b"  # once while it is decoded, and twice when its text is weighed
    for name in answered:
        assert [s.tokens for s in answer_of(messages, name)[0]] == [s.tokens for s in expected[name].segments]
    assert [m.request_id for m in messages if isinstance(m, Failed)] == [name for name in "ab" if name not in answered]


@TOGETHER
@pytest.mark.parametrize("name", ["encode", "step"])
def test_a_window_that_does_not_fit_alone_is_told_so(model, monkeypatch, name, together) -> None:
    engine = make_engine(model, together=together)
    with monkeypatch.context() as starving:
        starve(engine, starving, name, 0)
        for letter in "ab":
            submit(engine, request_of(letter, 2.0))
        failed = [m for m in run(engine) if isinstance(m, Failed)]
        assert {m.request_id for m in failed} == {"a", "b"}
        assert {m.code for m in failed} == {"no_memory"}
    submit(engine, request_of("later", 2.0))
    answer_of(run(engine), "later")

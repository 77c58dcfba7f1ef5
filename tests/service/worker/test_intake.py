"""Windows in an encoder that takes its time: the others go on, and whatever happens to a window happens to it alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from model.transcriber import Transcriber
from service.wire.messages import Failed, Finished, LanguageDetected
from service.worker.engine import Engine
from tests import tiny
from tests.engines import alone, answer_of, request_of, run, submit


@pytest.fixture(scope="module")
def model() -> Transcriber:
    return tiny.transcriber()


class _Pass:
    """Work that is done when it was asked so often, or when somebody let it go."""

    def __init__(self, beside: "Slow") -> None:
        self._beside, self._polls = beside, 0
        self.joined = False

    @property
    def done(self) -> bool:
        self._polls += 1
        return self._polls > self._beside.polls

    def join(self) -> None:
        self.joined = True


class Slow:
    """`model.gpu.beside.Beside` whose work is done late; what it has filled before that is not to be heard."""

    def __init__(self, polls: int = 1_000_000) -> None:
        self.polls = polls
        self.passes: list[_Pass] = []

    def run(self, work: Callable[[], Any]) -> tuple[Any, _Pass]:
        result = work()
        self.passes.append(_Pass(self))
        return result, self.passes[-1]


def _engine(model: Transcriber, beside: Slow, rows: int = 4, together: int = 2) -> Engine:
    return Engine(model, max_rows=rows, windows_per_encode=together, beside=beside)


@pytest.mark.parametrize("polls", [0, 1, 7, 1_000_000])
def test_late_or_early_every_request_gets_what_the_library_gives(model, polls) -> None:
    engine = _engine(model, Slow(polls))
    sizes = {"a": 3.0, "b": 65.0, "c": 31.0, "d": 8.0, "e": 1.0}
    for seed, (name, seconds) in enumerate(sizes.items()):
        submit(engine, request_of(name, seconds), seed)
    messages = run(engine)
    for seed, (name, seconds) in enumerate(sizes.items()):
        segments, _ = answer_of(messages, name)
        assert [s.tokens for s in segments] == [s.tokens for s in alone(model, seconds, seed).segments]


def test_a_window_that_is_not_ready_stalls_nobody(model) -> None:
    beside = Slow()
    engine = _engine(model, beside)
    submit(engine, request_of("row", 20.0, sample_len=40), now=0.0)
    engine.iterate(0.0)
    assert engine.batch.active_rows == 1  # nobody else was there, so it was waited for
    submit(engine, request_of("late", 5.0))
    while len(beside.passes) < 2:
        engine.iterate(0.0)
    steps = engine.batch.steps[1]
    for _ in range(10):
        engine.iterate(0.0)
    assert engine.batch.steps[1] == steps + 10
    assert (len(engine.seats), engine.batch.active_rows) == (2, 1)
    assert not beside.passes[1].joined
    beside.polls = 0
    engine.iterate(0.0)
    assert beside.passes[1].joined
    assert engine.batch.active_rows == 2
    messages = run(engine)
    (window,) = answer_of(messages, "late")[1].windows
    assert window.steps <= 6 + 1  # turns in the encoder are no steps


def test_nobody_asks_for_more_rows_than_there_are_while_windows_are_encoded(model) -> None:
    engine = _engine(model, Slow(5), rows=4)
    for seed, name in enumerate(("greedy", "first", "second", "third")):
        width = {} if name == "greedy" else {"beam_size": 2}
        submit(engine, request_of(name, 4.0, sample_len=20, **width), seed)
    messages = run(engine)
    assert {m.request_id for m in messages if isinstance(m, Finished)} == {"greedy", "first", "second", "third"}


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_a_request_that_ends_in_the_encoder_leaves_its_seat_to_others(model, how) -> None:
    beside = Slow()
    engine = _engine(model, beside, rows=2, together=1)
    submit(engine, request_of("row", 20.0, sample_len=60))
    engine.iterate(0.0)
    submit(engine, request_of("ends", 5.0, deadline=5.0 if how == "late" else None))
    while len(beside.passes) < 2:
        engine.iterate(0.0)
    if how == "late":
        assert [m.request_id for m in engine.iterate(6.0) if isinstance(m, Failed)] == ["ends"]
    else:
        engine.cancel("ends")
    submit(engine, request_of("next", 5.0), 3)
    while len(beside.passes) < 3:
        engine.iterate(0.0)
    beside.polls = 0
    messages = run(engine)
    assert answer_of(messages, "next")[1].text == alone(model, 5.0, 3).text
    assert {m.request_id for m in messages if isinstance(m, Finished)} == {"row", "next"}


def test_a_step_that_fails_does_not_begin_a_window_twice(model, monkeypatch) -> None:
    beside = Slow()
    engine = _engine(model, beside)
    submit(engine, request_of("row", 20.0, sample_len=30), 1)
    engine.iterate(0.0)
    submit(engine, request_of("encoding", 5.0), 2)
    while len(beside.passes) < 2:
        engine.iterate(0.0)
    with monkeypatch.context() as patch:
        patch.setattr(engine.batch, "step", lambda: 1 / 0)
        assert engine.iterate(0.0) == []
    assert len(engine.seats) == 0
    beside.polls = 0
    messages = run(engine)
    assert answer_of(messages, "encoding")[1].text == alone(model, 5.0, 2).text
    assert answer_of(messages, "row")[1].text == alone(model, 20.0, 1, sample_len=30).text


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), ArithmeticError("it does not add up")])
@pytest.mark.parametrize("where", ["encode", "start_all"])
def test_a_failure_in_a_pass_of_several_costs_the_guilty_one_only(model, monkeypatch, where, error) -> None:
    engine = _engine(model, Slow(2), together=3)
    method, failures = getattr(engine.batch, where), []

    def failing(first, *others):
        if len(first) > 1 or (failures and len(failures) < 2 and isinstance(error, ArithmeticError)):
            failures.append(len(first))
            raise error
        return method(first, *others)

    monkeypatch.setattr(engine.batch, where, failing)
    for seed, name in enumerate("abc"):
        submit(engine, request_of(name, 4.0), seed)
    messages = run(engine)
    failed = {m.request_id for m in messages if isinstance(m, Failed)}
    assert len(failed) == isinstance(error, ArithmeticError)
    for seed, name in enumerate("abc"):
        if name not in failed:
            assert answer_of(messages, name)[1].text == alone(model, 4.0, seed).text
    assert engine.recovery.out_of_memory == isinstance(error, torch.OutOfMemoryError)


def test_parts_of_a_file_wait_until_its_first_window_has_told_the_language(model) -> None:
    beside = Slow(6)
    engine = Engine(model, max_rows=8, windows_per_encode=4, beside=beside)
    options: dict[str, Any] = {"language": None, "long_form": "batched", "sample_len": 12}
    submit(engine, request_of("other", 20.0, sample_len=60), 1)
    engine.iterate(0.0)
    submit(engine, request_of("long", 170.0, **options), 3)
    messages = run(engine)
    assert len([m for m in messages if isinstance(m, LanguageDetected)]) == 1
    assert answer_of(messages, "long")[1].text == alone(model, 170.0, 3, **options).text

"""Tokens chosen as on a GPU: the same texts as on the host, read at once or one step late, whoever comes and goes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from model.decoding import flight
from model.decoding.batch import DecodingBatch, run_to_end
from model.options import TranscribeOptions
from model.transfer import Fetched
from model.window import DecodingResult, Window
from tests import decodings, tiny
from tests.graphs import Again, capture_steps, choose_on_device

TINY = tiny.transcriber()
MEL = torch.randn(9, 80, 3000, generator=torch.Generator().manual_seed(7))
OPTIONS = [*decodings.OPTIONS, TranscribeOptions(language="en", temperature=(0.0,), sample_len=1)]
N = len(OPTIONS)
DETERMINED = [0, 1, 5, 6, 8]
"""Those without a draw."""


def _decode(
    i: int, batch: DecodingBatch, options: TranscribeOptions | None = None, prompt: tuple[int, ...] = ()
) -> DecodingResult:
    (slot,) = batch.encode(MEL[i : i + 1])
    batch.start(slot, Window(i, 0, 3000, OPTIONS[i].language, prompt), options or OPTIONS[i])
    ((_, result),) = [*run_to_end(batch), *batch.step()]
    assert batch.active_rows == 0
    return result


def _batch(windows: int = 1) -> DecodingBatch:
    return DecodingBatch(TINY.model, TINY.tokenizer, max_windows=windows, max_rows=max(windows, 3))


def _same(ours: DecodingResult, wanted: DecodingResult) -> bool:
    numbers = [(r.avg_logprob, r.no_speech_prob) for r in (ours, wanted)]
    return replace(ours, avg_logprob=0.0, no_speech_prob=0.0, language_probs={}) == replace(
        wanted, avg_logprob=0.0, no_speech_prob=0.0, language_probs={}
    ) and numbers[0] == pytest.approx(numbers[1], abs=1e-4)


@pytest.fixture(scope="module")
def alone() -> list[DecodingResult]:
    """What each window gives by itself, every token read at once."""
    with pytest.MonkeyPatch.context() as patch:
        choose_on_device(patch, ahead=False)
        return [_decode(i, _batch()) for i in range(N)]


def test_without_draws_the_host_chooses_the_same(alone) -> None:
    for i in DETERMINED:
        assert _same(alone[i], _decode(i, _batch()))


def test_one_step_ahead_says_the_same_in_one_batch_after_another(alone, monkeypatch) -> None:
    choose_on_device(monkeypatch, ahead=True)
    batch = _batch()
    for i in [*range(N), *reversed(range(N))]:
        assert _same(_decode(i, batch), alone[i])
    assert batch.free_rows == 3


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example takes a second
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    arrivals=st.permutations(range(N)),
    pauses=st.lists(st.integers(0, 4), min_size=N, max_size=N),
    dropped=st.sets(st.integers(0, N - 1), max_size=3),
    size=st.integers(2, 6),
    ahead=st.booleans(),
    captured=st.booleans(),
)
def test_any_mix_of_rows_gives_what_each_gives_alone(
    alone, monkeypatch, arrivals, pauses, dropped, size, ahead, captured
) -> None:
    with monkeypatch.context() as patch:
        choose_on_device(patch, ahead=ahead)
        if captured:
            capture_steps(patch, Again())
        batch = _batch(size)
    slots: dict[int, int] = {}
    results: dict[int, DecodingResult] = {}
    waiting = list(zip(arrivals, pauses, strict=True))

    def step() -> None:
        for slot, result in batch.step():
            results[slots.pop(slot)] = result

    while waiting or slots:
        if waiting and batch.free_windows and batch.free_rows >= OPTIONS[waiting[0][0]].width:
            i, pause = waiting.pop(0)
            (slot,) = batch.encode(MEL[i : i + 1])
            slots[slot] = i
            batch.start(slot, Window(i, 0, 3000, OPTIONS[i].language), OPTIONS[i])
            for _ in range(pause):
                step()
            if i in dropped and slot in slots:
                batch.drop(slot)
                del slots[slot]
            batch._inference._cache.keys[:, batch.active_rows : batch.max_rows] = torch.nan
        else:
            step()
    assert (batch.free_windows, batch.free_rows, slots) == (size, max(size, 3), {})
    for i, result in results.items():
        assert _same(result, alone[i])
    assert results.keys() | dropped == set(range(N))


@pytest.mark.parametrize("beams", [None, 3])
def test_a_step_is_launched_before_the_one_before_it_is_read(beams, monkeypatch) -> None:
    course: list[str] = []
    choose_on_device(monkeypatch, ahead=True)
    batch = DecodingBatch(TINY.model, TINY.tokenizer, max_windows=2, max_rows=4)
    advance = batch._inference.advance

    class Noted(Fetched):
        def read(self) -> torch.Tensor:
            course.append("read")
            return super().read()

    def noted(*arguments, **options):
        course.append("launch")
        return advance(*arguments, **options)

    monkeypatch.setattr(flight, "Fetched", Noted)
    monkeypatch.setattr(batch._inference, "advance", noted)
    slots = batch.encode(MEL[:2])
    for i, slot in enumerate(slots):
        batch.start(slot, Window(i, 0, 3000, "en"), replace(OPTIONS[0], sample_len=4, beam_size=None if i else beams))
    assert course == []
    assert len(list(run_to_end(batch))) == 2
    # The first tokens of two windows, then every step behind the launch of the next one: with beams in two parts.
    assert course == ["launch", "read", "read", *["launch", *["read"] * (2 if beams else 1)] * 3]


def test_what_is_in_the_air_when_its_row_leaves_is_nobodys(alone, monkeypatch) -> None:
    choose_on_device(monkeypatch, ahead=True)
    batch = _batch(2)
    first, second = batch.encode(MEL[:2])
    batch.start(first, Window(0, 0, 3000, "en"), OPTIONS[0])
    batch.start(second, Window(1, 0, 3000, "de"), replace(OPTIONS[1], sample_len=8))
    for _ in range(3):
        batch.step()
    batch.drop(second)
    (slot,) = batch.encode(MEL[4:5])
    assert slot == second
    batch.start(slot, Window(4, 0, 3000, "ja"), OPTIONS[4])
    results = dict(run_to_end(batch))
    assert _same(results[first], alone[0])
    assert _same(results[slot], alone[4])


def test_a_row_at_the_end_of_its_context_goes_one_step_too_far_without_harm(monkeypatch) -> None:
    eot = TINY.tokenizer.eot
    options = replace(OPTIONS[1], sample_len=None, suppress_tokens=(eot,), guards=False)
    prompt = tuple(range(300, 900))
    wanted = _decode(0, _batch(), options, prompt)
    assert len(wanted.tokens) == 221  # 1 + 223 + 4 tokens before them, and the last one is never fed
    choose_on_device(monkeypatch, ahead=True)
    assert _same(_decode(0, _batch(), options, prompt), wanted)
    capture_steps(monkeypatch, Again())
    assert _same(_decode(0, _batch(), options, prompt), wanted)


def test_what_is_recorded_beforehand_is_not_recorded_again_and_changes_nothing(alone, monkeypatch) -> None:
    choose_on_device(monkeypatch, ahead=True)
    again = Again()
    capture_steps(monkeypatch, again)
    batch = _batch(5)
    batch.prepare(3)
    assert again.captures == 2 * len({1, 2, 4, 5})
    greedy = [i for i in DETERMINED if OPTIONS[i].width == 1]
    slots = dict(zip(batch.encode(MEL[greedy]), greedy, strict=True))
    for slot, i in slots.items():
        batch.start(slot, Window(i, 0, 3000, OPTIONS[i].language, ()), OPTIONS[i])
    for slot, result in [*run_to_end(batch), *batch.step()]:
        assert _same(result, alone[slots.pop(slot)])
    assert not slots
    assert again.captures == 2 * len({1, 2, 4, 5})


def test_what_takes_most_memory_is_recorded_first(monkeypatch) -> None:
    """What one recording gives back holds a smaller one, and no larger one."""
    choose_on_device(monkeypatch, ahead=True)
    again, rows = Again(), []
    capture = again.capture
    monkeypatch.setattr(again, "capture", lambda run: (rows.append(run().shape[1]), capture(run))[1])
    capture_steps(monkeypatch, again)
    _batch(5).prepare(3)
    assert rows == [6, 6, 4, 4, 2, 2, 1, 1], "padded"


@pytest.mark.weights
def test_real_weights_say_the_same_along_the_whole_ladder(base, clips, monkeypatch) -> None:
    """A clip that is clear, and pushed down the ladder by a threshold that nothing passes."""
    ladder = {"temperature": (0.0, 0.8), "logprob_threshold": -0.001, "no_speech_threshold": None, "guards": False}

    def decode(**options: object) -> DecodingResult:
        batch = DecodingBatch(base.model, base.tokenizer, max_windows=1, max_rows=5)
        monkeypatch.setattr(base, "batch", batch)
        return base.decode(clips / "en-jfk.flac", language="en", **options)

    wanted, beams = decode(temperature=(0.0,)), decode(temperature=(0.0,), beam_size=5)
    choose_on_device(monkeypatch, ahead=False)
    drawn = decode(**ladder)
    choose_on_device(monkeypatch, ahead=True)
    capture_steps(monkeypatch, Again())
    assert _same(decode(temperature=(0.0,)), wanted)
    assert _same(decode(**ladder), drawn)
    assert _same(decode(temperature=(0.0,), beam_size=5), beams)
    assert drawn.temperature == 0.8
    assert "country" in drawn.text

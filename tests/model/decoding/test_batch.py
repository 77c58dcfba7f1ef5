import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decoding.batch import DecodingBatch, run_to_end
from model.decoding.row import Decoding
from model.options import TranscribeOptions
from model.window import SEARCH_BEAMS, DecodingResult, Window
from tests import tiny
from tests.decodings import OPTIONS

TINY = tiny.transcriber()
MEL = torch.randn(8, 80, 3000, generator=torch.Generator().manual_seed(7))
N = len(OPTIONS)
PROMPTS = [(), (400, 500, 600), (7,), (), tuple(range(1000, 1230)), (9, 8), (), (12, 13)]


def _window(i: int) -> Window:
    return Window(i, 0, 3000, OPTIONS[i].language, PROMPTS[i])


def _batch(size: int) -> DecodingBatch:
    return DecodingBatch(TINY.model, TINY.tokenizer, max_windows=size, max_rows=max(size, 3))


@pytest.fixture(scope="module")
def alone() -> list[DecodingResult]:
    """What each window gives on its own."""
    results = []
    for i in range(len(OPTIONS)):
        batch = _batch(1)
        (slot,) = batch.encode(MEL[i : i + 1])
        batch.start(slot, _window(i), OPTIONS[i])
        ((_, result),) = run_to_end(batch)
        results.append(result)
    return results


def test_a_text_that_stopped_at_its_last_token_has_no_end(alone) -> None:
    """Random weights find none by themselves, within so few tokens."""
    assert [one.endless for one in alone] == [
        len(one.tokens) == o.sample_len for one, o in zip(alone, OPTIONS, strict=True)
    ]
    assert any(one.endless for one in alone)


def _close(ours: DecodingResult, wanted: DecodingResult) -> bool:
    return (
        ours.tokens == wanted.tokens
        and (ours.text, ours.language, ours.temperature) == (wanted.text, wanted.language, wanted.temperature)
        and abs(ours.avg_logprob - wanted.avg_logprob) < 1e-3
        and abs(ours.no_speech_prob - wanted.no_speech_prob) < 1e-5
    )


@settings(max_examples=8, deadline=None)
@given(
    arrivals=st.permutations(range(len(OPTIONS))),
    pauses=st.lists(st.integers(0, 4), min_size=N, max_size=N),
    dropped=st.sets(st.integers(0, N - 1), max_size=2),
    size=st.integers(2, 6),
)
def test_r32_any_mix_of_rows_gives_what_each_gives_alone(alone, arrivals, pauses, dropped, size) -> None:
    batch = _batch(size)
    slots: dict[int, int] = {}
    results: dict[int, DecodingResult] = {}
    waiting = list(zip(arrivals, pauses, strict=True))

    def step() -> None:
        for slot, result in batch.step():
            results[slots.pop(slot)] = result

    while waiting or batch.active_rows:
        if waiting and batch.free_windows and batch.free_rows >= OPTIONS[waiting[0][0]].width:
            i, pause = waiting.pop(0)
            (slot,) = batch.encode(MEL[i : i + 1])
            slots[slot] = i
            batch.start(slot, _window(i), OPTIONS[i])
            for _ in range(pause):
                step()
            if i in dropped and slot in slots:
                batch.drop(slot)
                del slots[slot]
            # A slot's last owner must not be heard by the next one.
            batch._inference._cache.keys[:, len(batch._rows) :] = torch.nan
            batch._inference._cache.values[:, len(batch._rows) :] = torch.nan
            for free in batch._free:
                batch._inference._cache.cross_keys.data[:, free] = torch.nan
        else:
            step()
    assert (batch.free_windows, batch.free_rows) == (size, max(size, 3))
    assert not slots
    for i, result in results.items():
        assert _close(result, alone[i])
    assert results.keys() | dropped == set(range(N))


def test_the_ladder_ends_at_the_last_temperature_and_encodes_once(alone) -> None:
    batch = _batch(1)
    encodes = []
    original = TINY.model.encoder.forward
    TINY.model.encoder.forward = lambda mel: (encodes.append(1), original(mel))[1]  # type: ignore[method-assign]
    try:
        (slot,) = batch.encode(MEL[:1])
        ladder = TranscribeOptions(
            language="en", temperature=(0.0, 0.2, 0.9), sample_len=5, no_speech_threshold=None, guards=False
        )
        batch.start(slot, _window(0), ladder)
        ((_, result),) = run_to_end(batch)
    finally:
        del TINY.model.encoder.forward
    # A random model believes nothing that it says.
    assert (result.temperature, batch.fallbacks["logprob"], len(encodes)) == (0.9, 2, 1)


def test_with_guards_witnesses_stand_in_place_of_the_ladder_and_are_the_same_in_any_company() -> None:
    options = TranscribeOptions(language="en", temperature=(0.0, 0.2, 0.9), sample_len=5, no_speech_threshold=None)

    def decode(company: int) -> tuple[DecodingResult, DecodingBatch, list[float]]:
        batch, temperatures = _batch(1 + company), []

        def note(decoding: Decoding, result: DecodingResult) -> None:
            if decoding.slot == slots[0]:
                temperatures.append(result.temperature)

        batch.on_attempt = note
        slots = batch.encode(MEL[: 1 + company])
        for slot in slots:
            batch.start(slot, _window(0), options)
        return dict(run_to_end(batch))[slots[0]], batch, temperatures

    result, batch, temperatures = decode(0)
    # A random model believes nothing that it says: it is searched with beams (which passes), hears the window again
    # beside silence, and then three draws.
    assert temperatures == [0.0, 0.0, 0.0, 0.4, 0.4, 0.4]
    assert (result.failed, batch.fallbacks) == (True, {"logprob": 1})
    assert set(batch.steps) == {1, SEARCH_BEAMS, 2}  # the last with a shadow
    assert (batch.free_rows, batch.active_rows) == (3, 0)
    among, _, others = decode(2)
    assert others == temperatures
    assert _close(among, result)


@pytest.mark.parametrize(
    ("thresholds", "counted"),
    [
        ({"logprob_threshold": -100.0}, {"unsure": 1}),
        ({"compression_ratio_threshold": 1e-3}, {"compression_ratio": 2}),  # once for the search, once for witnesses
    ],
)
def test_windows_that_are_decoded_again_are_counted_by_reason_and_not_for_each_witness(thresholds, counted) -> None:
    batch, witnesses = _batch(1), []
    batch.on_attempt = lambda decoding, _: witnesses.append(decoding.ladder.is_witness)
    (slot,) = batch.encode(MEL[:1])
    options = TranscribeOptions(language="en", sample_len=5, no_speech_threshold=None, **thresholds)
    batch.start(slot, _window(0), options)
    list(run_to_end(batch))
    assert witnesses.count(True) > 1
    assert batch.fallbacks == counted


def test_the_ladder_stops_when_the_thresholds_are_off() -> None:
    batch = _batch(1)
    (slot,) = batch.encode(MEL[:1])
    lenient = TranscribeOptions(
        language="en", sample_len=5, logprob_threshold=None, compression_ratio_threshold=None, no_speech_threshold=None
    )
    batch.start(slot, _window(0), lenient)
    ((_, result),) = run_to_end(batch)
    assert (result.temperature, batch.fallbacks.total(), batch.steps.total()) == (0.0, 0, 4)


def test_a_prompt_of_full_length_still_leaves_the_rest_of_the_context() -> None:
    batch = _batch(1)
    (slot,) = batch.encode(MEL[:1])
    options = TranscribeOptions(language="en", temperature=(0.0,), without_timestamps=True)
    batch.start(slot, Window(0, 0, 3000, "en", tuple(range(300, 900))), options)
    ((_, result),) = run_to_end(batch)
    # 1 + 223 + 4 tokens before the first sampled one; the context holds 448, and the last one is never fed.
    assert len(result.tokens) in (221, *range(221))
    assert batch.free_windows == 1


def test_a_window_that_ends_as_it_starts_keeps_its_slot_until_its_result_is_taken() -> None:
    batch = _batch(2)
    (first,) = batch.encode(MEL[:1])
    batch.start(first, _window(0), TranscribeOptions(language="en", temperature=(0.0,), sample_len=1))
    assert batch.active_rows == 0
    (second,) = batch.encode(MEL[1:2])
    assert second != first
    ((slot, _),) = batch.step()
    assert (slot, batch.free_windows) == (first, 1)


def test_of_a_window_that_was_dropped_as_it_ended_nothing_comes_out() -> None:
    """Whoever has its slot now is not taken for it."""
    batch = _batch(1)
    for sample_len in (1, 3):
        (slot,) = batch.encode(MEL[:1])
        batch.start(slot, _window(0), TranscribeOptions(language="en", temperature=(0.0,), sample_len=sample_len))
        if sample_len == 1:
            assert batch.active_rows == 0
            batch.drop(slot)
    assert [len(result.tokens) for _, result in run_to_end(batch)] == [3]


def test_the_lowest_slot_that_is_free_is_next_whoever_left_last() -> None:
    batch = _batch(3)
    slots = batch.encode(MEL[:3])
    for slot in sorted(slots):
        batch.release(slot)
        batch.release(slot)
    assert [batch.encode(MEL[:1]) for _ in slots] == [[0], [1], [2]]


def test_a_failed_encode_loses_no_slot() -> None:
    batch = _batch(2)
    with pytest.raises(RuntimeError):
        batch.encode(torch.zeros(1, 80, 10))
    assert batch.free_windows == 2


def test_language_is_read_from_the_encoding_that_is_there() -> None:
    batch = _batch(2)
    slots = batch.encode(MEL[:2])
    probabilities = batch.detect_language(slots[1])
    assert len(probabilities) == 99
    assert abs(sum(probabilities.values()) - 1.0) < 1e-4
    assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)
    batch.start(slots[1], Window(0, 0, 3000, None), TranscribeOptions(temperature=(0.0,), sample_len=3))
    ((_, result),) = run_to_end(batch)
    assert result.language == next(iter(probabilities))
    assert result.language_probs == probabilities


@torch.inference_mode()
def test_where_the_language_changes_the_text_before_goes_and_what_a_caller_wrote_stays(monkeypatch) -> None:
    batch = _batch(1)
    monkeypatch.setattr(batch._opening, "languages", lambda slots, row: [{"de": 0.97, "en": 0.03}] * len(slots))
    prompts = []
    for follows in ("en", "de"):
        (slot,) = batch.encode(MEL[:1])
        batch.start(slot, Window(3, 0, 3000, None, (500, 600, 700), n_fixed=2, follows=follows), TranscribeOptions())
        prompts.append(batch._decodings[slot].prompt)
        batch.drop(slot)
    start = TINY.tokenizer.sot_sequence("de", "transcribe")
    before = TINY.tokenizer.sot_prev
    assert prompts == [(before, 500, 600, *start), (before, 500, 600, 700, *start)]

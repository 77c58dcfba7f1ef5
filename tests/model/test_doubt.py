"""What is kept of a window that failed at every temperature, and what is dropped where nobody speaks."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.dims import DIMENSIONS
from model.doubt import cut_loop, is_doubtful, is_voiceless, salvage
from model.options import TranscribeOptions
from model.recording import Recording
from model.segments import Skipped
from model.tokenizer import get_tokenizer
from model.window import DecodingResult, compression_ratio

TOKENIZER = get_tokenizer(DIMENSIONS["base"])
BEGIN = TOKENIZER.timestamp_begin
OPTIONS = TranscribeOptions(language="en")
SILENT, DOUBTFUL, SPOKEN = (0.02,) * 900, (0.02,) * 890 + (0.6,) * 5, (0.9,) * 900


def _result(text: str = " Hello.", *, logprob: float = -0.3, end: float = 2.0, **fields) -> DecodingResult:
    tokens = (BEGIN, *TOKENIZER.encode(text), BEGIN + round(end / 0.02))
    values = {"no_speech_prob": 0.1, "temperature": 0.0, "compression_ratio": compression_ratio(text)} | fields
    return DecodingResult(language="en", tokens=tokens, text=text.strip(), avg_logprob=logprob, **values)


def test_the_most_probable_attempt_is_kept_and_a_loop_never_is_where_another_is_there() -> None:
    attempts = [_result(logprob=-1.3), _result(" na" * 90, logprob=-0.1), _result(" Yes.", logprob=-1.1),
                _result(" Such a8", logprob=-5.0, temperature=1.0)]  # fmt: skip
    kept = salvage(attempts, OPTIONS, TOKENIZER)
    assert kept == replace(attempts[2], failed=True)


def test_where_every_attempt_is_a_loop_one_round_is_kept() -> None:
    attempts = [_result(" Well," + " I will not do it." * 20, logprob=-0.2), _result(" na" * 90, logprob=-0.1)]
    kept = salvage(attempts, OPTIONS, TOKENIZER)
    assert kept.text == "Well, I will not do it."
    assert kept.looped
    assert kept.failed
    assert kept.tokens[-1] == attempts[0].tokens[-1]


def test_a_text_that_compresses_well_but_does_not_end_in_a_loop_stays_whole() -> None:
    text = " one two three four five" * 12 + " and out"
    first = _result(text)
    assert first.compression_ratio > 2.4
    assert salvage([first], OPTIONS, TOKENIZER) == replace(first, failed=True)


@given(
    before=st.lists(st.integers(0, 50), max_size=12),
    loop=st.lists(st.integers(51, 99), min_size=1, max_size=9, unique=True),
    rounds=st.integers(3, 9),
    part=st.integers(0, 8),
)
def test_a_loop_is_cut_after_its_first_round(before, loop, rounds, part) -> None:
    tail = loop[: min(part, len(loop) - 1)]
    cut = cut_loop([*before, *loop * rounds, *tail], timestamp_begin=100)
    if len(loop) * rounds + len(tail) < 12:
        assert cut is None
    else:
        assert cut == (*before, *loop)


def test_timestamps_do_not_hide_a_loop_and_the_next_one_ends_the_segment() -> None:
    rounds = [(100 + i, 1, 2, 3, 4, 101 + i) for i in range(5)]
    assert cut_loop([token for one in rounds for token in one], 100) == (100, 1, 2, 3, 4, 101)


@given(st.lists(st.integers(0, 3), max_size=40))
def test_a_cut_is_a_beginning(tokens) -> None:
    cut = cut_loop(tokens, 100)
    assert cut is None or (len(cut) < len(tokens) and list(cut) == tokens[: len(cut)])


@pytest.mark.parametrize(
    ("result", "dropped"),
    [
        (_result(speech=SILENT), False),  # the model is sure
        (_result(logprob=-0.9, speech=SILENT), True),
        (_result(no_speech_prob=0.7, speech=SILENT), True),
        (_result(failed=True, speech=SILENT), True),
        (_result(logprob=-0.9, speech=DOUBTFUL), False),
        (_result(no_speech_prob=0.7, speech=DOUBTFUL), True),
        (_result(failed=True, speech=DOUBTFUL), True),
        (_result(failed=True, no_speech_prob=0.7, speech=SPOKEN), False),
        (_result(failed=True), False),  # the detector was not asked
    ],
)
def test_text_is_dropped_where_both_the_model_and_the_detector_doubt_it(result, dropped) -> None:
    assert is_voiceless(result, OPTIONS) == dropped
    assert not is_voiceless(result, replace(OPTIONS, guards=False))
    assert not dropped or is_doubtful(result, OPTIONS)


def _recording(seconds: float, **options) -> Recording:
    settings = replace(OPTIONS, **options)
    return Recording(DIMENSIONS["base"], TOKENIZER, settings, n_samples=int(seconds * 16_000))


def test_a_dropped_window_is_named_and_the_next_one_is_heard() -> None:
    recording = _recording(50.0)
    lane, window = recording.take()
    assert recording.window(lane) == window
    assert recording.feed(lane, _result(failed=True, speech=SILENT)) == ()
    lane, window = recording.take()
    assert window.seek == 3000
    assert [segment.text for segment in recording.feed(lane, _result(end=20.0))] == [" Hello."]
    assert recording.result().warnings == (Skipped("no_voice", 0.0, 30.0),)
    assert recording.guards == {"no_voice": 1}
    with pytest.raises(ValueError, match="nothing"):
        recording.window(lane)


def test_what_a_loop_stood_for_is_named_and_no_prompt_comes_of_it() -> None:
    recording = _recording(50.0)
    lane, _ = recording.take()
    segments = recording.feed(lane, _result(failed=True, looped=True, speech=SPOKEN, end=4.0))
    assert [segment.text for segment in segments] == [" Hello."]
    _, window = recording.take()
    assert (window.seek, window.prompt) == (3000, ())
    assert recording.result().warnings == (Skipped("repetition", 4.0, 30.0),)

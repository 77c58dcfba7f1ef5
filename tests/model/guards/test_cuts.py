"""What is left of a window's tokens, and where the next window begins then."""

from dataclasses import replace

import pytest

from model.dims import DIMENSIONS
from model.guards.consensus import Consensus
from model.guards.cuts import leave_out
from model.guards.omissions import echoed, left_out
from model.longform.transcript import Transcript
from model.options import TranscribeOptions
from model.segments import Segment, Skipped
from model.tokenizer import get_tokenizer
from model.window import DecodingResult, Place, Window

TOKENIZER = get_tokenizer(DIMENSIONS["base"])
T = TOKENIZER.timestamp_begin
A, B, C = (tuple(TOKENIZER.encode(text)) for text in (" one fox", " two dogs", " three cats"))


def _result(tokens: tuple[int, ...], unconfirmed: tuple[Place, ...] = ()) -> DecodingResult:
    text = TOKENIZER.decode(tokens).strip()
    return DecodingResult("en", tokens, text, -1.1, 0.1, 0.0, 1.0, unconfirmed=unconfirmed)


def _fed(tokens: tuple[int, ...], seek: int = 0, unconfirmed: tuple[Place, ...] = ()) -> Transcript:
    transcript = Transcript(
        DIMENSIONS["base"], TOKENIZER, TranscribeOptions(language="en"), n_samples=6000 * 160, clips=[(seek, 6000)]
    )
    transcript.next_window()
    transcript.feed(_result(tokens, unconfirmed))
    return transcript


@pytest.mark.parametrize(
    ("tokens", "cut", "left"),
    [
        ((T, *A, T + 9), A, ()),
        ((T, *A, T + 9, T + 9, *B, T + 20), B, (T, *A, T + 9)),
        ((T, *A, T + 9, T + 9, *B, T + 20), A, (T + 9, *B, T + 20)),
        ((T, *A, T + 9, T + 9, *B), B, (T, *A, T + 9, T + 9, *B)),
        ((T, *A, T + 9, T + 9, *B), A, (T + 9, T + 9, *B)),
        ((T, *A, T + 9, T + 9, *B), A + B, (T + 9, T + 9, *B)),
        ((T, *A, T + 9, T + 9, *B, T + 20, T + 20, *C), B, (T, *A, T + 9, T + 20, *C)),
        ((T, *A, T + 9, T + 9, *B, T + 20, T + 20, *C), A + B, (T + 20, T + 20, *C)),
        ((T, *A), A, ()),
    ],
)  # fmt: skip
def test_timestamps_go_with_their_text_but_an_unfinished_rest_stays(tokens, cut, left) -> None:
    assert leave_out(tokens, [i for i, token in enumerate(tokens) if token in cut], T) == left


@pytest.mark.parametrize("cut", [A, B, C, A + B, B + C, A + C, A + B + C])
def test_after_a_cut_the_next_window_begins_no_later_and_after_this_one(cut) -> None:
    tokens = (T, *A, T + 900, T + 900, *B, T + 1375, T + 1375, *C)
    whole = _fed(tokens)
    assert whole.seek == 2750
    left = leave_out(tokens, [i for i, token in enumerate(tokens) if token in cut], T)
    assert 0 < _fed(left).seek <= whole.seek


def test_words_of_an_unfinished_rest_are_not_left_out() -> None:
    text = _result((T, *A, T + 1375, T + 1375, *B))
    others = [_result((T, *A, T + 1375))] * 4
    assert Consensus([text, *others], TOKENIZER).without_unconfirmed(0) == (text.tokens, ())


def test_a_rest_before_which_everything_was_left_out_is_not_put_in_its_place() -> None:
    tokens = (T, *A, T + 1375, T + 1375, *B)
    left = leave_out(tokens, [1, 2], T)
    transcript = _fed(left, unconfirmed=((T, T + 1375),))
    assert (transcript.seek, transcript.result().segments) == (2750, ())
    assert transcript.skipped == [Skipped("unconfirmed", 0.0, 27.5)]


def test_what_is_heard_again_is_not_named_wherever_its_window_begins() -> None:
    tokens = (T, *A, T + 900, T + 1375, *C)
    for seek in range(0, 3000, 7):
        assert _fed(tokens, seek, unconfirmed=((T + 900, T + 1375),)).skipped == []


def _segment(start: float, end: float) -> Segment:
    return Segment(0, 1000, start, end, " one fox", A, 0.0, -0.3, 1.0, 0.1)


@pytest.mark.parametrize(
    ("fields", "until", "spans"),
    [
        ({"repeats": ((T, T + 250),)}, 3000, [("repetition", 10.0, 15.0)]),
        ({"unconfirmed": ((T + 50, None),)}, 3000, [("unconfirmed", 11.0, 30.0)]),
        ({"unconfirmed": ((T + 900, T + 1300),)}, 3000, [("unconfirmed", 28.0, 30.0)]),
        ({"unconfirmed": ((T + 500, T + 900),)}, 2500, [("unconfirmed", 20.0, 25.0)]),  # the rest is heard again
        ({"unconfirmed": ((T + 500, T + 900),)}, 2000, []),
        ({"unconfirmed": ((T + 500, T + 500),)}, 3000, []),
        ({"looped": True}, 3000, [("repetition", 24.0, 30.0)]),
        ({"endless": True}, 3000, [("token_limit", 24.0, 30.0)]),
        ({"endless": True}, 2999, []),
    ],
)
def test_what_was_cut_out_is_named_in_the_time_of_the_recording(fields, until, spans) -> None:
    result = replace(_result((T, *A, T + 200, T + 500, *B, T + 700)), **fields)
    segments = [_segment(10.0, 14.0), _segment(20.0, 24.0)]
    window = Window(3, 1000, 2000, "en")
    assert left_out(result, window, segments, T, until=until) == [Skipped(*span) for span in spans]


def test_of_a_loop_that_lasts_to_the_end_all_is_named_and_of_no_text_nothing() -> None:
    result, window = replace(_result(A), looped=True), Window(3, 1000, 2000, "en")
    assert left_out(result, window, [_segment(12.0, 30.0)], T, until=3000) == [Skipped("repetition", 12.0, 30.0)]
    assert left_out(result, window, [], T, until=3000) == []


def test_texts_that_come_again_are_named_within_their_window() -> None:
    echoes = [_segment(12.0, 14.0), _segment(29.0, 31.0), _segment(30.0, 32.0)]
    spans = [(one.start, one.end) for one in echoed(echoes, Window(3, 1000, 2000, "en"))]
    assert spans == [(12.0, 14.0), (29.0, 30.0)]

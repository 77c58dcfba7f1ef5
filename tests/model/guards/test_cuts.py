"""What is left of a window's tokens, and where the next window begins then."""

import pytest

from model.dims import DIMENSIONS
from model.guards.consensus import Consensus
from model.guards.cuts import leave_out
from model.longform.transcript import Transcript
from model.options import TranscribeOptions
from model.segments import Skipped
from model.tokenizer import get_tokenizer
from model.window import DecodingResult, Place

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

"""Loops and repeated phrases: what is left of them."""

from hypothesis import given
from hypothesis import strategies as st

from model.guards.repetition import comes_back, cut_loop, cut_repeats
from model.window import finished_tokens

BEGIN = 100
PHRASE = (1, 2, 3, 4, 5, 6, 7)


@given(
    before=st.lists(st.integers(0, 50), max_size=12),
    loop=st.lists(st.integers(51, 99), min_size=1, max_size=9, unique=True),
    rounds=st.integers(3, 9),
    part=st.integers(0, 8),
)
def test_a_loop_is_cut_after_its_first_round(before, loop, rounds, part) -> None:
    tail = loop[: min(part, len(loop) - 1)]
    cut = cut_loop([*before, *loop * rounds, *tail], timestamp_begin=BEGIN)
    if len(loop) * rounds + len(tail) < 12:
        assert cut is None
    else:
        assert cut == (*before, *loop)


def test_twice_is_no_loop_nor_are_a_few_words_said_often() -> None:
    assert cut_loop((*range(20, 30), *PHRASE, *PHRASE), BEGIN) is None
    assert cut_loop((1,) * 11, BEGIN) is None
    assert cut_loop((1,) * 12, BEGIN) == (1,)


def test_timestamps_do_not_hide_a_loop_and_the_next_one_ends_the_segment() -> None:
    rounds = [(100 + i, 1, 2, 3, 4, 101 + i) for i in range(5)]
    assert cut_loop([token for one in rounds for token in one], BEGIN) == (100, 1, 2, 3, 4, 101)


@given(st.lists(st.integers(0, 3), max_size=40))
def test_a_cut_is_a_beginning(tokens) -> None:
    cut = cut_loop(tokens, BEGIN)
    assert cut is None or (len(cut) < len(tokens) and list(cut) == tokens[: len(cut)])


def test_a_phrase_said_before_is_left_out_and_its_place_is_known() -> None:
    tokens = (100, 9, *PHRASE, 8, 150, 150, *PHRASE, 11, 170)
    assert cut_repeats(tokens, BEGIN) == ((100, 9, *PHRASE, 8, 150, 150, 11, 170), ((150, 170),))


def test_a_phrase_lasts_from_its_first_token_s_time_to_its_last_one_s() -> None:
    tokens = (100, *PHRASE, 110, 110, *PHRASE[:3], 120, 120, *PHRASE[3:], 130, 130, 9, 140)
    assert cut_repeats(tokens, BEGIN) == ((100, *PHRASE, 110, 130, 9, 140), ((110, 130),))


def test_six_tokens_again_are_no_phrase() -> None:
    tokens = (100, *PHRASE[:6], 9, *PHRASE[:6], 120)
    assert cut_repeats(tokens, BEGIN) == (tokens, ())


def test_a_segment_of_which_nothing_is_left_loses_its_timestamps() -> None:
    tokens = (100, *PHRASE, 110, 110, *PHRASE, 120, 120, 9, 130)
    assert cut_repeats(tokens, BEGIN) == ((100, *PHRASE, 110, 120, 9, 130), ((110, 120),))
    assert cut_repeats((100, *PHRASE, 110, 110, *PHRASE, 120), BEGIN) == ((100, *PHRASE, 110), ((110, 120),))


def test_an_unfinished_rest_is_heard_again_and_stays_though_it_repeats_what_was_said() -> None:
    tokens = (100, *PHRASE, 110, 110, *PHRASE)
    assert cut_repeats(tokens, BEGIN) == (tokens, ())


def test_text_without_timestamps_has_its_repeats_somewhere_in_the_window() -> None:
    assert cut_repeats((*PHRASE, 9, *PHRASE), BEGIN) == ((*PHRASE, 9), ((BEGIN, None),))


@given(st.lists(st.one_of(st.integers(0, 2), st.integers(100, 103)), max_size=60))
def test_nothing_is_said_twice_afterwards_and_nothing_is_new(tokens) -> None:
    kept, places = cut_repeats(tokens, BEGIN)
    remaining = iter(tokens)
    assert all(token in remaining for token in kept)
    text = [token for token in kept if token < BEGIN]
    assert bool(places) == (len(text) < sum(token < BEGIN for token in tokens))
    said = [token for token in finished_tokens(kept, BEGIN) if token < BEGIN]
    assert cut_repeats(said, BEGIN)[0] == tuple(said)


ROUND = (100, *PHRASE, 110)


def _logprobs(first: float, rounds: int) -> list[float]:
    """Of `rounds` of ROUND: the first one's text has this mean, and a repetition is always probable."""
    return [0.0, *[2 * first, 0.0, *[first] * 5], 0.0, *[-0.01] * (len(ROUND) * (rounds - 1))]


def test_what_was_sure_the_first_time_may_be_said_again() -> None:
    for rounds in (2, 3, 6):
        tokens = ROUND * rounds
        assert cut_loop(tokens, BEGIN, _logprobs(-0.69, rounds)) is None
        assert cut_repeats(tokens, BEGIN, _logprobs(-0.69, rounds)) == (tokens, ())


def test_what_was_not_sure_the_first_time_is_a_loop_however_probable_it_becomes() -> None:
    assert cut_loop(ROUND * 4, BEGIN, _logprobs(-0.71, 4)) == ROUND
    kept, places = cut_repeats(ROUND * 4, BEGIN, _logprobs(-0.71, 4))
    assert (kept, len(places)) == (ROUND, 3)


def test_each_phrase_is_judged_by_its_own_first_time() -> None:
    other = (100, 11, 12, 13, 14, 15, 16, 17, 110)
    between = (100, 99, 110)
    tokens = (*ROUND, *other, *between, *ROUND, 98, *other)
    logprobs = [-0.2] * len(ROUND) + [-2.0] * len(other) + [-0.01] * (len(tokens) - len(ROUND) - len(other))
    assert cut_repeats(tokens, BEGIN, logprobs) == ((*ROUND, *other, *between, *ROUND, 98), ((100, 110),))


def test_a_phrase_of_which_the_last_word_goes_on_in_another_way_is_cut_before_that_word() -> None:
    tokens = (100, *PHRASE, 8, 21, 110, 110, *PHRASE, 8, 22, 120)
    assert cut_repeats(tokens, BEGIN, inner={9, 20}) == ((100, *PHRASE, 8, 21, 110, 110, 8, 22, 120), ((110, 120),))
    assert cut_repeats((100, 8, *PHRASE, 110, 110, 9, *PHRASE, 120), BEGIN, inner={2, 12})[1] == ()


def test_the_round_in_which_a_word_ends_ends_with_it() -> None:
    talked = (1, 2, 3, 4, 21)  # the word before the loop ends as its last one does
    tokens = (9, 21, *talked * 4)
    inner = {1, *range(6, len(tokens), 5)}
    assert cut_loop(tokens, BEGIN) == (9, 21, 1, 2, 3, 4)
    assert cut_loop(tokens, BEGIN, inner=inner) == (9, 21, *talked)
    assert cut_loop(talked * 4, BEGIN, inner=range(1, 20)) == talked  # a word without an end


def test_what_is_written_again_of_the_same_moment_comes_back() -> None:
    first, later, same = [1.0] * 7, [3.0] * 7, [1.2] * 7
    tokens = (100, *PHRASE, 110, 9, *PHRASE, 120)
    assert not comes_back(tokens, BEGIN, [*first, 2.0, *later])
    assert comes_back(tokens, BEGIN, [*first, 2.0, *same])
    assert comes_back(tokens, BEGIN, [*later, 2.0, *first])
    assert not comes_back((100, *PHRASE, 9, 110), BEGIN, [*first, 1.5])


def test_a_loop_too_short_for_a_phrase_comes_back() -> None:
    tokens = (100, *(1, 2, 3, 4) * 3, 110)
    assert comes_back(tokens, BEGIN, [5.0] * 12)
    assert not comes_back(tokens, BEGIN, [1.0] * 4 + [2.0] * 4 + [3.0] * 4)


def test_only_the_second_round_of_a_loop_is_held_against_the_first() -> None:
    tokens = (100, *range(50, 57), *(1, 2, 3, 4) * 3, 110)
    for before in (0.0, 9.0):
        assert not comes_back(tokens, BEGIN, [before] * 7 + [1.0] * 4 + [2.0] * 4 + [3.0] * 4)
    assert comes_back(tokens, BEGIN, [0.0] * 7 + [1.0] * 4 + [1.2] * 4 + [9.0] * 4)

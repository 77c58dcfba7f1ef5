"""Which of several texts the others agree with, and which of its words they leave out."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import LCSseq

from model.dims import DIMENSIONS
from model.guards.consensus import Consensus, is_same_text
from model.tokenizer import get_tokenizer
from model.window import DecodingResult

TOKENIZER = get_tokenizer(DIMENSIONS["base"])
BEGIN = TOKENIZER.timestamp_begin


def _result(text: str, *, language: str = "en", word: str = "", probability: float = 0.4) -> DecodingResult:
    """A window of one segment of 2 s; `word` is so probable, the others 0.9."""
    tokens, logprobs = [BEGIN], [0.0]
    for piece in text.split(" ")[1:] if " " in text else [text]:
        ids = TOKENIZER.encode((" " if " " in text else "") + piece)
        tokens += ids
        logprobs += [math.log(probability if piece == word else 0.9)] * len(ids)
    return DecodingResult(
        language=language,
        tokens=(*tokens, BEGIN + 100),
        text=text.strip(),
        avg_logprob=-0.9,
        no_speech_prob=0.1,
        temperature=0.0,
        compression_ratio=1.0,
        logprobs=(*logprobs, 0.0),
    )


def _of(words: Sequence[str]) -> DecodingResult:
    return _result("".join(f" {word}" for word in words)) if words else replace(_result(" x"), tokens=())


def _cut(result: DecodingResult, *others: str) -> str:
    witnesses = [_result(other, language=result.language) for other in others]
    tokens, places = Consensus([result, *witnesses], TOKENIZER).without_unconfirmed(0)
    assert bool(places) == (tokens != result.tokens)
    return TOKENIZER.decode(tokens)


def test_a_word_that_all_have_or_hear_otherwise_stays() -> None:
    text = " Turn off the light."
    assert _cut(_result(text), *[" turn off the light", " Turn of the lights!", " Burn of a light", text]) == text


@pytest.mark.parametrize(
    ("probability", "missing", "stays"),
    [
        (0.05, 0, True),
        (0.05, 1, False),
        (0.07, 1, True),
        (0.07, 2, False),
        (0.6, 2, False),
        (0.63, 2, True),
        (0.63, 3, False),
        (0.99, 2, True),
        (0.99, 3, False),
    ],
)
def test_the_less_probable_a_word_is_the_fewer_must_miss_it(probability: float, missing: int, stays: bool) -> None:
    for word in ("all", "unbeknownst"):  # of one token, and of several
        text = f" Turn off {word} the light."
        others = [" Turn off the light."] * missing + [text] * (6 - missing)
        expected = text if stays else " Turn off the light."
        assert _cut(_result(text, word=word, probability=probability), *others) == expected


def test_two_words_in_common_are_laid_beside_one_another_and_one_may_be_chance() -> None:
    assert _cut(_result(" Now turn them"), *[" turn them off"] * 4) == " turn them"
    assert _cut(_result(" Now turn"), *[" turn off"] * 4) == " Now turn"


def test_marks_go_with_the_word_before_them_and_the_rest_is_as_it_was() -> None:
    text = " Well, I said no."
    assert _cut(_result(text, word="Well,"), *[" I said no"] * 4) == " I said no."
    assert _cut(_result(text, word="no."), *[" Well, I said"] * 4) == " Well, I said"
    assert _cut(_result(" ... well, no", word="well,"), *[" no"] * 4) == " no"  # those before the first with that
    assert _cut(_result(" Well - no"), *[" Well no"] * 4) == " Well - no"


def test_a_word_goes_from_blank_to_blank() -> None:
    text = " It is 1,001 o'clock."
    assert _cut(_result(text, word="1,001"), *[" It is 1001 o'clock."] * 6) == text
    assert _cut(_result(text, word="1,001"), *[" It is clock."] * 6) == " It is o'clock."


def test_where_words_are_not_parted_by_blanks_each_character_is_one() -> None:
    assert _cut(_result("我们分头行动吧", language="zh"), *["我们分头行动"] * 4) == "我们分头行动"


def test_places_are_the_timestamps_around_and_an_empty_segment_goes_with_them() -> None:
    one, other = TOKENIZER.encode(" Hello there."), TOKENIZER.encode(" Goodbye.")
    times = [BEGIN, BEGIN + 50, BEGIN + 60, BEGIN + 100]
    text = _result(" x")
    two = DecodingResult(
        **{
            name: getattr(text, name)
            for name in ("language", "text", "no_speech_prob", "temperature", "compression_ratio")
        },
        tokens=(times[0], *one, times[1], times[2], *other, times[3]),
        avg_logprob=-0.9,
    )
    witnesses = [_result(" Hello there.")] * 4
    tokens, places = Consensus([*witnesses, two], TOKENIZER).without_unconfirmed(4)
    assert tokens == (times[0], *one, times[1])
    assert places == ((times[2], times[3]),)


def test_the_place_of_a_word_is_around_the_marks_that_a_timestamp_parts_from_it() -> None:
    parted = (BEGIN + 10, *TOKENIZER.encode(" Hello"), BEGIN + 50, BEGIN + 60, *TOKENIZER.encode(", goodbye."))
    text = replace(_result(" x"), tokens=(*parted, BEGIN + 100), logprobs=())
    _, places = Consensus([text, *[_result(" Goodbye.")] * 4], TOKENIZER).without_unconfirmed(0)
    assert places == ((BEGIN + 10, BEGIN + 100),)


def test_an_unfinished_rest_stays() -> None:
    said = (*TOKENIZER.encode(" Hello there."), BEGIN + 50, BEGIN + 60, *TOKENIZER.encode(" Goodbye."))
    text = replace(_result(" x"), tokens=(BEGIN, *said), logprobs=())
    witnesses = [_result(" Hello there.")] * 4
    assert Consensus([text, *witnesses], TOKENIZER).without_unconfirmed(0) == (text.tokens, ())


def test_only_words_that_most_have_are_confirmed() -> None:
    said = _result(" the cat sat down")
    witnesses = [_result(text) for text in (" The cat, the cat", " a cat sat", " it sat on", " no")]
    assert Consensus([said, *witnesses], TOKENIZER).confirmed(0) == 0
    assert Consensus([*witnesses[:3], said], TOKENIZER).confirmed(3) == 2
    assert Consensus([said] * 3, TOKENIZER).confirmed(1) == 4
    assert Consensus([_result(" ...")] * 3, TOKENIZER).confirmed(0) == 0  # marks alone are none


def test_texts_are_the_same_whatever_their_marks() -> None:
    assert is_same_text(_result(" Well, no."), _result(" well no"), TOKENIZER)
    assert is_same_text(_result(" ... Well, no."), _result(" well no"), TOKENIZER)
    assert not is_same_text(_result(" Well, no."), _result(" well not"), TOKENIZER)


@pytest.mark.parametrize(
    ("texts", "number"),
    [
        ([" turn off the light", " turn of the lights", " burn off a light"], 0),
        ([" burn all of them", " turn of the lights", " turn off the light", " turn off the lights"], 3),
        ([" you", " a quite different text", " you and me", " you"], 0),  # the first of equals
        ([" only one"], 0),
    ],
)
def test_the_text_from_which_the_others_are_least_far_is_agreed_upon(texts: list[str], number: int) -> None:
    assert Consensus([_result(text) for text in texts], TOKENIZER).most_agreed() == number


@given(st.lists(st.lists(st.sampled_from(["ab", "ac", "de"]), max_size=5), min_size=1, max_size=4), st.data())
def test_a_text_that_most_have_is_the_one(texts: list[list[str]], data: st.DataObject) -> None:
    common = data.draw(st.sampled_from(texts))
    shuffled = data.draw(st.permutations([*texts, *[common] * len(texts)]))
    results = [_of(words) for words in shuffled]
    assert is_same_text(results[Consensus(results, TOKENIZER).most_agreed()], _of(common), TOKENIZER)


@given(st.lists(st.sampled_from("abcde"), max_size=9), st.lists(st.sampled_from("abcde"), max_size=9))
def test_what_is_left_out_is_the_difference_in_length_at_least(words: list[str], other: list[str]) -> None:
    gone = Consensus([_of(words), _of(other)], TOKENIZER).left_out(0, 1)
    assert gone == sorted(set(gone))
    assert max(0, len(words) - len(other)) <= len(gone) <= len(words) - (1 if set(words) & set(other) else 0)
    common = LCSseq.similarity(words, other)
    assert common < len(words) or not gone
    if len(other) == common:  # a part of the words, in order
        assert len(gone) == len(words) - len(other)
        assert [word for i, word in enumerate(words) if i not in gone] == other

import math

import pytest

from benchmarks.accuracy.scoring import Errors, Scorer, translation_score


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer()


@pytest.mark.parametrize(
    ("language", "said", "printed", "errors"),
    [
        ("en", "Mr. Smith won't pay $20.", "mister smith will not pay twenty dollars", Errors(0, 6)),
        ("en", "the cat sat", "the cat sat on", Errors(1, 3, 0, 1)),
        ("en", "the cat sat", "the sat", Errors(1, 3, 1, 0)),
        ("en", "the cat sat", "the hat sat", Errors(1, 3)),
        ("en", "the cat sat", "", Errors(3, 3, 3, 0)),
        ("de", "Grüße, Welt!", "grüße welt", Errors(0, 2)),
        ("de", "Grüße, Welt!", "grusse welt", Errors(1, 2)),
        ("zh", "广州市分析", "廣州市 分析。", Errors(0, 5)),
        ("ja", "電球がともる", "電球が止まる", Errors(2, 6)),
        ("ko", "그는 걸어갔다.", "그는 걸어갔다", Errors(0, 2)),
    ],
)
def test_errors_after_normalisation(scorer: Scorer, language: str, said: str, printed: str, errors: Errors) -> None:
    assert scorer.errors(said, printed, language) == errors


@pytest.mark.parametrize("printed", ["123", "1, 2, 3.", "One two three", "1 2 3"])
def test_digits_are_compared_one_by_one(scorer: Scorer, printed: str) -> None:
    assert scorer.errors("one two three", printed, "en") == Errors(0, 3)


def test_a_wrong_digit_counts(scorer: Scorer) -> None:
    assert scorer.errors("one two three", "124", "en") == Errors(1, 3)
    assert scorer.errors("one", "nine", "en") == Errors(1, 1)


def test_digits_inside_a_sentence_stay_numbers(scorer: Scorer) -> None:
    assert scorer.errors("I have 21 cats", "I have 22 cats", "en") == Errors(1, 4)


def test_errors_add_up_to_a_rate_over_all_tokens() -> None:
    total = sum([Errors(3, 6, 1, 2), Errors(0, 8), Errors(4, 6, 2, 0)], Errors())
    assert total == Errors(7, 20, 3, 2)
    assert total.rate == pytest.approx(35.0)
    assert math.isnan(Errors().rate)


def test_words_printed_on_silence(scorer: Scorer) -> None:
    assert scorer.words("") == 0
    assert scorer.words(" ... ♪") == 0
    assert scorer.words(" Thank you.") == 2
    assert scorer.words("ご視聴") == 3
    assert scorer.invented(" Thank you.") == Errors(2, 0, 0, 2)


def test_translation_scores_reward_the_reference_itself() -> None:
    references = ["The cave sits on top of one of the mountains.", "He walked along the side of the road."]
    same = translation_score(references, references)
    other = translation_score(references, ["A cave is on a hill.", "He was walking on the road."])
    assert same.bleu == pytest.approx(100.0)
    assert same.chrf == pytest.approx(100.0)
    assert 0 < other.chrf < 60
    assert same.clips == 2
    assert "nrefs:1" in same.signature


def test_translation_scores_need_pairs() -> None:
    with pytest.raises(ValueError, match="as many"):
        translation_score([], [])
    with pytest.raises(ValueError, match="as many"):
        translation_score(["a"], ["a", "b"])

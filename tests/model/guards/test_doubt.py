"""What is kept of a window that failed at every temperature, and what is dropped where nobody speaks."""

import math
from dataclasses import replace

import pytest

from model.dims import DIMENSIONS
from model.guards.doubt import (
    is_said_again,
    is_worth_heating,
    needs_search,
    needs_witness,
    salvage,
    sure_beginning,
    told_apart,
)
from model.longform.recording import Recording
from model.options import TranscribeOptions
from model.segments import Skipped
from model.tokenizer import get_tokenizer
from model.window import DecodingResult, compression_ratio, fallback_reason

TOKENIZER = get_tokenizer(DIMENSIONS["base"])
BEGIN = TOKENIZER.timestamp_begin
OPTIONS = TranscribeOptions(language="en")
SPOKEN = (0.9,) * 900


def _result(text: str = " Hello.", *, logprob: float = -0.3, end: float = 2.0, **fields) -> DecodingResult:
    tokens = (BEGIN, *TOKENIZER.encode(text), BEGIN + round(end / 0.02))
    values = {"no_speech_prob": 0.1, "temperature": 0.0, "compression_ratio": compression_ratio(text)} | fields
    return DecodingResult(language="en", tokens=tokens, text=text.strip(), avg_logprob=logprob, **values)


def _words(count: int, logprob: float, *, times: float = -0.1) -> DecodingResult:
    """So many tokens of words that probable, between two timestamps."""
    tokens = (BEGIN, *TOKENIZER.encode(" a" * count), BEGIN + 100)
    logprobs = (times, *[logprob] * count, times)
    assert len(tokens) == len(logprobs)
    return replace(_result(), tokens=tokens, logprobs=logprobs, avg_logprob=min(logprob, -0.2))


def _salvage(attempts, witnesses=(), *, failed: bool, first: DecodingResult | None = None) -> DecodingResult:
    return salvage(attempts, witnesses, OPTIONS, TOKENIZER, failed=failed, first=first)


def test_the_first_attempt_that_is_no_loop_is_kept_and_a_hotter_one_never() -> None:
    attempts = [
        _result(" na" * 90, logprob=-0.1),
        _result(" Turn off the lights in the office.", logprob=-1.5, temperature=0.2),
        _result(" Turn off the light in the office.", logprob=-1.3, temperature=0.4),
        _result(" Such a8", logprob=-1.05, temperature=0.8),
    ]
    assert _salvage(attempts, failed=True) == replace(attempts[1], failed=True)
    assert _salvage([attempts[0], *attempts[2:]], failed=True) == replace(attempts[2], failed=True)
    assert _salvage(attempts[3:], failed=True) == replace(attempts[3], failed=True)  # there is no other
    assert _salvage(attempts, failed=False) == attempts[-1]


@pytest.mark.parametrize(
    ("attempts", "options", "worth"),
    [
        ([_result(logprob=-1.2)], {}, True),  # 0.2 is next
        ([_result(logprob=-1.2)] * 2, {}, True),
        ([_result(logprob=-1.2)] * 3, {}, False),  # 0.6 is next, and improbable is all that they are
        ([_result(" na" * 90)] * 3, {}, True),
        ([_result(" na" * 90), _result(logprob=-1.2)] * 2, {}, False),
        ([_result(logprob=-1.2)] * 3, {"guards": False}, True),
        ([_result(" na" * 90)] * 6, {}, False),  # there is no further one
    ],
)
def test_hotter_attempts_are_for_loops(attempts, options, worth) -> None:
    settings = replace(OPTIONS, **options)
    assert is_worth_heating(attempts, settings, TOKENIZER, len(attempts), contrasts=False) == worth
    translation = replace(settings, task="translate")
    assert is_worth_heating(attempts, translation, TOKENIZER, len(attempts), contrasts=True) == worth
    # Where witnesses hear the window beside silence, heat is for those who do without guards.
    assert is_worth_heating(attempts, settings, TOKENIZER, len(attempts), contrasts=True) == (not settings.guards)


SURE_OF_IT = _result(" I will not go to the sea with him." * 5, logprob=-0.1)
SURE_OF_IT = replace(SURE_OF_IT, logprobs=(-0.1,) * len(SURE_OF_IT.tokens))


@pytest.mark.parametrize(
    ("text", "options", "in_8_bits", "in_float"),
    [
        (_words(10, -0.35), {}, False, False),
        (_words(10, -0.37), {}, True, False),  # in float32 its tokens are the reference's
        (_words(50, -0.21), {}, False, False),  # the longer the text, the more its mean says
        (_words(50, -0.22), {}, True, False),
        (_words(10, -0.1, times=-3.0), {}, False, False),  # when it was said is not what
        (_words(1, -0.7), {}, False, False),
        (_words(1, -0.71), {}, True, True),
        (_result(" na" * 90, logprob=-0.1), {}, True, True),
        (SURE_OF_IT, {}, False, False),  # somebody says so
        (_result(logprob=-1.2, no_speech_prob=0.9), {}, False, False),  # silence
        (_result(logprob=-0.8, temperature=0.2), {}, False, False),
        (_result(logprob=-0.8), {"beam_size": 1}, False, False),  # its caller said with how many
        (_result(logprob=-0.8), {"guards": False}, False, False),
        (_result(logprob=-0.8), {"temperature": (0.0,)}, False, False),
        (_result(logprob=-0.8), {"task": "translate"}, True, True),
    ],
)
def test_a_text_is_unsure_sooner_where_products_are_in_8_bits(text, options, in_8_bits, in_float) -> None:
    settings = replace(OPTIONS, **options)
    assert needs_search(text, settings, TOKENIZER, rounds=True) == in_8_bits
    assert needs_search(text, settings, TOKENIZER, rounds=False) == in_float


@pytest.mark.parametrize(
    ("logprobs", "taken_over"),
    [
        ((-0.1, math.log(0.7), -0.36, -0.1), 2),
        ((-0.4, -0.1, -0.1), 0),
        ((-0.1, -0.2, -0.3), 2),  # the last one is always found anew
        ((), 0),
    ],
)
def test_a_search_takes_over_the_tokens_that_nobody_doubts(logprobs, taken_over) -> None:
    text = replace(_result(logprob=-0.8), logprobs=logprobs)
    assert sure_beginning(text, OPTIONS) == taken_over
    assert sure_beginning(replace(text, compression_ratio=2.5), OPTIONS) == 0  # it is sure of its loop


def test_what_was_said_before_a_search_is_heard_with_the_witnesses_and_keeps_the_window_in_doubt() -> None:
    found, before = _result(" Turn of the lights.", logprob=-0.8), _result(" Turn off the light.", logprob=-0.9)
    others = [_result(text, logprob=-1.1) for text in (" Turn off the light?", " Turn of the tide.")]
    assert _salvage([found], others, failed=False).text == "Turn of the lights."
    kept = _salvage([found], others, failed=False, first=before)
    assert (kept.text, kept.witnesses, kept.doubted) == ("Turn off the light.", 3, True)
    # One that says what the search found ends the matter.
    kept = _salvage([found], [found], failed=False, first=before)
    assert (kept.text, kept.witnesses, kept.doubted) == ("Turn of the lights.", 1, True)
    assert _salvage([_result()], failed=False, first=before) == replace(_result(), doubted=True)
    assert not _salvage([_result()], failed=False, first=_result(logprob=-0.7)).doubted
    assert _salvage([_result()], failed=False, first=_result(" na" * 90)).doubted


SAME, LONGER = _result(logprob=-1.1), _result(" Hello you.", logprob=-1.1)


@pytest.mark.parametrize(
    ("text", "witnesses", "options", "needed"),
    [
        (_result(logprob=-0.7), [], {}, False),  # the model is sure
        (_result(logprob=-0.8), [], {}, True),
        (_result(logprob=-0.8), [SAME], {}, False),
        (_result(logprob=-0.8), [LONGER], {}, True),
        (_result(logprob=-0.8), [LONGER, SAME], {}, True),
        (_result(logprob=-0.8), [LONGER] * 3, {}, True),
        (_result(logprob=-0.8), [LONGER] * 4, {}, False),
        (_result(" na" * 90), [], {}, True),  # a loop, however probable
        (_result(logprob=-0.8), [], {"guards": False}, False),
        (_result(logprob=-0.8), [], {"task": "translate"}, False),
        (_result(logprob=-0.8), [], {"temperature": (0.0,)}, False),
        (_result(logprob=-0.8), [], {"logprob_threshold": None}, False),
        (_result(logprob=-1.2, no_speech_prob=0.9), [], {}, False),  # silence
    ],
)
def test_witnesses_are_heard_about_doubtful_texts_unless_the_first_says_the_same(
    text, witnesses, options, needed
) -> None:
    settings = replace(OPTIONS, **options)
    failed = fallback_reason(text, settings) is not None
    assert needs_witness([text], witnesses, settings, TOKENIZER, failed=failed) == needed


def test_of_a_text_and_its_witnesses_the_one_stays_that_the_others_agree_with() -> None:
    texts = [" Burn all the houses.", " Turn off the light.", " Turn on the light.", " Turn off the light?"]
    first, *witnesses = (_result(text, logprob=-1.0 - i / 10) for i, text in enumerate(texts))
    kept = _salvage([first], witnesses, failed=True)
    assert (kept.text, kept.avg_logprob, kept.failed, kept.confirmed) == ("Turn off the light.", -1.1, True, 3)
    assert not _salvage([first], [replace(one, avg_logprob=-0.9) for one in witnesses], failed=True).failed


def test_a_witness_that_says_the_same_confirms_it() -> None:
    kept = _salvage(
        [_result(" I can hear you.", logprob=-0.9)], [_result(" I can hear you", logprob=-1.2)], failed=False
    )
    assert (kept.text, kept.witnesses, kept.confirmed, kept.failed) == ("I can hear you.", 1, 4, False)


@pytest.mark.parametrize("logprob", [-0.9, -1.1])
def test_words_that_the_others_leave_out_are_cut(logprob: float) -> None:
    texts = [" Hello over here my friend.", " Hullo over there my fiend.", " Hello over there by friends."]
    heard = [_result(text, logprob=-1.1) for text in (*texts, " Hello you over their my friend.")]
    cut = _salvage([_result(" Hello you over there my friend.", logprob=logprob)], heard, failed=logprob < -1)
    assert cut.text == "Hello over there my friend."
    assert (cut.confirmed, cut.failed) == (3, logprob < -1)
    assert cut.unconfirmed == ((BEGIN, BEGIN + 100),)


def test_loops_end_before_they_are_compared() -> None:
    loop = _result(" Well," + " I will not do it." * 20, logprob=-0.2)
    kept = _salvage([loop], [loop, _result(" Well, I will not do it.", logprob=-1.2), loop], failed=True)
    assert (kept.text, kept.looped, kept.failed, kept.unconfirmed) == ("Well, I will not do it.", True, True, ())


@pytest.mark.parametrize("failed", [False, True])
def test_a_phrase_that_a_doubtful_text_says_twice_is_left_out(failed: bool) -> None:
    phrase = " and I will not go to the sea with him"
    twice = _result(phrase + " again" + phrase, logprob=-0.9, end=4.0)
    kept = _salvage([_result(" na" * 90), replace(twice, logprobs=(-0.9,) * len(twice.tokens))], failed=failed)
    assert (kept.text, kept.logprobs) == ((phrase + " again").strip(), ())
    assert (kept.repeats, kept.failed) == (((BEGIN, BEGIN + 200),), failed)


def test_a_phrase_said_twice_goes_first_and_then_what_witnesses_leave_out() -> None:
    phrase = " and I will not go to the sea with him"
    twice = _result(phrase + " again" + phrase, logprob=-1.1, end=4.0)
    others = [" and I will go to the see with him again", " and I will go two the sea with her again"]
    others += [" an I will go to a sea with him again", " and I will not go to the sea if him again"]
    kept = _salvage([twice], [_result(text, logprob=-1.1) for text in others], failed=True)
    assert kept.text == "and I will go to the sea with him again"
    assert (len(kept.repeats), len(kept.unconfirmed), kept.confirmed) == (1, 1, 10)


def _three_times(first: float, **fields) -> DecodingResult:
    """A sentence three times over, the first time with this log-probability a token."""
    times = _result(" Please do not go to the sea." * 3, **fields)
    third = (len(times.tokens) - 2) // 3
    return replace(times, logprobs=(0.0, *[first] * third, *[-0.01] * (2 * third), 0.0))


def test_a_sentence_that_was_heard_and_said_three_times_stays() -> None:
    text, unsure = _three_times(-0.2), _three_times(-0.9)
    kept = _salvage([text], [unsure] * 3, failed=True)
    assert (kept.text, kept.looped, kept.repeats, kept.unconfirmed) == (text.text, False, (), ())
    assert _salvage([text], failed=True).text == text.text
    assert _salvage([unsure], [text] * 3, failed=True).text == text.text
    once = _salvage([unsure], [unsure] * 3, failed=True)
    assert (once.text, once.looped) == ("Please do not go to the sea.", True)


def test_a_sentence_that_was_said_three_times_is_not_heated_until_it_is_said_once() -> None:
    translation = replace(OPTIONS, task="translate")
    sure, unsure = _three_times(-0.2, compression_ratio=2.5), _three_times(-0.9, compression_ratio=2.5)
    improbable = replace(sure, avg_logprob=-1.2, compression_ratio=2.0)  # it failed, but not for repeating itself
    for options, contrasts in ((translation, True), (OPTIONS, False)):
        assert not is_worth_heating([sure], options, TOKENIZER, 1, contrasts=contrasts)
        for attempts in ([unsure], [unsure, sure], [improbable], [improbable, unsure]):  # the first one says it
            assert is_worth_heating(attempts, options, TOKENIZER, len(attempts), contrasts=contrasts)
    assert is_worth_heating([sure], replace(translation, guards=False), TOKENIZER, 1, contrasts=True)
    kept = salvage([sure], [], translation, TOKENIZER, failed=True)
    assert (kept.text, kept.failed) == (sure.text, True)


def test_a_sentence_that_was_heard_once_and_written_three_times_is_a_loop_however_sure() -> None:
    text = _three_times(-0.2)
    n_text = len(text.tokens) - 2
    once = told_apart(text, [1.0] * n_text, TOKENIZER)
    third = n_text // 3
    again = told_apart(text, [1.0] * third + [3.0] * third + [3.1] * third, TOKENIZER)
    assert (once.circling, again.circling) == (True, False)
    assert not is_said_again(once, TOKENIZER)
    kept = _salvage([once], [once] * 4, failed=True)
    assert (kept.text, kept.looped) == ("Please do not go to the sea.", True)
    assert _salvage([again], [again] * 4, failed=True).text == text.text


def test_words_that_only_begin_alike_are_not_said_again() -> None:
    phrase = " now I will not go there untie"
    for text, circling in ((phrase + "," + phrase + "d.", False), (phrase + "," + phrase + ".", True)):
        result = _result(text)
        assert told_apart(result, [1.0] * (len(result.tokens) - 2), TOKENIZER).circling == circling
    assert not is_said_again(_result(), TOKENIZER)


def test_what_witnesses_do_not_hear_again_was_said_once() -> None:
    once = _result(" Please do not go to the sea.", logprob=-0.3)
    assert _salvage([_three_times(-0.2)], [once] * 4, failed=True).text == once.text


def test_a_text_without_an_end_is_a_loop_however_sure_its_beginning() -> None:
    endless = _three_times(-0.2, endless=True)
    kept = _salvage([endless], [endless] * 4, failed=True)
    assert (kept.text, kept.looped) == ("Please do not go to the sea.", True)
    assert _salvage([_three_times(-0.2)], [endless] * 4, failed=True).text == kept.text


def test_where_every_attempt_is_a_loop_one_round_is_kept() -> None:
    attempts = [_result(" Well," + " I will not do it." * 20, logprob=-0.2), _result(" na" * 90, logprob=-0.1)]
    kept = _salvage(attempts, failed=True)
    assert kept.text == "Well, I will not do it."
    assert kept.looped
    assert kept.failed
    assert kept.tokens[-1] == attempts[0].tokens[-1]


def test_a_loop_that_only_became_noise_when_it_was_heated_ends_after_its_first_round() -> None:
    loop = _result(" Well," + " I will not do it." * 20, logprob=-0.4)
    noise = _result(" Well the8 in seashuttle", logprob=-4.2, temperature=1.0)
    kept = _salvage([loop, noise], failed=True)
    assert (kept.text, kept.temperature, kept.looped) == ("Well, I will not do it.", 0.0, True)
    assert _salvage([loop, replace(noise, avg_logprob=-0.9)], failed=False).text == noise.text


def test_a_loop_that_compresses_too_badly_to_fail_is_told() -> None:
    loop = _result(" 1.5%" * 7, logprob=-0.4)
    assert loop.compression_ratio <= 2.4
    assert _salvage([loop], failed=False) == replace(loop, repeating=True)
    assert _salvage([_result()], failed=False) == _result()


def test_a_text_that_compresses_well_but_does_not_end_in_a_loop_stays_whole() -> None:
    text = " one two three four five" * 12 + " and out"
    first = _result(text)
    assert first.compression_ratio > 2.4
    assert _salvage([first], failed=True) == replace(first, failed=True)


def _recording(seconds: float, **options) -> Recording:
    settings = replace(OPTIONS, **options)
    return Recording(DIMENSIONS["base"], TOKENIZER, settings, n_samples=int(seconds * 16_000))


def test_what_a_loop_stood_for_is_named_and_no_prompt_comes_of_it() -> None:
    recording = _recording(50.0)
    lane, _ = recording.take()
    segments = recording.feed(lane, _result(failed=True, looped=True, speech=SPOKEN, end=4.0))
    assert [segment.text for segment in segments] == [" Hello."]
    _, window = recording.take()
    assert (window.seek, window.prompt) == (3000, ())
    assert recording.result().warnings == (Skipped("repetition", 4.0, 30.0),)


def test_a_loop_that_ran_to_the_end_of_its_window_is_named_with_what_is_left_of_it() -> None:
    recording = _recording(50.0)
    lane, _ = recording.take()
    result = _result(failed=True, looped=True, speech=SPOKEN)
    (segment,) = recording.feed(lane, replace(result, tokens=result.tokens[:-1]))
    assert (segment.start, segment.end) == (0.0, 30.0)
    assert recording.result().warnings == (Skipped("repetition", 0.0, 30.0),)


def test_where_something_was_cut_is_named() -> None:
    recording = _recording(50.0)
    lane, _ = recording.take()
    places = ((BEGIN + 25, BEGIN + 50), (BEGIN + 100, None))
    recording.feed(lane, _result(repeats=places, unconfirmed=places[:1], speech=SPOKEN, end=4.0))
    assert recording.result().warnings == (
        Skipped("repetition", 0.5, 1.0),
        Skipped("unconfirmed", 0.5, 1.0),
        Skipped("repetition", 2.0, 4.0),  # from there on it is heard again
    )


@pytest.mark.parametrize(
    "said", ["我今天早上在公园里看见一只猫，我今天早上在公园里看见一只猪。", "保卫" + "我看见一只小猫" * 6]
)
def test_what_is_left_out_ends_between_characters_of_several_tokens(said) -> None:
    result = replace(_result(said, logprob=-1.2), language="zh")
    kept = _salvage([result], failed=True)
    assert len(kept.tokens) < len(result.tokens)
    assert "\ufffd" not in kept.text

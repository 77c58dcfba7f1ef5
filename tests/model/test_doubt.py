"""What is kept of a window that failed at every temperature, and what is dropped where nobody speaks."""

from dataclasses import replace

import pytest

from model.dims import DIMENSIONS
from model.doubt import is_doubtful, is_voiceless, salvage
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


def test_the_attempt_that_the_others_agree_with_is_kept_and_a_loop_or_a_hot_one_never_counts() -> None:
    attempts = [
        _result(" Turn off the light in the office.", logprob=-1.3),
        _result(" na" * 90, logprob=-0.1, temperature=0.2),
        _result(" Turn off the lights in the office.", logprob=-1.5, temperature=0.2),
        _result(" I turn off lights in an office.", logprob=-1.1, temperature=0.4),
        *[_result(" Such a8", logprob=-1.05, temperature=0.8)] * 3,
    ]
    assert salvage(attempts, OPTIONS, TOKENIZER, failed=True) == replace(attempts[2], failed=True)
    assert salvage(attempts[-2:], OPTIONS, TOKENIZER, failed=True) == replace(attempts[-2], failed=True)


def test_the_coldest_of_attempts_that_agree_alike_is_kept() -> None:
    attempts = [_result(" Yes.", logprob=-1.9), _result(" No.", logprob=-1.1, temperature=0.2)]
    assert salvage(attempts, OPTIONS, TOKENIZER, failed=True) == replace(attempts[0], failed=True)


@pytest.mark.parametrize("failed", [False, True])
def test_a_phrase_that_a_doubtful_text_says_twice_is_left_out(failed: bool) -> None:
    phrase = " and I will not go to the sea with him"
    twice = _result(phrase + " again" + phrase, logprob=-0.9, end=4.0)
    kept = salvage([_result(" na" * 90), twice], OPTIONS, TOKENIZER, failed=failed)
    assert kept.text == (phrase + " again").strip()
    assert (kept.repeats, kept.failed) == (((BEGIN, BEGIN + 200),), failed)


def test_where_every_attempt_is_a_loop_one_round_is_kept() -> None:
    attempts = [_result(" Well," + " I will not do it." * 20, logprob=-0.2), _result(" na" * 90, logprob=-0.1)]
    kept = salvage(attempts, OPTIONS, TOKENIZER, failed=True)
    assert kept.text == "Well, I will not do it."
    assert kept.looped
    assert kept.failed
    assert kept.tokens[-1] == attempts[0].tokens[-1]


def test_a_text_that_compresses_well_but_does_not_end_in_a_loop_stays_whole() -> None:
    text = " one two three four five" * 12 + " and out"
    first = _result(text)
    assert first.compression_ratio > 2.4
    assert salvage([first], OPTIONS, TOKENIZER, failed=True) == replace(first, failed=True)


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


def test_where_a_repeated_phrase_stood_is_named() -> None:
    recording = _recording(50.0)
    lane, _ = recording.take()
    places = ((BEGIN + 25, BEGIN + 50), (BEGIN + 100, None))
    recording.feed(lane, _result(repeats=places, speech=SPOKEN, end=4.0))
    assert recording.result().warnings == (Skipped("repetition", 0.5, 1.0), Skipped("repetition", 2.0, 30.0))

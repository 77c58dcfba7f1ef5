"""Whether anybody speaks in a window, by the model and by the detector."""

from dataclasses import replace

import pytest

from model.dims import DIMENSIONS
from model.guards.presence import is_doubtful, is_nobodys, is_speech_after_all, may_be_nobodys, reason_to_skip
from model.longform.recording import Recording
from model.options import TranscribeOptions
from model.segments import Skipped
from model.tokenizer import get_tokenizer
from model.window import SURE_LOGPROB, DecodingResult, Window

TOKENIZER = get_tokenizer(DIMENSIONS["base"])
BEGIN = TOKENIZER.timestamp_begin
OPTIONS = TranscribeOptions(language="en")
WINDOW = Window(0, 0, 3000, "en")
SILENT, DOUBTFUL, SPOKEN = (0.02,) * 900, (0.02,) * 890 + (0.6,) * 5, (0.9,) * 900
WORD, MUSIC = (0.02,) * 60 + (0.9,) * 12 + (0.02,) * 70, (0.9,) * 57 + (0.02,) * 880
HALF = (0.02,) * 450 + (0.9,) * 450


def _result(*, logprob: float = -0.3, end: float = 2.0, **fields) -> DecodingResult:
    tokens = (BEGIN, *TOKENIZER.encode(" Hello."), BEGIN + round(end / 0.02))
    values = {"no_speech_prob": 0.1, "temperature": 0.0, "compression_ratio": 0.5} | fields
    return DecodingResult(language="en", tokens=tokens, text="Hello.", avg_logprob=logprob, **values)


SILENCE = _result(no_speech_prob=0.7, logprob=-1.1, end=30.0, speech=SPOKEN)


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
        (_result(failed=True, speech=WORD), False),  # a command among seconds of silence
        (_result(failed=True, speech=MUSIC), True),
        (_result(failed=True, speech=(0.02,) * 90 + (0.9,) * 6), True),  # a fifth of a second has no word
        (_result(failed=True, speech=(0.02,) * 90 + (0.9,) * 7), False),
        (_result(failed=True), False),  # the detector was not asked
        (_result(doubted=True, speech=SILENT), True),
        (_result(doubted=True, speech=DOUBTFUL), False),
        (_result(repeating=True, speech=SILENT), True),
        (_result(repeating=True, speech=DOUBTFUL), False),
        (_result(failed=True, confirmed=3, speech=SILENT), False),  # whispered
        (_result(failed=True, confirmed=2, speech=SILENT), True),
        (_result(failed=True, confirmed=3, no_speech_prob=0.5, speech=SILENT), True),
    ],
)
def test_text_is_dropped_where_both_the_model_and_the_detector_doubt_it(result, dropped) -> None:
    assert reason_to_skip(result, WINDOW, OPTIONS) == ("no_voice" if dropped else None)
    assert reason_to_skip(result, WINDOW, replace(OPTIONS, guards=False)) is None
    assert not dropped or is_doubtful(result, OPTIONS)


@pytest.mark.parametrize(
    ("result", "nobodys"),
    [
        (_result(logprob=-0.9, no_speech_prob=0.31, speech=SILENT), True),
        (_result(logprob=-0.9, no_speech_prob=0.3, speech=SILENT), False),  # whispered, perhaps
        (_result(logprob=-0.9, no_speech_prob=0.7, speech=DOUBTFUL), True),
        (_result(logprob=-0.9, no_speech_prob=0.6, speech=DOUBTFUL), False),  # whether it fails is not known yet
        (_result(failed=True, no_speech_prob=0.7, speech=SPOKEN), False),
        (_result(failed=True, no_speech_prob=0.7, speech=WORD), False),
        (_result(failed=True, no_speech_prob=0.7), False),  # the detector was not asked
    ],
)
def test_a_window_is_nobodys_if_it_is_dropped_whatever_its_witnesses_say(result, nobodys) -> None:
    assert (may_be_nobodys(result, OPTIONS) and is_nobodys(result, OPTIONS)) is nobodys
    confirmed = [replace(result, confirmed=count, failed=failed) for count in (0, 5) for failed in (False, True)]
    doubtful = [one for one in confirmed if is_doubtful(one, OPTIONS)]
    assert not nobodys or {reason_to_skip(one, WINDOW, OPTIONS) for one in doubtful} == {"no_voice"}


@pytest.mark.weights
def test_what_the_detector_hears_nobody_in_is_decoded_once(base, clips, monkeypatch) -> None:
    attempts: list[DecodingResult] = []
    monkeypatch.setattr(base.batch, "on_attempt", lambda _, result: attempts.append(result))
    heard = base.transcribe(clips / "noise.flac", language="en", no_speech_threshold=None)
    assert ([one.reason for one in heard.warnings], heard.text) == (["no_voice"] * len(attempts), "")
    assert [attempt.avg_logprob < SURE_LOGPROB or attempt.compression_ratio > 2.4 for attempt in attempts] == [True]


@pytest.mark.parametrize(
    ("result", "options", "again"),
    [
        (SILENCE, OPTIONS, True),
        (replace(SILENCE, speech=HALF), OPTIONS, False),
        (replace(SILENCE, speech=(0.9, *HALF)), OPTIONS, True),
        (replace(SILENCE, speech=()), OPTIONS, False),  # the detector was not asked
        (replace(SILENCE, avg_logprob=-0.9), OPTIONS, False),  # no silence
        (SILENCE, replace(OPTIONS, no_speech_threshold=None), False),
        (SILENCE, replace(OPTIONS, guards=False), False),
        (SILENCE, replace(OPTIONS, task="translate"), False),
    ],
)
def test_what_the_model_takes_for_silence_and_the_detector_for_speech_is_heard_again(result, options, again) -> None:
    assert is_speech_after_all(result, options) == again


def test_the_text_of_such_a_window_stays_if_witnesses_have_its_words() -> None:
    voiced = replace(WINDOW, voiced=True)
    options = voiced.heard_with(OPTIONS)
    result = replace(SILENCE, failed=True)
    assert reason_to_skip(replace(result, witnesses=4, confirmed=3), voiced, options) is None
    assert reason_to_skip(replace(result, witnesses=4, confirmed=2), voiced, options) == "no_speech"
    assert reason_to_skip(result, WINDOW, OPTIONS) == "no_speech"
    # A witness that is less sure than the text was may stay in its place; that makes no silence of it.
    assert reason_to_skip(replace(result, witnesses=4, confirmed=0), WINDOW, OPTIONS) is None
    assert reason_to_skip(replace(result, witnesses=4, confirmed=0, speech=SILENT), WINDOW, OPTIONS) == "no_voice"


def _recording(seconds: float, **options) -> Recording:
    settings = replace(OPTIONS, **options)
    return Recording(DIMENSIONS["base"], TOKENIZER, settings, n_samples=int(seconds * 16_000))


def test_a_window_is_heard_again_once_and_nothing_moves_meanwhile() -> None:
    recording = _recording(50.0, language=None)
    lane, window = recording.take()
    recording.hear_language({"en": 0.9})
    assert recording.feed(lane, SILENCE) == ()
    again, voiced = recording.take()
    assert again == lane
    assert (voiced.seek, voiced.n_frames, voiced.voiced, recording.frames_done) == (0, 3000, True, 0)
    assert not voiced.settles_language
    assert voiced == replace(window, voiced=True, follows="en")
    segments = recording.feed(lane, replace(SILENCE, confirmed=3, failed=True))
    assert [segment.text for segment in segments] == [" Hello."]
    lane, window = recording.take()
    assert (window.seek, window.voiced, window.prompt) == (3000, False, ())
    recording.feed(lane, SILENCE)
    assert recording.take()[1].voiced
    recording.feed(lane, replace(SILENCE, confirmed=2, failed=True))
    assert recording.done
    assert recording.result().warnings == (Skipped("no_speech", 30.0, 50.0),)


@pytest.mark.parametrize(("guards", "language"), [(True, "de"), (False, "nn")])
def test_the_language_of_a_recording_is_not_that_of_a_window_in_which_nobody_speaks(
    guards: bool, language: str
) -> None:
    recording = _recording(90.0, language=None, guards=guards)
    for heard in ("nn", "cy"):
        lane, window = recording.take()
        if window.settles_language:
            recording.hear_language({heard: 0.3, "de": 0.2})
        recording.feed(lane, replace(SILENCE, language=recording.language, speech=SILENT))
    lane, window = recording.take()
    assert (window.settles_language, window.follows) == ((True, None) if guards else (False, "nn"))
    if guards:
        recording.hear_language({"de": 0.8})
    recording.feed(lane, replace(_result(), language=recording.language))
    result = recording.result()
    assert (result.language, result.language_probability) == (language, 0.8 if guards else 0.3)


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

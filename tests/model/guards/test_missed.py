"""Speech that a window's text passes over: where a text is silent, and from where it is heard again."""

from dataclasses import replace

import pytest

from model.dims import DIMENSIONS, FRAMES_PER_SECOND
from model.guards.missed import drags, passed_over, pauses, resumption, silences, silent_stretches, unheard
from model.longform.recording import Recording
from model.options import TranscribeOptions
from model.segments import Skipped
from model.tokenizer import get_tokenizer
from model.window import DecodingResult, TokenTimes, Window

TOKENIZER = get_tokenizer(DIMENSIONS["base"])
BEGIN = TOKENIZER.timestamp_begin
OPTIONS = TranscribeOptions(language="en")
WINDOW = Window(0, 0, 3000, "en")
HELLO = tuple(TOKENIZER.encode(" Hello."))
LONG = tuple(TOKENIZER.encode(" The cave is on top of one of the mountains north of here."))


def _tokens(*spans: tuple[float, float]) -> tuple[int, ...]:
    return tuple(t for a, b in spans for t in (BEGIN + round(a * 50), *HELLO, BEGIN + round(b * 50)))


def _speech(*spans: tuple[float, float], seconds: float = 30.0) -> tuple[float, ...]:
    return tuple(0.9 if any(a <= i * 0.032 < b for a, b in spans) else 0.1 for i in range(int(seconds / 0.032)))


def _result(tokens: tuple[int, ...], **fields) -> DecodingResult:
    values = {"no_speech_prob": 0.1, "temperature": 0.0, "compression_ratio": 1.0, "avg_logprob": -0.3} | fields
    return DecodingResult(language="en", tokens=tokens, text="Hello.", **values)


@pytest.mark.parametrize(
    ("tokens", "found"),
    [
        (_tokens((0, 5), (5, 29)), []),
        (_tokens((0, 5), (7.9, 29)), []),
        (_tokens((0, 5), (8, 20), (24, 29)), [(500, 800), (2000, 2400)]),
        (_tokens((0, 5)), [(500, 3000)]),
        (_tokens((0, 5), (8, 10)), [(500, 800), (1000, 3000)]),
        ((*_tokens((0, 5), (8, 10)), BEGIN + 500), [(500, 800)]),  # the rest is heard again in any case
        ((BEGIN, *HELLO), []),
        ((*HELLO, BEGIN + 250), []),
        (HELLO, []),
        ((), []),
    ],
)
def test_pauses_of_a_text(tokens, found) -> None:
    assert pauses(tokens, BEGIN, WINDOW) == found


def test_the_end_of_a_short_window_ends_its_last_pause() -> None:
    assert pauses(_tokens((0, 5)), BEGIN, replace(WINDOW, n_frames=799)) == []
    assert pauses(_tokens((0, 5)), BEGIN, replace(WINDOW, n_frames=900)) == [(500, 900)]


@pytest.mark.parametrize(
    ("speech", "frame"),
    [
        (_speech(), None),
        (_speech((12, 13.8)), None),  # too little
        (_speech((12, 16)), 1180),  # from a little before it begins
        (_speech((9, 11), (12, 16)), 1180),  # the pause begins with the segment before it
        (_speech((9, 16)), None),
        (_speech((9, 30)), 1000),  # nobody makes a pause: all of it may be missed
        (_speech((10.2, 14)), None),  # it may be that of the segment before
        (_speech((22, 26)), None),  # behind the pause
    ],
)
def test_missed_speech_is_heard_again_from_its_beginning(speech, frame) -> None:
    found = resumption([(1000, 2000)], speech)
    assert found is None if frame is None else found == pytest.approx(frame, abs=4)


def test_the_first_pause_with_speech_counts() -> None:
    assert resumption([(500, 900), (1000, 1500), (1600, 2000)], _speech((11, 15), (17, 20))) == pytest.approx(
        1080, abs=4
    )
    assert resumption([], _speech((0, 30))) is None


@pytest.mark.parametrize(
    ("speech", "found"),
    [
        (_speech(), [(10.2, 19.8)]),
        (_speech((12, 13)), [(13.2, 19.8)]),  # before it there are less than 2.4 s
        (_speech((14, 15), (16, 16.5)), [(10.2, 13.8), (16.7, 19.8)]),
        (_speech((10, 20)), []),
        (_speech(seconds=12.0), []),  # the window ends
    ],
)
def test_long_silences_of_a_pause_leave_out_what_is_beside_louder_speech(speech, found) -> None:
    places = silences([(1000, 2000)], speech)
    assert [one * 0.032 for place in places for one in place] == pytest.approx(
        [one for place in found for one in place], abs=0.04
    )
    assert silences([], speech) == []


TIMES_AWRY = [0.5 + 0.25 * i for i in range(len(LONG) - 4)] + [13.0, 3.5, 3.7, 13.8, 9.0]
"""Where the decoder looks in a sentence that is said again from 9 s on, three of its last tokens at the later ones."""


@pytest.mark.parametrize(
    ("tokens", "looked", "found"),
    [
        ((BEGIN, *LONG, BEGIN + 900), TIMES_AWRY, [(370, 1800)]),
        ((BEGIN, *LONG, BEGIN + 550), [0.5 + 0.7 * i for i in range(len(LONG))], []),  # said slowly
        ((BEGIN, *LONG, BEGIN + 250), TIMES_AWRY, None),
        (_tokens((0, 5), (15, 17)), [0.4, 0.8, 10.2, 10.4], [(80, 500)]),
        (_tokens((0, 4.5), (5, 20)), [0.4, 0.8, 5.5, 6.0], [(80, 450), (600, 2000)]),
        ((BEGIN, *LONG), TIMES_AWRY, [(370, 3000)]),  # up to the end of the window, as nobody says where it ends
        (HELLO, [0.4, 0.8], [(80, 3000)]),
        ((*_tokens((0, 5), (6, 7)), BEGIN + 400, *HELLO), [0.4, 0.8, 6.2, 6.4, 8.2, 8.4], [(80, 500)]),
        ((), [], None),
    ],
)
def test_what_a_segment_goes_on_for_behind_its_last_words(tokens, looked, found) -> None:
    result = _result(tokens, looked=tuple(looked))
    assert drags(result, WINDOW, BEGIN) == (found is not None)
    assert unheard(result, WINDOW, BEGIN) == (found or [])


def test_all_that_a_text_may_pass_over_is_before_its_first_words_in_its_pauses_and_behind_its_last_words() -> None:
    tokens = (BEGIN, *LONG, BEGIN + 900, BEGIN + 1150, *HELLO, BEGIN + 1200)
    looked = (2.0, *(6.0 + 0.2 * i for i in range(len(LONG) - 1)), 23.1, 23.4)
    last = round(100 * looked[len(LONG) - 1] + 100)
    (before, pause, end, behind) = silent_stretches(_result(tokens, looked=looked), WINDOW, BEGIN)
    assert (before, pause, end) == ((0, 600), (1800, 2300), (2400, 3000))
    assert behind == (pytest.approx(last, abs=101), 1800)
    assert silent_stretches(_result(tokens), WINDOW, BEGIN) == [(1800, 2300), (2400, 3000)]
    quick = _result((BEGIN, *LONG, BEGIN + 250), looked=looked)
    assert silent_stretches(quick, WINDOW, BEGIN) == [(500, 3000)]


@pytest.mark.parametrize(("last", "found"), [(20.0, [(2000, 3000)]), (28.0, [])])
def test_a_text_that_breaks_off_goes_on_where_it_was_looked_at_last(last, found) -> None:
    text = HELLO * 100
    result = _result(text, looked=tuple(last * i / (len(text) - 1) for i in range(len(text))))
    assert unheard(replace(result, endless=True), WINDOW, BEGIN) == found
    assert (drags(replace(result, endless=True), WINDOW, BEGIN), drags(result, WINDOW, BEGIN)) == (True, False)


def test_without_timestamps_what_an_early_end_leaves_is_heard_again() -> None:
    recording = _recording(without_timestamps=True)
    lane, _ = recording.take()
    looked = tuple(0.5 + 0.2 * i for i in range(len(LONG)))
    (first,) = recording.feed(lane, _result(LONG, speech=_speech((0, 4), (6, 20)), looked=looked))
    assert (first.start, first.end) == (0.0, pytest.approx(5.8, abs=0.04))
    assert recording.take()[1].seek == round(first.end * FRAMES_PER_SECOND)


def _recording(**options) -> Recording:
    return Recording(DIMENSIONS["base"], TOKENIZER, replace(OPTIONS, **options), n_samples=60 * 16_000)


def test_what_comes_after_missed_speech_is_decoded_again_with_it() -> None:
    recording = _recording()
    lane, _ = recording.take()
    tokens = _tokens((0, 5), (20, 29))
    segments = recording.feed(lane, _result(tokens, speech=_speech((0, 5), (10, 15), (20, 29))))
    assert [(segment.start, segment.end) for segment in segments] == [(0.0, 5.0)]
    lane, window = recording.take()
    assert window.seek == pytest.approx(980, abs=4)
    assert window.prompt == HELLO or window.prompt[1:-1] == HELLO


def test_a_sentence_that_is_said_again_and_written_once_is_heard_again_each_time() -> None:
    recording, seeks = _recording(), []
    for _ in range(3):
        lane, window = recording.take()
        seeks.append(window.seek)
        length = window.n_frames / 100
        speech = _speech(*((a, a + 4) for a in (0, 5, 10) if a < length), seconds=length)
        looked = tuple(0.5 + 0.2 * i for i in range(len(LONG)))
        recording.feed(lane, _result((BEGIN, *LONG, BEGIN + 700), speech=speech, looked=looked))
    assert seeks == [0, pytest.approx(480, abs=4), pytest.approx(960, abs=8)]
    first, second, _ = recording.result().segments
    assert (first.start, first.end, second.start, second.end) == (0.0, *(s / 100 for s in (seeks[1], *seeks[1:])))


@pytest.mark.parametrize(
    ("said", "n_frames"),
    [
        ([(0, 8), (12, 16)], 820),
        ([(0, 1.8), (12, 16)], None),  # too little
        ([(6, 16)], None),  # nobody makes a pause
        ([(0, 4), (6, 9), (11, 16)], 920),  # its first words are not looked at where they begin
    ],
)
def test_what_is_said_before_the_first_words_of_a_text_is_a_window_for_itself(said, n_frames) -> None:
    recording = _recording()
    lane, _ = recording.take()
    late = _result(
        (BEGIN, *LONG, BEGIN + 900),
        speech=_speech(*said),
        looked=(2.0, *(12.2 + 0.2 * i for i in range(len(LONG) - 1))),
    )
    first = recording.feed(lane, late)
    lane, window = recording.take()
    if n_frames is None:
        assert (len(first), window.seek) == (1, 3000)
        return
    assert (first, window.seek, window.n_frames) == ((), 0, pytest.approx(n_frames, abs=4))
    (first,) = recording.feed(lane, replace(late, speech=_speech(*said, seconds=n_frames / 100)))  # not twice: no loop
    assert recording.take()[1].seek == window.n_frames


def test_only_a_segment_that_lasts_too_long_passes_over_what_is_said_before_its_words() -> None:
    looked = tuple(12.2 + 0.2 * i for i in range(len(LONG)))
    for end, frame in ((900, 920), (250, None)):
        result = _result((BEGIN, *LONG, BEGIN + end), speech=_speech((0, 4), (6, 9), (12, 16)), looked=looked)
        found = passed_over(result, WINDOW, BEGIN)
        assert found is None if frame is None else found == pytest.approx(frame, abs=4)


def test_words_end_where_hearing_begins_again_though_they_are_found_behind_it() -> None:
    recording = _recording(word_timestamps=True)
    lane, _ = recording.take()
    text = (BEGIN, *LONG, BEGIN + 250)
    times = TokenTimes(tuple(9.5 + 0.4 * i for i in range(len(LONG) + 1)), (0.9,) * len(LONG))
    (first,) = recording.feed(lane, _result(text, speech=_speech((0, 5), (10, 15)), token_times=times))
    lane, window = recording.take()
    stop = window.seek / FRAMES_PER_SECOND
    assert stop == pytest.approx(9.8, abs=0.04)
    assert (first.start, first.end) == (9.5, stop)
    assert [word.word for word in first.words[:2]] == [" The", " cave"]
    assert first.words[0].start == 9.5
    assert all(word.start <= word.end <= stop for word in first.words)
    times = TokenTimes((0.0, *(2.0 + 0.4 * i for i in range(len(LONG) - 1))), (0.9,) * (len(LONG) - 1))
    (second,) = recording.feed(lane, _result((*text[:-2], text[-1]), token_times=times))  # behind a pause
    assert second.words[0].start == pytest.approx(stop + 1.2, abs=0.01)


def test_a_window_that_was_heard_again_is_taken_as_it_is_and_the_next_one_is_not() -> None:
    recording, seeks = _recording(), []
    for _ in range(4):
        lane, window = recording.take()
        seeks.append(window.seek)
        recording.feed(lane, _result(_tokens((0, 2)), speech=_speech((0, 2), (4, 10), seconds=window.n_frames / 100)))
    assert seeks == [0, pytest.approx(380, abs=4), pytest.approx(3380, abs=4), pytest.approx(3760, abs=4)]


@pytest.mark.parametrize(
    ("said", "seek"),
    [
        ([(0.0, 5.0), (12.0, 16.0)], 1180),
        ([(4.2, 5.0), (12.0, 16.0)], 1180),
        ([(4.9, 5.0), (12.0, 16.0)], 3000),  # six letters in a tenth of a second
        ([(12.0, 16.0)], 3000),  # what was written stands where nobody speaks
        ([(12.0, 16.0), (21.0, 24.0), (26.0, 29.0)], 2580),  # another one has its own speech, and misses some
    ],
)
@pytest.mark.parametrize("offset", [0, 20])
def test_speech_behind_a_text_that_is_timed_too_early_is_that_of_the_text(said, seek, offset) -> None:
    recording = _recording(clip_timestamps=(float(offset),))
    lane, _ = recording.take()
    tokens = _tokens((0, 5), (20, 24)) if len(said) == 3 else _tokens((0, 5))
    recording.feed(lane, _result(tokens, speech=_speech(*said)))
    assert recording.take()[1].seek == pytest.approx(100 * offset + seek, abs=4)


def test_what_is_missed_first_is_heard_first() -> None:
    recording = _recording()
    lane, _ = recording.take()
    tokens = (BEGIN, *LONG, BEGIN + 700, *_tokens((15, 17), (25, 28)))
    looked = tuple(0.5 + 0.2 * i for i in range(len(LONG) + 2 * len(HELLO)))
    recording.feed(lane, _result(tokens, speech=_speech((0, 4), (6, 10), (19, 23)), looked=looked))
    assert recording.take()[1].seek == pytest.approx(580, abs=4)


@pytest.mark.parametrize(
    ("spoken", "again", "kept"),
    [
        ([(20, 24)], [(0, 6)], 1),
        ([(1, 5), (20, 24)], [(0, 6)], 2),  # it was said
        ([(20, 24)], [(20, 24)], 2),  # the detector does not hear that voice
        ([], [], 2),  # it was not asked
        ([], [(0, 6)], 2),  # only the second time
    ],
)
def test_a_text_that_was_written_before_it_was_said_is_not_kept_again(spoken, again, kept) -> None:
    first = (BEGIN + 50, *LONG, BEGIN + 250)
    recording = _recording()
    lane, _ = recording.take()
    speech = _speech(*spoken) if spoken else ()
    segments = recording.feed(lane, _result((*first, BEGIN + 500, BEGIN + 500, *LONG), speech=speech))
    lane, _ = recording.take()
    segments += recording.feed(lane, _result(first, speech=_speech(*again) if again else ()))
    assert [segment.text.strip() for segment in segments] == [TOKENIZER.decode(LONG).strip()] * kept
    left = [skipped.reason for skipped in recording.result().warnings]
    assert left == ["repetition"] * (2 - kept)


@pytest.mark.parametrize(
    ("said", "seek"),
    [
        ([(4.5, 9.0), (10.0, 14.0)], 3000),  # both sentences are said from the second one's time on
        ([(0.0, 7.0), (10.0, 14.0)], 980),  # each in its own time: the third was missed
        ([(2.5, 7.0), (10.0, 14.0)], 980),  # the second is quick, and nothing waits behind it
    ],
)
def test_what_stands_behind_a_text_that_is_too_early_is_said_after_it(said, seek) -> None:
    recording = _recording()
    lane, _ = recording.take()
    tokens = (BEGIN, *LONG, BEGIN + 200, BEGIN + 200, *LONG, BEGIN + 350)
    recording.feed(lane, _result(tokens, speech=_speech(*said)))
    assert recording.take()[1].seek == pytest.approx(seek, abs=4)


def test_what_was_said_of_one_text_is_not_said_of_the_next_one_too() -> None:
    recording = _recording()
    lane, _ = recording.take()
    tokens = (BEGIN, *LONG, BEGIN + 200, BEGIN + 200, *LONG, BEGIN + 225, *_tokens((5, 7)))
    recording.feed(lane, _result(tokens, speech=_speech((0.0, 4.5), (5.0, 5.4), (10.0, 14.0))))
    assert recording.take()[1].seek == 3000


def test_a_text_that_waited_behind_one_that_was_too_early_is_not_kept_again() -> None:
    other = tuple(TOKENIZER.encode(" Nobody has been up there since the beginning of the winter."))
    last = (BEGIN + 200, *other, BEGIN + 350)
    recording = _recording()
    lane, _ = recording.take()
    kept = recording.feed(lane, _result((BEGIN, *LONG, BEGIN + 200, *last, BEGIN + 350), speech=_speech((4.5, 9.0))))
    lane, _ = recording.take()
    kept += recording.feed(lane, _result(last, speech=_speech((4.0, 7.0))))
    assert [segment.text for segment in kept] == [TOKENIZER.decode(LONG), TOKENIZER.decode(other)]


def test_a_few_words_that_come_again_were_said_twice() -> None:
    recording = _recording()
    words = (BEGIN + 50, *LONG[:6], BEGIN + 250)
    lane, _ = recording.take()
    kept = recording.feed(lane, _result((*words, BEGIN + 500, BEGIN + 500, *LONG), speech=_speech((20, 24))))
    lane, _ = recording.take()
    kept += recording.feed(lane, _result(words, speech=_speech((0, 6))))
    assert [segment.text for segment in kept] == [TOKENIZER.decode(LONG[:6])] * 2


def test_what_stands_behind_a_text_that_comes_again_is_kept() -> None:
    recording = _recording()
    lane, _ = recording.take()
    early = (BEGIN + 50, *LONG, BEGIN + 250)
    kept = recording.feed(lane, _result((*early, BEGIN + 500, BEGIN + 500, *LONG), speech=_speech((20, 24))))
    lane, _ = recording.take()
    kept += recording.feed(lane, _result((*early, *_tokens((6, 8))), speech=_speech((0, 9))))
    assert [segment.text for segment in kept] == [TOKENIZER.decode(LONG), " Hello."]


def test_what_is_left_out_of_a_text_is_named_within_the_recording() -> None:
    recording = Recording(DIMENSIONS["base"], TOKENIZER, OPTIONS, n_samples=20 * 16_000)
    lane, _ = recording.take()
    tokens = (BEGIN, *LONG, BEGIN + 50, BEGIN + 750, *LONG, BEGIN + 1250)
    recording.feed(lane, _result(tokens, speech=_speech((15, 20), seconds=20.0)))
    assert recording.result().warnings == (Skipped("repetition", 15.0, 20.0),)


@pytest.mark.parametrize(
    ("tokens", "fields", "warnings"),
    [
        (HELLO, {}, [(0.0, 30.0)]),
        ((BEGIN + 50, *HELLO), {}, [(1.0, 30.0)]),
        ((BEGIN, *HELLO, BEGIN + 200), {}, [(4.0, 30.0)]),
        ((*_tokens((0, 5), (5, 9)), BEGIN + 450, *HELLO), {}, []),  # the rest is heard again
        (HELLO, {"endless": False}, []),
        (HELLO, {"looked": (0.2, 0.4), "speech": _speech((0, 1))}, []),  # nobody speaks behind it
    ],
)
def test_a_text_that_breaks_off_is_told(tokens, fields, warnings) -> None:
    recording = _recording()
    lane, _ = recording.take()
    recording.feed(lane, _result(tokens, **({"endless": True} | fields)))
    assert recording.result().warnings == tuple(Skipped("token_limit", *place) for place in warnings)


def test_behind_a_sentence_that_was_heard_once_and_went_round_the_rest_is_heard_again() -> None:
    recording = _recording()
    lane, _ = recording.take()
    loop = _result(_tokens((0, 5)), speech=_speech((0, 5), (10, 30)), looped=True, circling=True)
    recording.feed(lane, loop)
    (warning,) = recording.result().warnings
    assert (warning.reason, warning.start) == ("repetition", 5.0)
    assert recording.take()[1].seek == round(100 * warning.end) == pytest.approx(980, abs=4)


@pytest.mark.parametrize(
    "unheard", [{"speech": ()}, {"looped": True}, {"hallucination_silence_threshold": 2.0}], ids=str
)
def test_nothing_is_heard_again_that_the_detector_was_not_asked_about_or_another_guard_judges(unheard) -> None:
    options = {name: value for name, value in unheard.items() if name.startswith("hall")}
    fields = {"speech": _speech((0, 5), (10, 30))} | {
        name: value for name, value in unheard.items() if name not in options
    }
    recording = _recording(**options)
    lane, _ = recording.take()
    recording.feed(lane, _result(_tokens((0, 5)), **fields))
    assert recording.take()[1].seek == 3000

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.dims import DIMENSIONS
from model.errors import OptionError
from model.longform.recording import Recording, needs_speech
from model.longform.transcript import Transcript
from model.options import MAX_CLIP_SECONDS, TranscribeOptions
from model.segments import Segment, Skipped
from model.tokenizer import get_tokenizer
from model.window import DecodingResult, TokenTimes, Window

DIMS = DIMENSIONS["base"]
TOKENIZER = get_tokenizer(DIMS)
BEGIN = TOKENIZER.timestamp_begin


def _answer(window: Window, *, stop: float | None = None, rest: bool = False, silent: bool = False) -> DecodingResult:
    """One segment that says where its window starts, up to `stop`; `rest`: and the start of another."""
    end = BEGIN + round((window.n_frames / 100 if stop is None else stop) / 0.02)
    tokens = (BEGIN, *TOKENIZER.encode(f" {window.seek}"), end)
    if rest:
        tokens = (*tokens, end, *TOKENIZER.encode(" unfinished"))
    return DecodingResult(
        language=window.language or "de", tokens=tokens, text=TOKENIZER.decode(tokens).strip(),
        avg_logprob=-2.0 if silent else -0.3, no_speech_prob=0.9 if silent else 0.1, temperature=0.0,
        compression_ratio=1.0, language_probs={} if window.language else {"de": 0.7, "en": 0.3},
    )  # fmt: skip


def _talk(seconds: float) -> list[float]:
    return [0.05 if i % 312 > 300 else 0.95 for i in range(int(seconds / 0.032) + 1)]


def _recording(seconds: float, heard: list[float] | None = None, **options: Any) -> Recording:
    """A recording in which somebody speaks all the time but for a short pause every 10 s."""
    heard = _talk(seconds) if heard is None else heard
    settings = TranscribeOptions(**{"language": "en"} | options)
    return Recording(DIMS, TOKENIZER, settings, n_samples=int(seconds * 16_000), probabilities=heard)


def _take_all(recording: Recording) -> dict[int, Window]:
    taken = {}
    while recording.waiting:
        lane, window = recording.take()
        taken[lane] = window
    assert recording.take() is None
    return taken


def test_a_batched_recording_offers_all_its_parts_at_once() -> None:
    recording = _recording(100.0, long_form="batched")
    windows = _take_all(recording)
    assert len(windows) == 4
    assert [window.seek for window in windows.values()] == sorted(window.seek for window in windows.values())
    assert sum(window.n_frames for window in windows.values()) == 10_000
    assert len({window.index for window in windows.values()}) == 4


def test_segments_come_out_in_order_of_time_whatever_ends_first() -> None:
    recording = _recording(100.0, long_form="batched", condition_on_previous_text=False)
    windows = _take_all(recording)
    assert recording.feed(2, _answer(windows[2])) == ()
    assert recording.feed(1, _answer(windows[1])) == ()
    first = recording.feed(0, _answer(windows[0]))
    assert [(s.id, s.seek) for s in first] == [(i, windows[i].seek) for i in range(3)]
    assert not recording.done
    assert [s.id for s in recording.feed(3, _answer(windows[3]))] == [3]
    assert recording.done
    result = recording.result()
    assert result.text == "".join(s.text for s in result.segments)
    assert [s.start for s in result.segments] == sorted(s.start for s in result.segments)


def test_the_unfinished_rest_of_a_part_is_heard_again_before_later_parts_come_out() -> None:
    recording = _recording(100.0, long_form="batched", initial_prompt="Foxes.")
    windows = _take_all(recording)
    assert recording.feed(1, _answer(windows[1])) == ()
    first = recording.feed(0, _answer(windows[0], stop=12.0, rest=True))
    assert [(s.start, s.end) for s in first] == [(0.0, 12.0)]
    lane, again = recording.take()
    assert (lane, again.seek, again.n_frames) == (0, 1200, windows[0].n_frames - 1200)
    assert again.prompt == (*windows[0].prompt, *first[0].tokens)
    assert [s.seek for s in recording.feed(0, _answer(again))] == [1200, windows[1].seek]


@pytest.mark.parametrize(
    ("pause", "n_frames", "stop", "again"),
    [
        (0.8, 2280, 22.3, 1),
        (0.8, 2280, 22.48, 0),
        (4.8, 2670, 25.6, 1),
        (4.8, 2670, 25.8, 0),
    ],  # a second and more is heard
)
def test_the_pause_in_which_a_part_was_cut_is_no_window_but_speech_in_it_is(pause, n_frames, stop, again) -> None:
    recording = _recording(
        43.2 + pause, _heard((0.9, 22.4), (0.0, pause), (0.9, 20.0), (0.0, 0.8)), long_form="batched"
    )
    lane, window = recording.take()
    assert window.n_frames == n_frames
    recording.feed(lane, _answer(window, stop=stop, rest=True))
    assert recording.waiting == 1 + again


def test_every_part_begins_with_the_prompt_and_the_language_that_was_heard_first() -> None:
    recording = _recording(100.0, long_form="batched", language=None, initial_prompt="Foxes.")
    _, first = recording.take()
    assert first.language is None
    assert recording.hear_language({"de": 0.8, "en": 0.2}) == "de"
    others = _take_all(recording)
    assert {(window.language, window.follows) for window in others.values()} == {(None, "de")}
    assert {window.prompt for window in others.values()} == {tuple(TOKENIZER.encode(" Foxes."))}
    result = recording.result()
    assert (result.language, result.language_probability) == ("de", 0.8)


def test_a_recording_has_its_first_language_and_its_windows_follow_the_last_one() -> None:
    recording = _recording(100.0, language=None)
    for language, follows in (("de", None), ("fr", "de"), ("fr", "fr")):
        lane, window = recording.take()
        assert window.follows == follows
        recording.feed(lane, replace(_answer(window), language=language, language_probs={language: 0.95}))
    result = recording.result()
    assert (result.language, result.language_probability) == ("de", 0.95)
    assert result.language_probabilities == {"de": 0.95}


def test_a_window_that_was_put_back_is_taken_first() -> None:
    recording = _recording(100.0, long_form="batched")
    taken = dict([recording.take(), recording.take(), recording.take()])
    recording.put_back(1)
    assert recording.take() == (1, taken[1])


@pytest.mark.parametrize("guards", [True, False])
def test_what_the_model_times_beyond_its_part_ends_with_it(guards: bool) -> None:
    recording = _recording(40.0, long_form="batched", guards=guards)
    windows = _take_all(recording)
    (segment,) = recording.feed(0, _answer(windows[0], stop=30.0))
    assert segment.end == windows[0].n_frames / 100 < 30.0


@pytest.mark.parametrize("guards", [True, False])
@pytest.mark.parametrize("long_form", ["sequential", "batched"])
@pytest.mark.parametrize("clip", [1.0, 0.01])
def test_a_segment_ends_with_its_clip_and_begins_in_it(guards, long_form, clip) -> None:
    clips = tuple(point for i in range(2) for point in (i * clip, (i + 1) * clip))
    recording = _recording(60.0, [], long_form=long_form, clip_timestamps=clips, guards=guards)
    segments = []
    while taken := recording.take():
        segments += recording.feed(taken[0], _answer(taken[1], stop=7.5))
    assert [segment.seek for segment in segments] == [0, round(100 * clip)]
    for i, segment in enumerate(segments):
        assert i * clip - 1e-9 <= segment.start < segment.end == pytest.approx((i + 1) * clip)


@pytest.mark.parametrize(("clip", "start"), [(1.0, 0.98), (0.01, 0.0)])
def test_a_segment_that_is_timed_behind_its_clip_is_the_end_of_it(clip: float, start: float) -> None:
    recording = _recording(60.0, [], clip_timestamps=(0.0, clip))
    lane, window = recording.take()
    tokens = (BEGIN + 150, *TOKENIZER.encode(" late"), BEGIN + 300, BEGIN + 300)
    (segment,) = recording.feed(lane, replace(_answer(window), tokens=tokens))
    assert (segment.start, segment.end) == (start, clip)


@pytest.mark.parametrize(("guards", "end"), [(True, 3.0), (False, 9.5)])
def test_guards_end_the_last_segment_with_the_recording(guards, end) -> None:
    recording = _recording(3.0, guards=guards)
    lane, window = recording.take()
    (segment,) = recording.feed(lane, _answer(window, stop=9.5))
    assert segment.end == end


@pytest.mark.parametrize(
    ("guards", "times"),
    [(True, [(1.0, 1.2), (1.2, 1.8), (1.8, 2.0)]), (False, [(0.5, 1.2), (1.2, 1.8), (1.8, 2.5)])],
)
@pytest.mark.parametrize("clips", [(), (0.0, 4.0, 5.0, 9.0)])
def test_guards_keep_words_within_their_segment(guards, times, clips) -> None:
    recording = _recording(9.0, guards=guards, word_timestamps=True, clip_timestamps=clips)
    lane, window = recording.take()
    tokens = (BEGIN + 50, *TOKENIZER.encode(" one fox jumps"), BEGIN + 100, BEGIN + 100)
    heard = TokenTimes((0.4, 1.2, 1.8, 2.6), (0.9,) * 3)
    (segment,) = recording.feed(lane, replace(_answer(window), tokens=tokens, token_times=heard))
    assert (segment.start, segment.end) == (1.0, 2.0)
    assert [(word.start, word.end) for word in segment.words] == times
    assert recording.frames_done == 250  # as in the reference, the next window begins behind the last word


@pytest.mark.parametrize("guards", [True, False])
def test_guards_end_words_with_the_recording(guards) -> None:
    recording = _recording(2.2, guards=guards, word_timestamps=True)
    lane, window = recording.take()
    tokens = (BEGIN, *TOKENIZER.encode(" one fox"), BEGIN + 112)
    heard = TokenTimes((0.1, 0.6, 3.0), (0.9,) * 2)
    (segment,) = recording.feed(lane, replace(_answer(window), tokens=tokens, token_times=heard))
    last = segment.words[-1]
    assert (segment.end <= 2.2, last.end <= 2.2) == (guards, guards)
    assert last.start < last.end


def _heard(*pieces: tuple[float, float]) -> list[float]:
    return [probability for probability, seconds in pieces for _ in range(round(seconds / 0.032))]


@pytest.mark.parametrize("long_form", ["sequential", "batched"])
def test_with_vad_only_speech_is_heard_and_the_rest_reported(long_form) -> None:
    heard = _heard((0.0, 12.8), (0.9, 6.4), (0.0, 12.8), (0.9, 3.2), (0.0, 4.8))
    recording = _recording(40.0, heard, vad=True, long_form=long_form)
    seen = []
    while taken := recording.take():
        seen.append((taken[1].seek, taken[1].seek + taken[1].n_frames))
        recording.feed(taken[0], _answer(taken[1]))
    assert recording.done
    assert seen == [(1240, 1960), (3160, 3560)]
    assert recording.result().warnings == (
        Skipped("vad", 0.0, 12.4),
        Skipped("vad", 19.6, 31.6),
        Skipped("vad", 35.6, 40.0),
    )


@pytest.mark.parametrize("long_form", ["sequential", "batched"])
def test_a_recording_without_speech_is_done_at_once(long_form) -> None:
    recording = _recording(70.0, [0.01] * 2188, vad=True, long_form=long_form)
    assert recording.done
    assert recording.take() is None
    result = recording.result()
    assert (result.text, result.segments) == ("", ())
    assert result.warnings == (Skipped("vad", 0.0, 70.0),)


def test_silent_windows_next_to_each_other_are_one_warning() -> None:
    recording = _recording(170.0)
    while taken := recording.take():
        recording.feed(taken[0], _answer(taken[1], silent=not 6000 <= taken[1].seek < 9000))
    assert recording.result().warnings == (Skipped("no_speech", 0.0, 60.0), Skipped("no_speech", 90.0, 170.0))


def test_warnings_of_two_reasons_stay_two() -> None:
    recording = _recording(22.4, _heard((0.0, 12.8), (0.9, 6.4), (0.0, 3.2)), vad=True)
    lane, window = recording.take()
    recording.feed(lane, _answer(window, silent=True))
    spans = [("vad", 0.0, 12.4), ("no_speech", 12.4, 19.6), ("vad", 19.6, 22.4)]
    assert recording.result().warnings == tuple(Skipped(*span) for span in spans)


def test_clips_are_cut_and_only_they_are_heard() -> None:
    recording = _recording(200.0, long_form="batched", clip_timestamps=(10.0, 60.0, 100.0, 110.0, 190.0, 900.0))
    spans = [(w.seek, w.seek + w.n_frames) for w in _take_all(recording).values()]
    assert (spans[0][0], spans[1][1]) == (1000, 6000)
    assert spans[0][1] == spans[1][0]
    assert spans[2:] == [(10_000, 11_000), (19_000, 20_000)]


@pytest.mark.parametrize("long_form", ["sequential", "batched"])
def test_clips_may_end_long_after_the_recording(long_form) -> None:
    recording = _recording(20.0, long_form=long_form, clip_timestamps=(5.0, MAX_CLIP_SECONDS))
    ((_, window),) = _take_all(recording).items()
    assert (window.seek, window.n_frames) == (500, 1500)
    with pytest.raises(OptionError) as error:
        TranscribeOptions(clip_timestamps=(0.0, MAX_CLIP_SECONDS + 1))
    assert error.value.param == "clip_timestamps"


@pytest.mark.parametrize("long_form", ["sequential", "batched"])
@pytest.mark.parametrize(
    ("clips", "empty"),
    [
        ((1.0, 5.0, 25.0, 30.0), (25.0, 30.0)),
        ((1.0, 5.0, 20.0, 30.0), (20.0, 30.0)),
        ((1.0, 5.0, 25.0), (25.0, 25.0)),
        ((1.0, 1.0, 1.0, 5.0), (1.0, 1.0)),
        ((1.0, 5.0, 19.0, 90.0), None),
    ],
)
def test_a_clip_with_nothing_to_hear_is_named(clips, empty, long_form) -> None:
    recording = _recording(20.0, long_form=long_form, clip_timestamps=clips)
    while taken := recording.take():
        recording.feed(taken[0], _answer(taken[1]))
    assert recording.result().warnings == (() if empty is None else (Skipped("empty_clip", *empty),))


@pytest.mark.parametrize("clips", [(20.0, 30.0), (20.0,), (5.0, 5.0), (5.0, 5.001), (30.0, 31.0, 40.0)])
def test_clips_that_have_no_part_of_the_recording_are_refused(clips) -> None:
    with pytest.raises(OptionError, match=r"20 s long") as error:
        needs_speech(TranscribeOptions(clip_timestamps=clips), 20 * 16_000)
    assert error.value.param == "clip_timestamps"


def test_where_nothing_is_known_of_speech_the_end_of_a_clip_is_heard() -> None:
    heard = {}
    for long_form in ("sequential", "batched"):
        recording = _recording(40.0, [], long_form=long_form, clip_timestamps=(0.0, 10.0, 20.0, 30.0))
        heard[long_form] = []
        while taken := recording.take():
            lane, window = taken
            heard[long_form].append(window.seek)
            recording.feed(lane, _answer(window, stop=9.2, rest=True) if window.n_frames == 1000 else _answer(window))
    assert heard["sequential"] == [0, 920, 2000, 2920]
    assert sorted(heard["batched"]) == heard["sequential"]


def test_a_long_prompt_is_read_once_for_all_parts(monkeypatch) -> None:
    read = []
    encode = TOKENIZER.encode
    monkeypatch.setattr(TOKENIZER, "encode", lambda text: (read.append(text), encode(text))[1])
    speech = [0.9 if i % 80 < 10 else 0.0 for i in range(20_000)]
    options = {"initial_prompt": "Foxes and dogs. " * 500, "hotwords": "Reynard " * 500}
    recording = _recording(640.0, speech, long_form="batched", vad=True, **options)
    windows = _take_all(recording).values()
    assert len(windows) > 100
    assert len(read) == 2
    assert {len(window.prompt) for window in windows} == {223}


@pytest.mark.parametrize(
    ("options", "seconds", "wanted"),
    [
        ({}, 100.0, False),
        ({"vad": True}, 1.0, True),
        ({"long_form": "batched"}, 30.0, False),
        ({"long_form": "batched"}, 30.1, True),
        ({"long_form": "batched", "clip_timestamps": (5.0, 20.0)}, 100.0, False),
        ({"long_form": "batched", "clip_timestamps": (5.0, 20.0, 30.0)}, 100.0, True),
    ],
)
def test_probabilities_are_asked_for_only_where_they_are_used(options, seconds, wanted) -> None:
    settings = TranscribeOptions(language="en", **options)
    n_samples = int(seconds * 16_000)
    assert needs_speech(settings, n_samples) == wanted
    if wanted:
        with pytest.raises(ValueError, match="need speech"):
            Recording(DIMS, TOKENIZER, settings, n_samples=n_samples)
    else:
        assert Recording(DIMS, TOKENIZER, settings, n_samples=n_samples).waiting


moves = st.tuples(st.floats(1.0, 29.0), st.booleans(), st.booleans())


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.sampled_from([1.0, 30.0, 31.0, 95.0]),
    script=st.lists(moves, min_size=1, max_size=6),
    order=st.integers(0, 2**32).map(random.Random),
    vad=st.booleans(),
)
def test_nothing_is_heard_twice_or_missed_in_any_order(seconds, script, order, vad) -> None:
    """What is heard is the same as what a `Transcript` over each part alone hears."""
    talk = _talk(seconds)
    recording = _recording(seconds, talk, long_form="batched", vad=vad)
    parts: dict[int, Window] = {}
    running: dict[int, Window] = {}
    given_out: list[Segment] = []
    fed: dict[int, list[tuple[Window, DecodingResult]]] = {}
    while not recording.done:
        while recording.waiting and (not running or order.random() < 0.7):
            lane, window = recording.take()
            assert lane not in running
            parts.setdefault(lane, window)
            running[lane] = window
        lane = order.choice(sorted(running))
        window = running.pop(lane)
        if order.random() < 0.2:
            recording.put_back(lane)
            continue
        stop, rest, silent = script[window.seek % len(script)]
        stop = min(stop, window.n_frames / 100)
        result = _answer(window, stop=stop, rest=rest and stop >= 0.04, silent=silent)
        fed.setdefault(lane, []).append((window, result))
        given_out += recording.feed(lane, result)
    assert tuple(given_out) == recording.result().segments
    assert [s.id for s in given_out] == list(range(len(given_out)))
    assert [s.seek for s in given_out] == sorted(s.seek for s in given_out)
    for lane, part in parts.items():
        alone = Transcript(
            DIMS, TOKENIZER, TranscribeOptions(language="en"), n_samples=int(seconds * 16_000),
            clips=[(part.seek, part.seek + part.n_frames)], first_window=part.index,
        )  # fmt: skip
        for window, result in fed[lane]:
            assert alone.next_window() == window
            alone.feed(result)
        if rest := alone.next_window():
            unheard = talk[math.ceil(rest.seek / 3.2) : int((rest.seek + rest.n_frames) / 3.2)]
            assert rest.n_frames <= 100
            assert max(unheard, default=0.0) < 0.35

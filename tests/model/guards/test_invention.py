"""What looks invented, and what is dropped of it: the reference's figures, which its loop keeps to itself."""

import pytest

from model.dims import DIMENSIONS
from model.guards.invention import Verdict, is_suspect, judge, rest_of
from model.segments import Segment, Word
from model.tokenizer import get_tokenizer
from model.window import Window

TOKENIZER = get_tokenizer(DIMENSIONS["base"])
BEGIN = TOKENIZER.timestamp_begin
SAID, MADE_UP = 0.9, 0.1


def _segment(start: float, end: float, *words: Word) -> Segment:
    return Segment(0, 0, start, end, " x", (), 0.0, -0.3, 1.0, 0.1, words=words)


def _spoken(start: float, end: float, probability: float | None) -> Segment:
    """A segment of one word of this probability; of none."""
    words = () if probability is None else (Word(" x", start, min(start + 1.0, end), probability),)
    return _segment(start, end, *words)


@pytest.mark.parametrize(
    ("words", "suspect"),
    [
        ([], False),
        ([(" a", SAID, 0.4)], False),
        ([(" a", 0.15, 0.4)], False),
        ([(" a", 0.14, 0.4)], True),
        ([(" a", MADE_UP, 0.4), (" b", SAID, 0.4)], False),  # not all of them
        ([(" a", MADE_UP, 0.4)] * 3 + [(" b", SAID, 0.4)] * 9, True),  # three are enough
        ([(" a", SAID, 0.4)] * 5 + [(" b", MADE_UP, 0.4)] * 3, True),
        ([(" a", SAID, 0.4)] * 6 + [(" b", MADE_UP, 0.4)] * 3, False),  # of the first eight
        ([(" a", SAID, 0.06)], True),
        ([(" a", SAID, 0.08)], False),
        ([(" a", SAID, 3.0)], True),
        ([(" a", SAID, 2.9)], False),
        ([(" a", MADE_UP, 0.4), (",", SAID, 0.4), ("?", SAID, 0.4)], True),  # marks are no words
        ([(" a", SAID, 0.4), *[(",", MADE_UP, 0.4)] * 3], False),
    ],
)  # fmt: skip
def test_a_segment_is_suspect_by_how_sure_and_how_long_its_first_words_are(words, suspect) -> None:
    segment = _segment(0.0, 9.0, *(Word(word, 0.0, length, probability) for word, probability, length in words))
    assert is_suspect(segment) is suspect


BEFORE, BEHIND = (0.0, 8.0, SAID), (16.0, 18.0, SAID)


@pytest.mark.parametrize(
    ("segments", "kept", "seek"),
    [
        ([BEFORE, (12.0, 12.5, MADE_UP), BEHIND], 1, 1200),
        ([BEFORE, (12.0, 12.5, SAID), BEHIND], 3, 3000),
        ([BEFORE, (9.5, 12.5, MADE_UP), BEHIND], 3, 3000),  # no silence before it
        ([BEFORE, (12.0, 14.5, MADE_UP), BEHIND], 3, 3000),  # none behind it
        ([BEFORE, (8.0, 11.5, None), (12.0, 12.5, MADE_UP), BEHIND], 2, 1200),  # what has no words is silence
        ([BEFORE, (12.0, 12.5, MADE_UP), (13.0, 15.0, None), BEHIND], 1, 1200),
        ([BEFORE, (12.0, 15.0, MADE_UP), (16.0, 18.0, MADE_UP), BEHIND], 1, 1200),  # or is invented as well
        ([BEFORE, (12.0, 12.5, MADE_UP)], 1, 1200),
        ([(0.0, 24.0, SAID), (27.0, 28.5, MADE_UP), (29.0, 30.0, SAID)], 1, 2700),  # at the window's end
        ([(1.5, 2.5, MADE_UP), BEHIND], 0, 150),  # at its beginning
        ([(0.2, 2.5, MADE_UP), BEHIND], 0, 100),  # by a second at least
    ],
)
def test_what_looks_invented_is_dropped_between_silences(segments, kept, seek) -> None:
    made = [_spoken(*one) for one in segments]
    verdict = judge(
        made, Window(0, 0, 3000, "en"), seek=3000, n_frames=6000, threshold=2.0, last_speech=0.0, rest="complete"
    )
    assert (verdict.segments, verdict.seek, verdict.discarded) == (tuple(made[:kept]), seek, False)


def test_behind_silence_a_first_segment_that_looks_invented_makes_the_window_count_for_nothing() -> None:
    made = [_spoken(12.0, 13.0, MADE_UP), _spoken(*BEHIND)]
    window = Window(0, 0, 3000, "en")
    verdict = judge(made, window, seek=3000, n_frames=6000, threshold=2.0, last_speech=0.0, rest="complete")
    assert verdict == Verdict((), 1200, (0.0, 12.0), discarded=True)


@pytest.mark.parametrize(("offset", "kept"), [(0, 0), (30, 1)])
def test_the_beginning_of_a_recording_is_a_silence(offset: int, kept: int) -> None:
    made = [_spoken(offset + 2.5, offset + 3.5, MADE_UP)]
    window = Window(0, 100 * offset, 3000, "en")
    verdict = judge(
        made, window, seek=window.seek + 3000, n_frames=9000, threshold=3.0, last_speech=float(offset), rest="complete"
    )
    assert len(verdict.segments) == kept


@pytest.mark.parametrize(("end", "seek"), [(11.9, 1100), (12.5, 1400)])
def test_what_looks_invented_at_the_end_of_a_recording_is_its_end(end: float, seek: int) -> None:
    made = [_spoken(0.0, 8.0, SAID), _spoken(11.0, end, MADE_UP), _spoken(13.0, 14.0, MADE_UP)]
    window = Window(0, 0, 1400, "en")
    verdict = judge(made, window, seek=1400, n_frames=1400, threshold=2.0, last_speech=0.0, rest="complete")
    assert (verdict.segments, verdict.seek) == (tuple(made[:1]), seek)


@pytest.mark.parametrize(
    ("tokens", "rest"),
    [
        ((BEGIN, 400, BEGIN + 5), "complete"),
        ((BEGIN, 400), "open"),
        ((BEGIN, 400, BEGIN + 5, BEGIN + 5), "open"),
        ((BEGIN, 400, BEGIN + 5, BEGIN + 5, 500), "unfinished"),
    ],
)
def test_a_window_ends_with_a_timestamp_or_in_the_middle(tokens, rest) -> None:
    assert rest_of(tokens, TOKENIZER) == rest

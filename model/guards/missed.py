"""Speech that the text of a window passes over. Pure.

Between two segments, or behind the last one, a text may leave out whole sentences, most of all after a pause: the model
takes up again where somebody speaks later. `pauses` says where a text is silent for long, which the voice activity
detector is then asked about, and `resumption` where to begin to hear again what it heard there. Text is also written
before it is said: where too little is said for it (`is_early`), the speech behind it is its own and was not missed, and
a text that comes again with that speech was said once (`Echoes`).
"""

from collections.abc import Sequence
from itertools import pairwise

from model.dims import FRAMES_PER_SECOND
from model.guards.repetition import PHRASE
from model.segments import Segment
from model.voice.speech import CHUNK_FRAMES, CHUNK_SECONDS, THRESHOLD, Stretch
from model.window import TIMESTAMP_SECONDS, Window, ends_with_time, segment_ends

_TIME_FRAMES = round(TIMESTAMP_SECONDS * FRAMES_PER_SECOND)
_LEAST_PAUSE = 300
"""Frames from which on a text is silent for long."""
_LEAST_SPEECH = 2.0
"""Seconds of speech in it that are worth another window."""
_SILENCE = 0.5
"""Seconds of silence, before which the speech may be that of the segment before, timed too early."""
_MARGIN = 20
"""Frames before the speech from which on it is heard again."""
_FASTEST = 30.0
"""Letters that nobody says in a second: readers come to 14 to 24 (benchmarks/LOG.md)."""


def pauses(tokens: Sequence[int], timestamp_begin: int, window: Window) -> list[Stretch]:
    """Where the text of a window is silent for long and is not heard again in any case: frames of the window."""
    cuts = segment_ends(tokens, timestamp_begin)
    parts = [tokens[start:stop] for start, stop in pairwise([0, *cuts])] if cuts else [tokens]
    spans = [[(part[i] - timestamp_begin) * _TIME_FRAMES for i in (0, -1)] for part in parts if part]
    if not spans or min(min(span) for span in spans) < 0:
        return []  # a text without timestamps at its ends
    ends = [end for _, end in spans]
    starts = [start for start, _ in spans[1:]]
    if ends_with_time(tokens, timestamp_begin):
        starts.append(window.n_frames)
    return [(end, start) for end, start in zip(ends, starts, strict=False) if start - end >= _LEAST_PAUSE]


def is_early(segment: Segment, speech: Sequence[float]) -> bool:
    """Whether nobody can have said a segment's text in the speech of its time: it was said later.

    `speech`: the probability of each 32 ms of its window.
    """
    offset = segment.seek / FRAMES_PER_SECOND
    first, last = (round((time - offset) / CHUNK_SECONDS) for time in (segment.start, segment.end))
    spoken = sum(probability >= THRESHOLD for probability in speech[first:last])
    return len(segment.text.strip()) > _FASTEST * spoken * CHUNK_SECONDS


class Echoes:
    """Tells texts that come again, in their window or the next one, because they were written before they were said."""

    def __init__(self) -> None:
        self._early: set[str] = set()
        """What the window before wrote too early."""

    def sift(self, segments: Sequence[Segment], speech: Sequence[float]) -> tuple[list[Segment], list[Segment]]:
        """A window's segments to keep, and those whose text stands there already; `speech` as in `is_early`.

        A text of a few words may be said twice. So is one that the detector hears nobody say the second time either: it
        is deaf to that voice then.
        """
        kept: list[Segment] = []
        echoes: list[Segment] = []
        before, self._early = self._early, set()
        for segment in segments:
            early = bool(speech) and is_early(segment, speech)
            if not early and segment.text in before | self._early and len(segment.tokens) >= PHRASE + 2:
                echoes.append(segment)
                continue
            kept.append(segment)
            if early:
                self._early.add(segment.text)
        return kept, echoes


def resumption(stretches: Sequence[Stretch], speech: Sequence[float]) -> int | None:
    """The frame of the window at which the first speech begins that a pause passes over; None where none does.

    `speech`: the probability of each 32 ms of the window. The speech that a pause begins with counts for nothing where
    silence follows it.
    """
    for start, end in stretches:
        first, last = -int(-start // CHUNK_FRAMES), min(int(end / CHUNK_FRAMES), len(speech))
        onset = _onset(speech[first:last])
        heard = sum(probability >= THRESHOLD for probability in speech[first + onset : last])
        if heard * CHUNK_FRAMES >= _LEAST_SPEECH * FRAMES_PER_SECOND:
            return max(start, round((first + onset) * CHUNK_FRAMES) - _MARGIN)
    return None


def _onset(speech: Sequence[float]) -> int:
    """Where the first speech after a silence begins; 0 where there is no silence."""
    patience = _SILENCE * FRAMES_PER_SECOND / CHUNK_FRAMES
    silent = 0
    for i, probability in enumerate(speech):
        if probability >= THRESHOLD and silent >= patience:
            return i
        silent = silent + 1 if probability < THRESHOLD else 0
    return len(speech) if silent >= patience else 0

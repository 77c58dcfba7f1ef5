"""Speech that the text of a window passes over. Pure.

Between two segments, or behind the last one, a text may leave out whole sentences, most of all after a pause: the model
takes up again where somebody speaks later. `pauses` says where a text is silent for long, which the voice activity
detector is then asked about, and `resumption` where to begin to hear again what it heard there.
"""

from collections.abc import Sequence
from itertools import pairwise

from model.dims import FRAMES_PER_SECOND
from model.speech import CHUNK_FRAMES, THRESHOLD, Stretch
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

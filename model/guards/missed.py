"""Speech that the text of a window passes over. Pure.

Between two segments, or behind the last one, a text may leave out whole sentences, most of all after a pause: the model
takes up again where somebody speaks later. `pauses` says where a text is silent for long, which the voice activity
detector is then asked about, and `resumption` where to begin to hear again what it heard there. What is said several
times may be written once, in a segment as long as all of it: where one `drags`, the decoder's attention says where its
last words were heard, and what it goes on for behind them (`unheard`) is such a pause as well. Where its first words
were heard long after it begins, what it has `passed_over` is a window for itself. A text without timestamps is one
segment as long as its window; the model ends it early more often than one with timestamps. Text is also written
before it is said: where too little is said for it (`early`), the speech behind it is its own and was not missed, and a
text that comes again with that speech was said once (`Echoes`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from model.dims import FRAMES_PER_SECOND
from model.guards.repetition import PHRASE
from model.segments import Segment
from model.voice.speech import CHUNK_FRAMES, CHUNK_SECONDS, THRESHOLD, Stretch
from model.window import TIMESTAMP_SECONDS, DecodingResult, Window, ends_with_time, segment_ends

_TIME_FRAMES = round(TIMESTAMP_SECONDS * FRAMES_PER_SECOND)
_LEAST_PAUSE = 300
"""Frames from which on a text is silent for long."""
_TOKEN_FRAMES = 30
"""What a token of text takes to say, or less."""
_LAST_TOKENS, _LAST_SECONDS = 5, 1.0
"""Tokens at an end of a segment, and what they take to say; up to three look at where the same is said again."""
_LEAST_SPEECH = 2.0
"""Seconds of speech in it that are worth another window."""
_SILENCE = 0.5
"""Seconds of silence, before which the speech may be that of the segment before, timed too early."""
_EDGE = 6
"""Pieces at an end of a silence in which a louder voice may still sound."""
_MARGIN = 20
"""Frames before the speech from which on it is heard again."""
_FASTEST = 30.0
"""Letters that nobody says in a second: readers come to 14 to 24 (benchmarks/LOG.md)."""


def pauses(tokens: Sequence[int], timestamp_begin: int, window: Window) -> list[Stretch]:
    """Where the text of a window is silent for long and is not heard again in any case: frames of the window."""
    parts = _parts(tokens, timestamp_begin)
    spans = [[(part[i] - timestamp_begin) * _TIME_FRAMES for i in (0, -1)] for part in parts if part]
    if not spans or min(min(span) for span in spans) < 0:
        return []  # a text without timestamps at its ends
    ends = [end for _, end in spans]
    starts = [start for start, _ in spans[1:]]
    if ends_with_time(tokens, timestamp_begin):
        starts.append(window.n_frames)
    return [(end, start) for end, start in zip(ends, starts, strict=False) if start - end >= _LEAST_PAUSE]


def silent_stretches(result: DecodingResult, window: Window, timestamp_begin: int) -> list[Stretch]:
    """All that the text of a window may pass over, frames of it: pauses, what is `unheard`, and what is before its
    first words where it was asked at what the decoder looked."""
    first = _timed(result, window, timestamp_begin)[0]
    before = [(0, round(_first_look(result, first) * FRAMES_PER_SECOND))] if result.looked and first.drags else []
    return [*before, *pauses(result.tokens, timestamp_begin, window), *unheard(result, window, timestamp_begin)]


def silences(stretches: Sequence[Stretch], speech: Sequence[float]) -> list[tuple[int, int]]:
    """Where the detector hears nobody for long in such stretches: pieces of 32 ms, first and behind the last.

    It is deaf to a voice far below its neighbours (40 dB), and hears it in such a silence by itself.
    """
    found: list[tuple[int, int]] = []
    for stretch in stretches:
        first, last = _pieces(stretch, speech)
        loud = [i for i in range(first, last) if speech[i] >= THRESHOLD]
        for before, behind in pairwise([first - 1, *loud, last]):
            if (behind - before) * CHUNK_SECONDS >= _LEAST_SPEECH + 2 * _EDGE * CHUNK_SECONDS:
                found.append((before + 1 + _EDGE, behind - _EDGE))
    return found


def drags(result: DecodingResult, window: Window, timestamp_begin: int) -> bool:
    """Whether a segment of the window lasts long beyond what it takes to say its text, or its text breaks off."""
    return any(part.drags for part in _timed(result, window, timestamp_begin))


def unheard(result: DecodingResult, window: Window, timestamp_begin: int) -> list[Stretch]:
    """What such segments go on for behind their last words: frames of the window, each up to its segment's end.

    None where nobody asked at what the decoder looked.
    """
    if not result.looked:
        return []
    stretches: list[Stretch] = []
    seconds = iter(result.looked)
    for part in _timed(result, window, timestamp_begin):
        heard = list(islice(seconds, part.n_text))
        if part.drags:
            last = sorted(heard[-_LAST_TOKENS:])
            latest = last[:2][-1] + _LAST_SECONDS
            said = round(max(one for one in last if one <= latest) * FRAMES_PER_SECOND)
            stretches.append((said, part.end))
    return [(said, end) for said, end in stretches if end - said >= _LEAST_PAUSE]


def passed_over(result: DecodingResult, window: Window, timestamp_begin: int) -> int | None:
    """The frame of the window at which speech ends that its first segment covers and begins behind; None for none.

    What goes on without a silence up to the first words is theirs.
    """
    part = _timed(result, window, timestamp_begin)[0]
    if not result.looked or not part.drags:
        return None
    before = result.speech[: int(_first_look(result, part) / CHUNK_SECONDS)]
    gap = _onset(before[::-1])
    heard = sum(probability >= THRESHOLD for probability in before[: len(before) - gap])
    if not gap or heard * CHUNK_SECONDS < _LEAST_SPEECH:
        return None
    return round((len(before) - gap) * CHUNK_FRAMES) + _MARGIN


def _first_look(result: DecodingResult, part: "_Part") -> float:
    """Where the first segment's first words were heard, in seconds; up to three tokens of five look before them."""
    first = sorted(result.looked[: min(_LAST_TOKENS, part.n_text)])
    earliest = first[-2:][0] - _LAST_SECONDS
    return min(one for one in first if one >= earliest)


@dataclass(frozen=True, slots=True)
class _Part:
    """A segment by its tokens."""

    n_text: int
    end: int
    """Frame of the window."""
    drags: bool
    """Whether it lasts longer than its text by a long pause, or breaks off."""


def _timed(result: DecodingResult, window: Window, timestamp_begin: int) -> list[_Part]:
    """The segments of a window; a text without a timestamp at its beginning or end lasts from or to the window's."""
    timed: list[_Part] = []
    for part in _parts(result.tokens, timestamp_begin):
        times = [(token - timestamp_begin) * _TIME_FRAMES for token in part if token >= timestamp_begin]
        n_text = len(part) - len(times)
        start = times[0] if part and part[0] >= timestamp_begin else 0
        is_open = n_text > 0 and part[-1] < timestamp_begin
        end = window.n_frames if is_open or not times else times[-1]
        is_long = end - start - n_text * _TOKEN_FRAMES >= _LEAST_PAUSE
        timed.append(_Part(n_text, end, n_text > 0 and (is_long or (is_open and result.endless))))
    return timed


def _parts(tokens: Sequence[int], timestamp_begin: int) -> list[Sequence[int]]:
    """The tokens of each segment; all of them where no pair of timestamps cuts the window."""
    cuts = segment_ends(tokens, timestamp_begin)
    return [tokens[start:stop] for start, stop in pairwise([0, *cuts])] if cuts else [tokens]


def early(segments: Sequence[Segment], speech: Sequence[float]) -> list[bool]:
    """Which segments of a window were said later: by their ends nobody can have said all that is written.

    People speak in the order of the text: what stands behind a text that is too early waits until that has been said.
    `speech`: the probability of each 32 ms of the window.
    """
    flags: list[bool] = []
    waiting, heard = 0.0, 0  # letters that are written and not said yet; pieces of speech looked at
    for segment in segments:
        offset = segment.seek / FRAMES_PER_SECOND
        first, last = (round((time - offset) / CHUNK_SECONDS) for time in (segment.start, segment.end))
        waiting = max(0.0, waiting - _sayable(speech[heard:first])) + len(segment.text.strip())
        waiting = max(0.0, waiting - _sayable(speech[first:last]))
        heard = max(heard, last)
        flags.append(waiting > 0.0)
    return flags


def _sayable(speech: Sequence[float]) -> float:
    """Letters that somebody can say in this time at most."""
    return _FASTEST * CHUNK_SECONDS * sum(probability >= THRESHOLD for probability in speech)


class Echoes:
    """Tells texts that come again, in their window or the next one, because they were written before they were said."""

    def __init__(self) -> None:
        self._early: set[str] = set()
        """What the window before wrote too early."""

    def sift(self, segments: Sequence[Segment], speech: Sequence[float]) -> tuple[list[Segment], list[Segment]]:
        """A window's segments to keep, and those whose text stands there already; `speech` as in `early`.

        A text of a few words may be said twice. So is one that the detector hears nobody say the second time either: it
        is deaf to that voice then.
        """
        kept: list[Segment] = []
        echoes: list[Segment] = []
        before, self._early = self._early, set()
        flags = early(segments, speech) if speech else [False] * len(segments)
        for segment, is_early in zip(segments, flags, strict=True):
            if not is_early and segment.text in before | self._early and len(segment.tokens) >= PHRASE + 2:
                echoes.append(segment)
                continue
            kept.append(segment)
            if is_early:
                self._early.add(segment.text)
        return kept, echoes


def resumption(stretches: Sequence[Stretch], speech: Sequence[float]) -> int | None:
    """The frame of the window at which the first speech begins that a pause passes over; None where none does.

    `speech`: the probability of each 32 ms of the window. The speech that a pause begins with counts for nothing where
    silence follows it.
    """
    for start, end in stretches:
        first, last = _pieces((start, end), speech)
        onset = _onset(speech[first:last])
        heard = sum(probability >= THRESHOLD for probability in speech[first + onset : last])
        if heard * CHUNK_FRAMES >= _LEAST_SPEECH * FRAMES_PER_SECOND:
            return max(start, round((first + onset) * CHUNK_FRAMES) - _MARGIN)
    return None


def _pieces(stretch: Stretch, speech: Sequence[float]) -> tuple[int, int]:
    """The first of the pieces of 32 ms that lie in a stretch, and the one behind the last."""
    start, end = stretch
    return -int(-start // CHUNK_FRAMES), min(int(end / CHUNK_FRAMES), len(speech))


def _onset(speech: Sequence[float]) -> int:
    """Where the first speech after a silence begins; 0 where there is no silence."""
    patience = _SILENCE * FRAMES_PER_SECOND / CHUNK_FRAMES
    silent = 0
    for i, probability in enumerate(speech):
        if probability >= THRESHOLD and silent >= patience:
            return i
        silent = silent + 1 if probability < THRESHOLD else 0
    return len(speech) if silent >= patience else 0

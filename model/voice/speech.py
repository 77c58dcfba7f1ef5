"""Speech probabilities to stretches of a recording: what is heard at all, and where it may be cut. Pure.

Gets one probability per 32 ms from `model.voice.vad`, gives stretches in frames of 10 ms to `model.longform.recording`.

- `speech` finds where somebody speaks, as Silero's own program does: a probability above the threshold starts speech,
  one below a lower threshold ends it once the silence has lasted, and each stretch is padded.
- `cut` divides a stretch into parts of at most one window. It loses nothing: each part begins where the one before
  ends. It cuts in the longest pause after 20 s, or sooner where that costs no further window; where nobody pauses, at
  the least likely speech.

Source: snakers4/silero-vad, `get_speech_timestamps`; Bain et al., "WhisperX" (2023), section 2, for cutting at the
least likely speech.
"""

from collections.abc import Iterator, Sequence

from model.dims import FRAMES_PER_SECOND, HOP_LENGTH, N_FRAMES

Stretch = tuple[int, int]
"""First frame, and the frame after the last."""

CHUNK_FRAMES = 512 / HOP_LENGTH
CHUNK_SECONDS = CHUNK_FRAMES / FRAMES_PER_SECOND
"""What one probability stands for."""
THRESHOLD = 0.5
_LOWER = 0.35
"""Speech ends below this: the threshold less 0.15, as in Silero's program."""
_MIN_SILENCE = 2.0
_MIN_SPEECH = 0.1
_PADDING = 0.4
_LEAST_PART = 20.0
"""Seconds that a part has at least, unless shorter parts cost no further window."""
_SHORTEST_PART = 5.0
_LONG_PAUSE = 1.0
"""Pauses of at least this many seconds are as good as one another: the latest wins."""


def speech(probabilities: Sequence[float], n_frames: int) -> list[Stretch]:
    """Stretches in which somebody speaks, padded by 0.4 s, in order; silence shorter than 2 s does not part them."""
    padding = round(_PADDING * FRAMES_PER_SECOND)
    stretches: list[Stretch] = []
    for first, last in _runs(probabilities):
        start = max(0, int(first * CHUNK_FRAMES) - padding)
        end = min(n_frames, -int(-last * CHUNK_FRAMES // 1) + padding)
        if stretches and start <= stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], end)
        elif start < end:
            stretches.append((start, end))
    return stretches


def _runs(probabilities: Sequence[float]) -> Iterator[tuple[int, int]]:
    """First and one past the last chunk of each run of speech."""
    patience = _MIN_SILENCE * FRAMES_PER_SECOND / CHUNK_FRAMES
    least = _MIN_SPEECH * FRAMES_PER_SECOND / CHUNK_FRAMES
    start: int | None = None
    silent: int | None = None
    for i, probability in enumerate(probabilities):
        if probability >= THRESHOLD:
            start, silent = i if start is None else start, None
        elif start is not None and probability < _LOWER:
            silent = i if silent is None else silent
            if i - silent >= patience:
                if silent - start >= least:
                    yield start, silent
                start = silent = None
    if start is not None:
        yield start, len(probabilities) if silent is None else silent


def overlap(stretches: Sequence[Stretch], others: Sequence[Stretch]) -> list[Stretch]:
    """What lies in both; each of the two is in order and free of overlaps."""
    both = [(max(a, c), min(b, d)) for a, b in stretches for c, d in others]
    return [(start, end) for start, end in both if start < end]


def gaps(stretches: Sequence[Stretch], within: Sequence[Stretch]) -> list[Stretch]:
    """What of `within` lies in none of the stretches; both in order and free of overlaps."""
    result = []
    for start, end in within:
        for first, last in overlap([(start, end)], stretches):
            if start < first:
                result.append((start, first))
            start = last
        if start < end:
            result.append((start, end))
    return result


def cut(stretch: Stretch, probabilities: Sequence[float], *, limit: int = N_FRAMES) -> list[Stretch]:
    """The stretch in parts of at most `limit` frames that follow each other without a gap."""
    start, end = stretch
    parts = []
    while end - start > limit:
        spare = limit * -(-(end - start) // limit) - (end - start)
        least = min(_LEAST_PART * FRAMES_PER_SECOND, max(limit - spare, _SHORTEST_PART * FRAMES_PER_SECOND))
        point = _best_cut(start + min(round(least), limit - 1), start + limit, probabilities)
        parts.append((start, point))
        start = point
    return [*parts, (start, end)]


def last_speech(stretch: Stretch, probabilities: Sequence[float]) -> int:
    """The frame of a stretch after which nobody speaks in it, however doubtful the sound; its start if nobody does."""
    start, end = stretch
    for i in range(min(int(end / CHUNK_FRAMES), len(probabilities) - 1), int(start / CHUNK_FRAMES) - 1, -1):
        if probabilities[i] >= _LOWER:
            return min(end, max(start, -int(-(i + 1) * CHUNK_FRAMES // 1)))
    return start


def _best_cut(earliest: int, latest: int, probabilities: Sequence[float]) -> int:
    """The frame in (earliest, latest] to cut at: in the longest pause, else at the least likely speech."""
    chunks = range(round(earliest / CHUNK_FRAMES), min(int(latest / CHUNK_FRAMES), len(probabilities)))
    if not chunks:
        return latest
    most = round(_LONG_PAUSE * FRAMES_PER_SECOND / CHUNK_FRAMES)
    length, longest = 0, 0
    middle = min(chunks, key=lambda i: probabilities[i]) + 0.5
    for i in chunks:
        length = min(length + 1, most) if probabilities[i] < _LOWER else 0
        if length and length >= longest:
            longest, middle = length, i + 1 - length / 2
    return max(earliest + 1, min(latest, round(middle * CHUNK_FRAMES)))

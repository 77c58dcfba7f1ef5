"""Text that was probably invented over silence, by the look of its words. Pure.

Gets the segments of a window with their words from `model.longform.transcript`, and says which of them to drop and
where to go on. A word is suspect when it is improbable, very short or very long; a segment, when most of its words are.
What stands between silences and is suspect is taken out, and the silence before it is not heard again: the next window
starts at the text, which without the silence before it often comes out right.

Source: openai/whisper `transcribe.py` (hallucination_silence_threshold).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from model.dims import FRAMES_PER_SECOND, N_FRAMES
from model.segments import Segment, Word
from model.tokenizer import Tokenizer
from model.window import Window, ends_with_time, finished_tokens
from model.words import speech_end

_PUNCTUATION = "\"'“¿([{-\"'.。,，!！?？:：”)]}、"
_MAX_JUDGED = 8


@dataclass(frozen=True, slots=True)
class Verdict:
    """What stays of a window."""

    segments: tuple[Segment, ...]
    seek: int
    """Frame of the recording at which to go on."""
    skipped: tuple[float, float] | None = None
    """Seconds of the recording that give no text and will not be heard again."""
    discarded: bool = False
    """Whether the window counts for nothing: it will be heard again without the silence before it."""


def judge(
    segments: Sequence[Segment],
    window: Window,
    *,
    seek: int,
    n_frames: int,
    threshold: float,
    last_speech: float,
    rest: Literal["complete", "open", "unfinished"],
) -> Verdict:
    """Drop suspect segments between silences of more than `threshold` seconds.

    `seek`: where the transcript would go on; `n_frames`: length of the recording; `last_speech`: when the last word
    before the window ended; `rest`: whether the window ends with a single timestamp (`complete`), without it
    (`open`), or with text that belongs to no segment (`unfinished`).
    """
    offset = window.seek / FRAMES_PER_SECOND
    skipped = None
    end = speech_end(segments)
    if rest != "complete" and end is not None and end > offset and _window_end(window) - end <= threshold:
        seek = window.seek + window.n_frames
        skipped = _stretch(end, seek) if rest == "unfinished" else None
    first = _next_with_words(segments)
    if first is not None and is_suspect(first) and first.start - offset > threshold:
        seek = window.seek + round((first.start - offset) * FRAMES_PER_SECOND)
        return Verdict((), seek, _stretch(offset, seek), discarded=True)
    for i, segment in enumerate(segments):
        if not segment.words:
            continue
        if is_suspect(segment) and _stands_alone(segments, i, window, threshold, last_speech):
            seek = round(max(offset + 1, segment.start) * FRAMES_PER_SECOND)
            if n_frames / FRAMES_PER_SECOND - segment.end < threshold:
                seek = n_frames
            return Verdict(tuple(segments[:i]), seek, _stretch(segment.start, seek))
        last_speech = segment.end
    return Verdict(tuple(segments), seek, skipped)


def rest_of(tokens: tuple[int, ...], tokenizer: Tokenizer) -> Literal["complete", "open", "unfinished"]:
    """What a window ends with; see `judge`."""
    if ends_with_time(tokens, tokenizer.timestamp_begin):
        return "complete"
    rest = tokens[len(finished_tokens(tokens, tokenizer.timestamp_begin)) :]
    return "unfinished" if any(token < tokenizer.eot for token in rest) else "open"


def is_suspect(segment: Segment | None) -> bool:
    """Whether most of the segment's first words, or three of them, look invented."""
    if segment is None or not segment.words:
        return False
    words = [word for word in segment.words if word.word not in _PUNCTUATION][:_MAX_JUDGED]
    score = sum(_suspicion(word) for word in words)
    return score >= 3 or score + 0.01 >= len(words)


def _suspicion(word: Word) -> float:
    length = word.end - word.start
    score = 1.0 if word.probability < 0.15 else 0.0
    if length < 0.133:
        score += (0.133 - length) * 15
    if length > 2.0:
        score += length - 2.0
    return score


def _stands_alone(
    segments: Sequence[Segment], index: int, window: Window, threshold: float, last_speech: float
) -> bool:
    """Whether silence, the window's edge or another suspect is on both sides of a segment."""
    segment, following = segments[index], _next_with_words(segments[index + 1 :])
    offset = window.seek / FRAMES_PER_SECOND
    next_start = offset + window.n_frames / FRAMES_PER_SECOND
    if following is not None and following.words:
        next_start = following.words[0].start
    before = segment.start - last_speech > threshold or segment.start < threshold or segment.start - offset < 2.0
    after = next_start - segment.end > threshold or is_suspect(following) or _window_end(window) - segment.end < 2.0
    return before and after


def _next_with_words(segments: Sequence[Segment]) -> Segment | None:
    return next((segment for segment in segments if segment.words), None)


def _window_end(window: Window) -> float:
    """Seconds; of a whole window, even where less of it has content, as in the reference."""
    return (window.seek + N_FRAMES) / FRAMES_PER_SECOND


def _stretch(start: float, seek: int) -> tuple[float, float] | None:
    """From a time to a frame, in seconds; None if nothing is between."""
    end = seek / FRAMES_PER_SECOND
    return (start, end) if end > start else None

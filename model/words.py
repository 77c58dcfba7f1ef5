"""Token times of a window to the words of its segments. Pure.

Gets `TokenTimes` from `model.decoding.alignment` and segments from `model.longform.transcript`; gives the segments back
with words, and with starts and ends that agree with them.

What the attention says of a word's length is not to be trusted across pauses: a word next to one soaks up the silence.
So words around the ends of sentences and segments are held to twice the median length.

Source: openai/whisper `timing.py` (add_word_timestamps, merge_punctuations), whose times these are.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from model.dims import FRAMES_PER_SECOND
from model.options import TranscribeOptions
from model.segments import Segment, Word
from model.tokenizer import Tokenizer
from model.window import TokenTimes

_SENTENCE_ENDS = ".。!！?？"
_LONGEST_MEDIAN = 0.7
"""Seconds; what a word takes at most, for the purpose of calling others long."""


@dataclass(slots=True)
class _Timing:
    """A word while its times are being corrected; seconds from the start of the window, then of the recording."""

    word: str
    n_tokens: int
    start: float
    end: float
    probability: float


def add_words(
    segments: Sequence[Segment],
    times: TokenTimes,
    tokenizer: Tokenizer,
    *,
    language: str,
    options: TranscribeOptions,
    last_speech: float,
) -> list[Segment]:
    """The segments of one window with their words; a segment with words starts and ends with them.

    `last_speech`: when the last word before this window ended, in seconds of the recording.
    """
    text = [token for segment in segments for token in segment.tokens if token < tokenizer.eot]
    timings = _timings(text, times, tokenizer, language)
    median = _median_length(timings)
    _shorten_at_sentence_ends(timings, 2 * median)
    _merge_punctuation(timings, options.prepend_punctuations, options.append_punctuations)
    rest = iter(timings)
    result = []
    for segment in segments:
        n_tokens = sum(token < tokenizer.eot for token in segment.tokens)
        segment = _with_words(segment, _take(rest, n_tokens, segment.seek / FRAMES_PER_SECOND), median, last_speech)
        if segment.words:
            last_speech = segment.end
        result.append(segment)
    return result


def speech_end(segments: Sequence[Segment]) -> float | None:
    """When the last word ends, or the last segment where there is no word; None of no segments."""
    for segment in reversed(segments):
        if segment.words:
            return segment.words[-1].end
    return segments[-1].end if segments else None


def clamped(segment: Segment, start: float, end: float) -> Segment:
    """The segment from `start` to `end`, in seconds of the recording, with no word that reaches beyond."""
    words = segment.words and tuple(
        replace(word, start=min(max(word.start, start), end), end=min(max(word.end, start), end))
        for word in segment.words
    )
    return replace(segment, start=start, end=end, words=words)


def _timings(text: list[int], times: TokenTimes, tokenizer: Tokenizer, language: str) -> list[_Timing]:
    """One for each word, in the window's seconds."""
    words, word_tokens = tokenizer.split_to_word_tokens([*text, tokenizer.eot], language)
    result = []
    first = 0
    for word, tokens in zip(words[:-1], word_tokens[:-1], strict=True):
        last = first + len(tokens)
        probability = sum(times.probabilities[first:last]) / len(tokens)
        result.append(_Timing(word, len(tokens), times.boundaries[first], times.boundaries[last], probability))
        first = last
    return result


def _median_length(timings: list[_Timing]) -> float:
    lengths = [timing.end - timing.start for timing in timings if timing.end != timing.start]
    return min(_LONGEST_MEDIAN, statistics.median(lengths)) if lengths else 0.0


def _shorten_at_sentence_ends(timings: list[_Timing], longest: float) -> None:
    """A full stop that soaked up a pause ends sooner; a word after one starts later."""
    for i in range(1, len(timings)):
        timing = timings[i]
        if timing.end - timing.start > longest:
            if timing.word in _SENTENCE_ENDS:
                timing.end = timing.start + longest
            elif timings[i - 1].word in _SENTENCE_ENDS:
                timing.start = timing.end - longest


def _merge_punctuation(timings: list[_Timing], prepended: str, appended: str) -> None:
    """Give marks to the words that they belong to; what has been given away is left without text and tokens."""
    following = len(timings) - 1
    for i in reversed(range(len(timings) - 1)):
        mark = timings[i]
        if mark.word.startswith(" ") and mark.word.strip() in prepended:
            _move(mark, timings[following], before=True)
        else:
            following = i
    previous = 0
    for i in range(1, len(timings)):
        if not timings[previous].word.endswith(" ") and timings[i].word in appended:
            _move(timings[i], timings[previous], before=False)
        else:
            previous = i


def _move(mark: _Timing, word: _Timing, *, before: bool) -> None:
    word.word = mark.word + word.word if before else word.word + mark.word
    word.n_tokens += mark.n_tokens
    mark.word, mark.n_tokens = "", 0


def _take(rest: Iterator[_Timing], n_tokens: int, offset: float) -> list[_Timing]:
    """The words of the next `n_tokens` tokens, in the recording's seconds."""
    taken = []
    while n_tokens > 0 and (timing := next(rest, None)) is not None:
        n_tokens -= timing.n_tokens
        if timing.word:
            start, end = round(offset + timing.start, 2), round(offset + timing.end, 2)
            taken.append(replace(timing, start=start, end=end))
    return taken


def _with_words(segment: Segment, words: list[_Timing], median: float, last_speech: float) -> Segment:
    if not words:
        return replace(segment, words=())
    _shorten_after_pause(words, median, last_speech)
    start, end = segment.start, segment.end
    first, last = words[0], words[-1]
    # The model's own timestamps are believed where the outer words reach far beyond them.
    if start < first.end and start - 0.5 > first.start:
        first.start = max(0.0, min(first.end - median, start))
    else:
        start = first.start
    if end > last.start and end + 0.5 < last.end:
        last.end = max(last.start + median, end)
    else:
        end = last.end
    done = tuple(Word(word.word, word.start, word.end, word.probability) for word in words)
    return replace(segment, start=start, end=end, words=done)


def _shorten_after_pause(words: list[_Timing], median: float, last_speech: float) -> None:
    """The first two words after a pause may have soaked it up."""
    longest = 2 * median
    first, second = words[0], words[1] if len(words) > 1 else None
    if first.end - last_speech <= 4 * median:
        return
    if first.end - first.start > longest or (second and second.end - first.start > 2 * longest):
        if second and second.end - second.start > longest:
            first.end = second.start = second.end - longest
        first.start = first.end - longest

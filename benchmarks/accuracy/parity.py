"""Token parity of two transcriptions of one waveform: equal or not, and, window by window, where and why not.

Pure: gets the decodings of both systems as `Attempt`s (`benchmarks.accuracy.systems`), and the size of a choice from
`benchmarks.accuracy.gap`. Windows before the first difference are equal, so the differing choice was made on the same
audio, prompt and tokens; everything after it follows from it and is not counted again.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from model.options import TranscribeOptions
from model.segments import Transcription

Reason = Literal["near tie", "language detection", "threshold", "temperature sampling", "other"]

NEAR_TIE = {"float32": 0.01, "float16": 0.1, "bfloat16": 0.5, "int8": 0.5}
"""Difference of log-probabilities (or of a figure from its threshold) below which rounding decides."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One decoding of one window at one temperature."""

    window: int
    temperature: float
    tokens: tuple[int, ...]
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first choice in which two systems differ."""

    window: int
    temperature: float
    position: int | None = None
    """Index of the first differing token in the window; None where the tokens are equal, the decision after is not."""
    ours: int | None = None
    reference: int | None = None
    """The tokens there; None is the end of text."""
    margin: float | None = None
    """How close the decision was: distance of a figure from its threshold, for a difference that is not a token."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A clip whose tokens differ, explained."""

    file: str
    reason: Reason
    divergence: Divergence | None
    gap: float | None
    """Log-probability of the reference's choice less ours, as the reference sees it; None where it has none."""
    detail: str


def tokens_of(transcription: Transcription) -> list[int]:
    """All tokens of all segments, timestamps included."""
    return [token for segment in transcription.segments for token in segment.tokens]


def timestamps_equal(one: Transcription, other: Transcription) -> bool:
    """Whether both have the same segments at the same times, to a millisecond."""
    return len(one.segments) == len(other.segments) and all(
        a.seek == b.seek and abs(a.start - b.start) < 1e-3 and abs(a.end - b.end) < 1e-3
        for a, b in zip(one.segments, other.segments, strict=True)
    )


def first_divergence(ours: Sequence[Attempt], reference: Sequence[Attempt]) -> Divergence | None:
    """The first choice that differs: a token, or whether to decode a window again; None if every decoding is equal."""
    previous: Attempt | None = None
    for a, b in itertools.zip_longest(ours, reference):
        if a is None or b is None or (a.window, a.temperature) != (b.window, b.temperature):
            # The attempt before was equal, and only one of the two was content with it.
            last = previous or a or b
            return Divergence(last.window, last.temperature, margin=threshold_margin(last))
        if a.tokens != b.tokens:
            position = _first_difference(a.tokens, b.tokens)
            return Divergence(a.window, a.temperature, position, _at(a.tokens, position), _at(b.tokens, position))
        previous = b
    return None


def threshold_margin(attempt: Attempt) -> float:
    """How far the attempt's nearest figure is from the threshold on which fallback and silence are decided."""
    limits = TranscribeOptions()
    pairs = (
        (attempt.avg_logprob, limits.logprob_threshold),
        (attempt.compression_ratio, limits.compression_ratio_threshold),
        (attempt.no_speech_prob, limits.no_speech_threshold),
    )
    return min(abs(value - limit) for value, limit in pairs if limit is not None)


def classify(divergence: Divergence | None, gap: float | None, *, near: float) -> Reason:
    """Why the systems differ, given that their languages do not."""
    if divergence is None:
        return "other"
    if divergence.position is None:
        return "threshold" if divergence.margin is not None and divergence.margin < near else "other"
    if divergence.temperature > 0:
        return "temperature sampling"
    return "near tie" if gap is not None and abs(gap) < near else "other"


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = enumerate(itertools.zip_longest(one, other))
    return next(index for index, (a, b) in pairs if a != b)


def _at(tokens: Sequence[int], position: int) -> int | None:
    return tokens[position] if position < len(tokens) else None

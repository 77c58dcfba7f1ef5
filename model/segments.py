"""What comes out: timed segments of one recording. Frozen and free of torch; times are seconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SkipReason = Literal[
    "no_speech", "hallucination", "vad", "no_voice", "repetition", "unconfirmed", "token_limit", "empty_clip"
]
SKIP_REASONS: Mapping[SkipReason, str] = {
    "no_speech": "the model heard no speech in a window (`no_speech_threshold`)",
    "hallucination": "the text there looked invented between silences (`hallucination_silence_threshold`)",
    "vad": "the voice activity detector heard nobody",
    "no_voice": "a window's text was doubtful, and the detector heard nobody there either",
    "repetition": "the text there said again what it had said",
    "unconfirmed": "words of a doubtful text there that other attempts leave out (all three: `guards`)",
    "token_limit": "a window's text has as many tokens as it may, and breaks off somewhere there",
    "empty_clip": "one of `clip_timestamps` behind the end of the recording, or of no length",
}
"""What each reason says of the stretch that was skipped."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it is written, with its blank before and its punctuation, and when it was said."""

    word: str
    start: float
    end: float
    probability: float
    """Mean of its tokens' probabilities."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech with its text, and the evidence for it; the names are the reference's."""

    id: int
    seek: int
    """Frame (10 ms) at which the segment's window starts."""
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] | None = None
    """None where nobody asked for words."""
    language: str = "en"
    """What was spoken in the segment's window."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A stretch of the recording that gave no text; never lost without a word."""

    reason: SkipReason
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Transcription:
    """One recording's result."""

    task: str
    language: str
    """What was spoken first; a segment may be in another language (`Segment.language`). "en" where nobody named it
    and no window was heard (`vad`)."""
    language_probability: float | None
    """Probability of the detected language; None where that was not: the caller named it, the model knows English
    alone, or no window was heard."""
    duration: float
    text: str
    segments: tuple[Segment, ...]
    language_probabilities: dict[str, float] = field(default_factory=dict)
    """Every language the model knows, when it was asked to detect one."""
    warnings: tuple[Skipped, ...] = ()
    """What was skipped, in order of time."""

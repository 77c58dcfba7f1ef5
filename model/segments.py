"""What comes out: timed segments of one recording. Frozen and free of torch; times are seconds."""

from dataclasses import dataclass, field


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


@dataclass(frozen=True, slots=True)
class Transcription:
    """One recording's result."""

    task: str
    language: str
    language_probability: float | None
    """Probability of the detected language; None where the caller named the language."""
    duration: float
    text: str
    segments: tuple[Segment, ...]
    language_probabilities: dict[str, float] = field(default_factory=dict)
    """Every language the model knows, when it was asked to detect one."""

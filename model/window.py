"""One window of a recording: what is asked of the decoder, and what it answers. Pure, free of torch.

A window is the unit of work: at most 30 s of one recording, decoded by one row of the batch (or several: beams,
candidates), over which the fallback ladder of the paper (section 4.5) runs without encoding again.
"""

import zlib
from dataclasses import dataclass, field

from model.options import TranscribeOptions
from model.tokenizer import Tokenizer

MAX_PROMPT_TOKENS = 448 // 2 - 1
"""Half the text context, less the token that starts the previous text."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a recording to be decoded next."""

    index: int
    """Counts the windows of a recording; seeds its sampling."""
    seek: int
    """First Mel frame (10 ms)."""
    n_frames: int
    """Frames with content; the rest up to 3000 is padding."""
    language: str | None
    """None: detect it from this window's encoder output."""
    prompt: tuple[int, ...] = ()
    """Tokens of the text before."""


@dataclass(frozen=True, slots=True)
class DecodingResult:
    """The best hypothesis for one window; the names are the reference's."""

    language: str
    tokens: tuple[int, ...]
    """Sampled tokens with timestamps, without the end of text."""
    text: str
    avg_logprob: float
    no_speech_prob: float
    temperature: float
    compression_ratio: float
    language_probs: dict[str, float] = field(default_factory=dict)
    """Every language, where this window detected it."""


def compression_ratio(text: str) -> float:
    """Bytes of the text over bytes of its zlib compression: high for a text that repeats itself."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def is_silent(result: DecodingResult, options: TranscribeOptions) -> bool:
    """Whether the window is to be skipped as silence: no speech, and a text that the model does not believe."""
    if options.no_speech_threshold is None or result.no_speech_prob <= options.no_speech_threshold:
        return False
    return options.logprob_threshold is None or result.avg_logprob <= options.logprob_threshold


def fallback_reason(result: DecodingResult, options: TranscribeOptions) -> str | None:
    """Why the window must be decoded again at a higher temperature, or None: it is good, or it is silence."""
    improbable = options.logprob_threshold is not None and result.avg_logprob < options.logprob_threshold
    if improbable and options.no_speech_threshold is not None and result.no_speech_prob > options.no_speech_threshold:
        return None
    if (
        options.compression_ratio_threshold is not None
        and result.compression_ratio > options.compression_ratio_threshold
    ):
        return "compression_ratio"
    return "logprob" if improbable else None


def initial_tokens(tokenizer: Tokenizer, window: Window, language: str, options: TranscribeOptions) -> tuple[int, ...]:
    """The tokens before the first sampled one: previous text, start of transcript, language, task.

    The prompt keeps its last 223 tokens (half the text context less one), as in the reference.
    """
    start = tokenizer.sot_sequence(language, options.task)
    if options.without_timestamps:
        start = (*start, tokenizer.no_timestamps)
    if not window.prompt:
        return start
    return (tokenizer.sot_prev, *window.prompt[-MAX_PROMPT_TOKENS:], *start)

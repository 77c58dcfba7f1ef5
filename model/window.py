"""One window of a recording: what is asked of the decoder, and what it answers. Pure, free of torch.

A window is the unit of work: at most 30 s of one recording, decoded by one row of the batch (or several: beams,
candidates), over which the fallback ladder of the paper (section 4.5) runs without encoding again.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from model.options import TranscribeOptions
from model.tokenizer import Tokenizer

MAX_PROMPT_TOKENS = 448 // 2 - 1
"""Half the text context, less the token that starts the previous text."""
CLEAR_CHANGE = 0.9
"""Probability from which another language than before is believed (benchmarks/LOG.md)."""
SURE_LOGPROB = -0.7
"""From here on nobody else is asked about a text, unless something else speaks against the window."""
SEARCH_BEAMS = 4
"""Of a search for a better text than an unsure one. Five, as the reference's command line has, find none better."""
TIMESTAMP_SECONDS = 0.02
"""What a timestamp token counts in, in every published model: 1500 positions for 30 s."""
Place = tuple[int, int | None]
"""The timestamp tokens around something that was left out; None where the text ends without one."""


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
    n_fixed: int = 0
    """Of the prompt's first tokens, those that its caller wrote, which stay whatever language is spoken."""
    follows: str | None = None
    """Language of the recording so far, for a window that detects its own: only a clear change counts."""
    voiced: bool = False
    """Whether somebody was heard to speak in what the model took for silence: it is decoded as speech."""

    def heard_with(self, options: TranscribeOptions) -> TranscribeOptions:
        """The options that it is decoded with: nothing is silence where somebody speaks."""
        return replace(options, no_speech_threshold=None) if self.voiced else options

    @property
    def settles_language(self) -> bool:
        """Whether the recording's language is what is heard here: nobody named one, or spoke in a window before."""
        return self.language is None and self.follows is None


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """Where the text tokens of a window's segments are in its audio."""

    boundaries: tuple[float, ...]
    """Seconds from the window's start: token i lasts from `boundaries[i]` to `boundaries[i + 1]`."""
    probabilities: tuple[float, ...]
    """Of each token, given those before it."""


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
    token_times: TokenTimes | None = None
    """Where words were asked for, and the window is not silent."""
    failed: bool = False
    """Whether every temperature failed a threshold; told only where `guards` are on."""
    logprobs: tuple[float, ...] = field(default=(), compare=False, repr=False)
    """Of each token, where it is known: not of a text that was changed."""
    doubted: bool = False
    """Whether what it said before a search was doubtful, however probable its text is now."""
    endless: bool = False
    """Whether the text has as many tokens as it may have, and no end of its own."""
    circling: bool = False
    """Whether it says again what was heard once, by its attention; asked where it was sure of what it says again."""
    repeating: bool = False
    """Whether the text ends in a loop, though it passed the thresholds; told only where `guards` are on."""
    looped: bool = False
    """Whether the text was cut because it went on in a loop."""
    repeats: tuple[Place, ...] = ()
    """Around what was left out because the text says it before."""
    witnesses: int = 0
    """Other attempts that it was held against (`model.guards.doubt`)."""
    confirmed: int = 0
    """Words that most of the witnesses have too, where there were any."""
    unconfirmed: tuple[Place, ...] = ()
    """Around what was left out because other attempts have nothing in its place."""
    looked: tuple[float, ...] = ()
    """Seconds of the window at which the decoder looked when it wrote each token of text, where there was a reason to
    ask (`model.guards.missed`)."""
    speech: tuple[float, ...] = ()
    """Speech probability of each 32 ms of the window, where there was a reason to ask (`model.guards.doubt`)."""


def written_tokens(tokenizer: Tokenizer, text: str | None) -> tuple[int, ...]:
    """Tokens of a text that a caller wrote, as a continuation; nothing in it is special."""
    return tuple(tokenizer.encode(" " + text.strip())) if text else ()


@dataclass(frozen=True, slots=True)
class Written:
    """What a caller wrote to stand before windows, in tokens, as far as it can ever take part in a prompt."""

    initial: tuple[int, ...]
    """What the text begins with."""
    fixed: tuple[int, ...]
    """What stays in front of every window."""
    n_carried: int
    """Tokens of `initial` that stand in `fixed` already."""

    @classmethod
    def of(cls, options: TranscribeOptions, tokenizer: Tokenizer) -> "Written":
        """Read the options once for all windows: the texts may be long, and the windows many."""
        initial = written_tokens(tokenizer, options.initial_prompt)
        hotwords = written_tokens(tokenizer, options.hotwords)[:MAX_PROMPT_TOKENS]
        if not options.carry_initial_prompt:
            return cls(initial[-MAX_PROMPT_TOKENS:], hotwords, 0)
        room = MAX_PROMPT_TOKENS - len(hotwords)
        carried = initial[max(0, len(initial) - room) :]
        return cls(carried, (*hotwords, *carried), len(carried))


def spoken_language(probabilities: Mapping[str, float], follows: str | None) -> str:
    """The language of a window: the most probable one, or the one of the windows before while that is not clear.

    A window of music, of silence or of two words says little about its language. A change is taken where the other
    language is at least `CLEAR_CHANGE` probable; "en" for a model that knows no languages.
    """
    likeliest = max(probabilities, key=lambda code: probabilities[code], default=follows or "en")
    if follows is None or probabilities.get(likeliest, 0.0) >= CLEAR_CHANGE:
        return likeliest
    return follows


def compression_ratio(text: str) -> float:
    """Bytes of the text over bytes of its zlib compression: high for a text that repeats itself."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def is_silent(result: DecodingResult, options: TranscribeOptions) -> bool:
    """Whether the window is to be skipped as silence: no speech, and a text that the model does not believe.

    Witnesses are heard about no text that is silence by this; that one of them may stay in its place, being less
    probable, makes no silence of it.
    """
    if result.witnesses:
        return False
    if not sounds_silent(result, options):
        return False
    return options.logprob_threshold is None or result.avg_logprob <= options.logprob_threshold


def sounds_silent(result: DecodingResult, options: TranscribeOptions) -> bool:
    """Whether the model hears nobody in the window, whatever it wrote."""
    return options.no_speech_threshold is not None and result.no_speech_prob > options.no_speech_threshold


def goes_round(result: DecodingResult, options: TranscribeOptions) -> bool:
    """Whether the text compresses so well that it must repeat itself."""
    limit = options.compression_ratio_threshold
    return limit is not None and result.compression_ratio > limit


def segment_ends(tokens: Sequence[int], timestamp_begin: int) -> list[int]:
    """Index after the last token of each segment; [] where no pair of timestamps cuts the window into segments.

    Two neighbouring timestamps end a segment and start the next. A single timestamp at the end means that no speech
    follows it; otherwise the rest after the last pair is unfinished, and belongs to no segment.
    """
    is_time = [token >= timestamp_begin for token in tokens]
    ends = [i + 1 for i in range(len(tokens) - 1) if is_time[i] and is_time[i + 1]]
    if ends and ends_with_time(tokens, timestamp_begin):
        ends.append(len(tokens))
    return ends


def ends_with_time(tokens: Sequence[int], timestamp_begin: int) -> bool:
    """Whether a single timestamp ends the window: everything said in it was written."""
    return [token >= timestamp_begin for token in tokens[-2:]] == [False, True]


def finished_tokens(tokens: Sequence[int], timestamp_begin: int) -> Sequence[int]:
    """The tokens that become segments: all but an unfinished rest after a pair of timestamps."""
    ends = segment_ends(tokens, timestamp_begin)
    return tokens[: ends[-1]] if ends else tokens


def fallback_reason(result: DecodingResult, options: TranscribeOptions) -> str | None:
    """Why the window must be decoded again at a higher temperature, or None: it is good, or it is silence."""
    improbable = options.logprob_threshold is not None and result.avg_logprob < options.logprob_threshold
    if improbable and sounds_silent(result, options):
        return None
    if goes_round(result, options):
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

"""What a caller may ask of one recording. Frozen and free of torch, so that it crosses every process boundary.

Names and defaults are the reference's (`whisper.transcribe` and `DecodingOptions`, openai/whisper 20250625).
"""

import itertools
import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from model.errors import OptionError

Task = Literal["transcribe", "translate"]
LongForm = Literal["sequential", "batched"]

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""The fallback ladder of the paper, section 4.5."""
MAX_TEMPERATURES = 16
MAX_MARKS = 256
MAX_WIDTH = 16
"""Beams or samples of one window at most."""
MAX_SAMPLE_LEN = 224
"""Half the text context of every published model."""
MAX_SUPPRESSED = 512
MAX_TEXT_ID = 50_257
"""The end of a text; what is above it are languages, tasks and times, which have options of their own."""
MAX_CLIP_SECONDS = 10_000_000
"""Nothing that anybody recorded is as long as that, and its frames can still be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscribeOptions:
    """Options for one recording; `OptionError` names the first one that is out of bounds."""

    task: Task = "transcribe"
    language: str | None = None
    """A language code (`en`), or None to detect it on the first window."""
    temperature: tuple[float, ...] = TEMPERATURES
    """Tried in order while a window fails a threshold below."""
    beam_size: int | None = None
    """Beams at temperature 0; None decodes greedily, and leaves it to `guards` to search for an unsure text again."""
    patience: float | None = None
    """Finished texts that a beam search waits for, as a multiple of the beams; None is 1."""
    best_of: int | None = None
    """Independent samples above temperature 0, of which the most probable is kept; None is 1."""
    length_penalty: float | None = None
    """Exponent of Google's length penalty for choosing among texts; None divides by the length."""
    compression_ratio_threshold: float | None = 2.4
    """Fail a window whose text compresses better than this: it repeats itself."""
    logprob_threshold: float | None = -1.0
    """Fail a window whose mean token log-probability is below this."""
    no_speech_threshold: float | None = 0.6
    """Skip a window as silent above this `no_speech_prob`, if it also failed `logprob_threshold`."""
    condition_on_previous_text: bool = True
    """Give a window the text before it as its prompt."""
    initial_prompt: str | None = None
    """Plain text put before the first window; special tokens in it stay text."""
    carry_initial_prompt: bool = False
    """Put the initial prompt before every window, not only the first."""
    hotwords: str | None = None
    """Plain text put before every window: names and words to expect."""
    without_timestamps: bool = False
    max_initial_timestamp: float | None = 1.0
    """The first timestamp of a window is at most this many seconds."""
    suppress_tokens: tuple[int, ...] = (-1,)
    """Ids of text never sampled; -1 stands for the reference's non-speech symbols."""
    suppress_blank: bool = True
    sample_len: int | None = None
    """Tokens per window at most; None is half the text context (224)."""
    clip_timestamps: tuple[float, ...] = ()
    """start,end,start,end,... in seconds; a missing last end is the end of the recording."""
    word_timestamps: bool = False
    """Give every segment its words with their times; segments then start and end with a word."""
    prepend_punctuations: str = "\"'“¿([{-"
    """Marks that belong to the word after them."""
    append_punctuations: str = "\"'.。,，!！?？:：”)]}、"
    """Marks that belong to the word before them."""
    hallucination_silence_threshold: float | None = None
    """Skip silence longer than this many seconds around text that looks invented; needs the words' times, and so
    finds them whatever `word_timestamps` says."""
    vad: bool = False
    """Hear only where somebody speaks, as the voice activity detector says."""
    guards: bool = True
    """Fewer wrong, invented and lost words; False is the reference. Uncertain windows are decoded again (on a CPU with
    beams and against silence), repeated or unconfirmed words are cut, text without a voice is dropped, and speech that
    a text skips, or that the model takes for silence, is heard again."""
    long_form: LongForm = "sequential"
    """`batched` cuts a recording in pauses into parts of at most 30 s that are decoded side by side."""
    seed: int = 0
    """Seeds sampling above temperature 0: the same request gives the same text."""

    @property
    def finds_words(self) -> bool:
        """Whether windows are aligned with their audio: words are asked for, or judged by their times."""
        return self.word_timestamps or self.hallucination_silence_threshold is not None

    @property
    def hears_witnesses(self) -> bool:
        """Whether doubtful texts are heard again (`model.guards.doubt`): not translations, which have many wordings."""
        return self.searches and self.task == "transcribe"

    @property
    def searches(self) -> bool:
        """Whether unsure texts are searched for again (`model.guards.doubt`).

        Not where one attempt alone is asked for, or improbable text is welcome.
        """
        return self.guards and self.logprob_threshold is not None and len(self.temperature) > 1

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), field.type)
        _check_temperatures(self.temperature)
        _check_number("compression_ratio_threshold", self.compression_ratio_threshold, low=0.0)
        _check_number("logprob_threshold", self.logprob_threshold, high=0.0)
        _check_number("no_speech_threshold", self.no_speech_threshold, low=0.0, high=1.0)
        _check_number("max_initial_timestamp", self.max_initial_timestamp, low=0.0, high=30.0)
        _check_number("hallucination_silence_threshold", self.hallucination_silence_threshold, low=0.0)
        _check_marks("prepend_punctuations", self.prepend_punctuations)
        _check_marks("append_punctuations", self.append_punctuations)
        if self.task not in ("transcribe", "translate"):
            raise OptionError("task", "task must be 'transcribe' or 'translate'")
        if self.long_form not in ("sequential", "batched"):
            raise OptionError("long_form", "long_form must be 'sequential' or 'batched'")
        if self.sample_len is not None and not 1 <= self.sample_len <= MAX_SAMPLE_LEN:
            raise OptionError("sample_len", f"sample_len must be between 1 and {MAX_SAMPLE_LEN}")
        _check_suppressed(self.suppress_tokens)
        _check_clips(self.clip_timestamps)
        self._check_search()

    @property
    def width(self) -> int:
        """Rows of the batch that a window of these options needs at most."""
        return max(self.width_at(rung) for rung in range(len(self.temperature)))

    def width_at(self, rung: int) -> int:
        """Rows at one temperature of the ladder: beams at 0, samples above."""
        return (self.beam_size if self.temperature[rung] == 0 else self.best_of) or 1

    def _check_search(self) -> None:
        for name in ("beam_size", "best_of"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_WIDTH:
                raise OptionError(name, f"{name} must be between 1 and {MAX_WIDTH}")
        _check_number("patience", self.patience, low=0.1, high=10.0)
        _check_number("length_penalty", self.length_penalty, low=0.0, high=1.0)
        if self.patience is not None and self.beam_size is None:
            raise OptionError("patience", "patience needs a beam_size")
        if self.beam_size is not None and 0.0 not in self.temperature:
            raise OptionError("beam_size", "beam_size needs temperature 0 among the temperatures")
        if (self.best_of or 1) > 1 and not any(self.temperature):
            raise OptionError("best_of", "best_of needs a temperature above 0")


def check_width(options: TranscribeOptions, max_rows: int) -> None:
    """`OptionError` for a window that takes more rows than there are."""
    if options.width > max_rows:
        name = "beam_size" if options.width == options.beam_size else "best_of"
        raise OptionError(name, f"{name} is {options.width}, and this service decodes {max_rows} rows at a time")


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "True or False", type(None): "None"}


def _check_type(param: str, value: object, annotation: Any) -> None:
    """`OptionError` for a value of another type than the option's; a choice of words is checked with its words."""
    if get_origin(annotation) is Literal:
        return
    alternatives = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    if not any(_is_of(value, alternative) for alternative in alternatives):
        words = (
            _WORDS.get(alternative) or f"a tuple, each item {_WORDS[get_args(alternative)[0]]}"
            for alternative in alternatives
        )
        raise OptionError(param, f"{param} must be {' or '.join(words)}, not {type(value).__name__}")


def _is_of(value: object, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return isinstance(value, tuple | list) and all(_is_of(item, get_args(kind)[0]) for item in value)
    if kind in (int, float):  # numpy's numbers are numbers too, and True is none
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    return isinstance(value, kind)


def _check_suppressed(tokens: tuple[int, ...]) -> None:
    if len(tokens) > MAX_SUPPRESSED:
        raise OptionError("suppress_tokens", f"suppress_tokens has more than {MAX_SUPPRESSED} tokens")
    if any(not -1 <= token <= MAX_TEXT_ID for token in tokens):
        raise OptionError("suppress_tokens", f"suppress_tokens must be -1, or tokens of text from 0 to {MAX_TEXT_ID}")


def _check_temperatures(temperatures: tuple[float, ...]) -> None:
    if not 1 <= len(temperatures) <= MAX_TEMPERATURES:
        raise OptionError("temperature", f"temperature takes 1 to {MAX_TEMPERATURES} values")
    if not all(0.0 <= t <= 1.0 for t in temperatures):
        raise OptionError("temperature", "every temperature must be between 0 and 1")


def _check_number(param: str, value: float | None, *, low: float = -math.inf, high: float = math.inf) -> None:
    if value is not None and not (math.isfinite(value) and low <= value <= high):
        bounds = f"at least {low:g}" if high == math.inf else f"at most {high:g}"
        if math.isfinite(low) and math.isfinite(high):
            bounds = f"between {low:g} and {high:g}"
        raise OptionError(param, f"{param} must be {bounds}")


def _check_marks(param: str, marks: str) -> None:
    if len(marks) > MAX_MARKS:
        raise OptionError(param, f"{param} takes at most {MAX_MARKS} characters")


def _check_clips(clips: tuple[float, ...]) -> None:
    if not all(0.0 <= t <= MAX_CLIP_SECONDS for t in clips):
        raise OptionError("clip_timestamps", f"clip_timestamps must be seconds between 0 and {MAX_CLIP_SECONDS:,.0f}")
    if any(later < earlier for earlier, later in itertools.pairwise(clips)):
        raise OptionError("clip_timestamps", "clip_timestamps must not go back in time")

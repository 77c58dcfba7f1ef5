"""The fields of the form: one table that drives parsing, refusals, the OpenAPI document and the README.

Each field says which option it sets, how its text is read (`service.http.field_values`) and what the documentation
tells. `service.http.schemas` makes a request of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from model.options import MAX_SAMPLE_LEN, MAX_WIDTH
from model.output.subtitles import MAX_LINE_COUNT, MAX_LINE_WIDTH, MAX_WORDS_PER_LINE
from service.http.field_values import choice, flag, number, numbers, optional_number, plain, token_ids, whole_number
from service.http.formats import MEDIA_TYPES


@dataclass(frozen=True, slots=True)
class Field:
    """One field: the option that it sets, how its text is read, and what the documentation says."""

    option: str
    parse: Callable[[str, str], Any]
    description: str
    schema: Mapping[str, Any]
    takes_empty: bool = False
    """Whether an empty text is a value; else it is as if the field were absent."""


_TEXT: Mapping[str, Any] = {"type": "string"}
_FLOAT: Mapping[str, Any] = {"type": "number"}
_WHOLE: Mapping[str, Any] = {"type": "integer"}
_FLOAT_OR_NONE: Mapping[str, Any] = {"type": ["number", "string"], "pattern": "^none$"}
FIELDS: Mapping[str, Field] = {
    "task": Field(
        "task",
        choice("transcribe", "translate"),
        "`translate` puts the speech into English.",
        {"type": "string", "enum": ["transcribe", "translate"], "default": "transcribe"},
    ),
    "language": Field("language", plain, "Code or English name. If absent or `auto`, the language is detected.", _TEXT),
    "language_probabilities": Field(
        "language_probabilities",
        flag,
        "List every language with its probability in a json answer; the language must be detected, not named.",
        {"type": "boolean", "default": False},
    ),
    "timestamps": Field(
        "timestamps",
        choice("segment", "word", "none"),
        "`word` adds the words with their times to every segment of a json answer; `none` decodes without "
        "timestamps: one segment for each window.",
        {"type": "string", "enum": ["segment", "word", "none"], "default": "segment"},
    ),
    "response_format": Field(
        "response_format",
        choice(*MEDIA_TYPES),
        "Form of the answer.",
        {"type": "string", "enum": list(MEDIA_TYPES), "default": "json"},
    ),
    "stream": Field(
        "stream",
        flag,
        "Send each segment when its window is done, as a server-sent event, and the whole json answer last.",
        {"type": "boolean", "default": False},
    ),
    "temperature": Field(
        "temperature",
        numbers,
        "A number from 0 to 1, or a comma list: the next one is tried when a window's text is poor.",
        {"type": "string", "default": "0.0,0.2,0.4,0.6,0.8,1.0"},
    ),
    "beam_size": Field(
        "beam_size",
        whole_number,
        "Beams at temperature 0: fewer errors for more time (5 beams: a tenth fewer, docs/performance.md). Default: "
        "`WHISPER_BEAM_SIZE`. Without either, decoding is greedy, and `guards` may search again with 4 beams. 1 is "
        "greedy decoding without that second search.",
        {"type": "integer", "minimum": 1, "maximum": MAX_WIDTH},
    ),
    "patience": Field(
        "patience",
        number,
        "Finished texts that a beam search waits for, as a multiple of `beam_size`.",
        {**_FLOAT, "minimum": 0.1, "maximum": 10},
    ),
    "best_of": Field(
        "best_of",
        whole_number,
        "Samples at temperatures above 0; the most probable one is kept.",
        {"type": "integer", "minimum": 1, "maximum": MAX_WIDTH},
    ),
    "length_penalty": Field(
        "length_penalty",
        number,
        "Exponent of the length penalty for beams or samples; without it the log-probability is divided by the length.",
        {**_FLOAT, "minimum": 0, "maximum": 1},
    ),
    "prompt": Field(
        "initial_prompt",
        plain,
        "Text put before the first window, as a hint of style and names; its last 223 tokens count.",
        _TEXT,
    ),
    "carry_initial_prompt": Field(
        "carry_initial_prompt",
        flag,
        "Put the prompt before every window, not only the first; needs `prompt`.",
        {"type": "boolean", "default": False},
    ),
    "hotwords": Field(
        "hotwords",
        plain,
        "Names and words to expect, put before every window. At most their first 223 tokens are used; the prompt and "
        "the previous text share what is left of 223.",
        _TEXT,
    ),
    "condition_on_previous_text": Field(
        "condition_on_previous_text",
        flag,
        "Give each window the previous text as context.",
        {"type": "boolean", "default": True},
    ),
    "suppress_tokens": Field(
        "suppress_tokens",
        token_ids,
        "Comma list of ids of text tokens that are never used; -1 stands for symbols that nobody speaks, such as "
        "brackets and notes of music; `none` forbids none.",
        {**_TEXT, "default": "-1"},
    ),
    "suppress_blank": Field(
        "suppress_blank",
        flag,
        "A window's text may neither begin with a blank nor be empty.",
        {"type": "boolean", "default": True},
    ),
    "max_initial_timestamp": Field(
        "max_initial_timestamp",
        optional_number,
        "Latest start of a window's first text, in seconds of the window; 0 or `none` is no limit.",
        {**_FLOAT_OR_NONE, "default": 1.0, "minimum": 0, "maximum": 30},
    ),
    "max_tokens": Field(
        "sample_len",
        whole_number,
        "Most tokens of a window's text, including timestamps; `warnings` says where a text was cut off. Default: "
        "half of the model's context, 224.",
        {**_WHOLE, "minimum": 1, "maximum": MAX_SAMPLE_LEN},
    ),
    "no_speech_threshold": Field(
        "no_speech_threshold",
        optional_number,
        "Skip a window whose `no_speech_prob` is above this and that also fails `logprob_threshold`; `none` skips "
        "none.",
        {**_FLOAT_OR_NONE, "default": 0.6, "minimum": 0, "maximum": 1},
    ),
    "logprob_threshold": Field(
        "logprob_threshold",
        optional_number,
        "Retry a window whose mean token log-probability is below this; `none` retries none.",
        {**_FLOAT_OR_NONE, "default": -1.0, "maximum": 0},
    ),
    "compression_ratio_threshold": Field(
        "compression_ratio_threshold",
        optional_number,
        "Retry a window whose text compresses better than this, since it repeats itself; `none` retries none.",
        {**_FLOAT_OR_NONE, "default": 2.4, "minimum": 0},
    ),
    "clip_timestamps": Field(
        "clip_timestamps",
        numbers,
        "Parts to transcribe: `start,end,start,end,...` in seconds; a missing last end is the end of the recording.",
        _TEXT,
    ),
    "vad": Field(
        "vad",
        flag,
        "Transcribe only where the voice activity detector finds speech; `warnings` lists what was skipped.",
        {"type": "boolean", "default": False},
    ),
    "guards": Field(
        "guards",
        flag,
        "Fewer wrong, invented and lost words. Uncertain windows are decoded again (on a CPU with beams and against "
        "silence), repeated or unconfirmed words are cut, text without a voice is dropped, and speech that a text "
        "skips, or that the model takes for silence, is heard again. `warnings` lists what was left out. `false` is "
        "openai-whisper's behaviour.",
        {"type": "boolean", "default": True},
    ),
    "long_form": Field(
        "long_form",
        choice("sequential", "batched"),
        "How a recording of more than 30 s is decoded: window by window, each with the previous text as context, or "
        "cut at pauses into parts that are decoded in parallel and do not know each other's text.",
        {"type": "string", "enum": ["sequential", "batched"], "default": "sequential"},
    ),
    "hallucination_silence_threshold": Field(
        "hallucination_silence_threshold",
        optional_number,
        "Skip silence of more than this many seconds around text whose word times look invented; `warnings` lists "
        "what was skipped. Segments then start and end with words.",
        {**_FLOAT_OR_NONE, "minimum": 0},
    ),
    "prepend_punctuations": Field(
        "prepend_punctuations",
        plain,
        "Punctuation that belongs to the next word, if words are timed. Default: openai-whisper's; empty is none.",
        _TEXT,
        takes_empty=True,
    ),
    "append_punctuations": Field(
        "append_punctuations",
        plain,
        "Punctuation that belongs to the previous word, if words are timed. Default: openai-whisper's; empty is none.",
        _TEXT,
        takes_empty=True,
    ),
    "max_line_width": Field(
        "max_line_width",
        whole_number,
        "Most characters in a line of subtitles (srt, vtt; tsv with max_line_count); a longer word gets its own line.",
        {**_WHOLE, "minimum": 1, "maximum": MAX_LINE_WIDTH},
    ),
    "max_line_count": Field(
        "max_line_count",
        whole_number,
        "Most lines in a cue of srt, vtt and tsv; needs max_line_width or max_words_per_line.",
        {**_WHOLE, "minimum": 1, "maximum": MAX_LINE_COUNT},
    ),
    "max_words_per_line": Field(
        "max_words_per_line",
        whole_number,
        "Most words in a line of srt, vtt and tsv; without max_line_width and max_line_count, a cue is one line.",
        {**_WHOLE, "minimum": 1, "maximum": MAX_WORDS_PER_LINE},
    ),
    "highlight_words": Field(
        "highlight_words",
        flag,
        "One cue of srt and vtt for each word, with that word underlined.",
        {"type": "boolean", "default": False},
    ),
    "seed": Field(
        "seed",
        whole_number,
        "Seed of sampling above temperature 0.",
        {**_WHOLE, "default": 0, "minimum": 0, "maximum": 10**18 - 1},
    ),
}

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
    "language": Field("language", plain, "Code or English name; absent or `auto` detects it.", _TEXT),
    "language_probabilities": Field(
        "language_probabilities",
        flag,
        "List every language with its probability in a json answer; the language must not be named.",
        {"type": "boolean", "default": False},
    ),
    "timestamps": Field(
        "timestamps",
        choice("segment", "word", "none"),
        "`word` gives every segment of a json answer its words with their times; `none` lets the model go without "
        "timestamps: one segment a window.",
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
        "A number from 0 to 1, or a comma list that is tried in order while a window's text is poor.",
        {"type": "string", "default": "0.0,0.2,0.4,0.6,0.8,1.0"},
    ),
    "beam_size": Field(
        "beam_size",
        whole_number,
        "Beams at temperature 0: fewer errors (5: a tenth of them, docs/performance.md) for more time. Without it "
        "`WHISPER_BEAM_SIZE`, by default none: the most probable token is taken, and `guards` may search again with 4. "
        "1 takes the most probable token, whatever comes of it.",
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
        "Samples above temperature 0, of which the most probable is kept.",
        {"type": "integer", "minimum": 1, "maximum": MAX_WIDTH},
    ),
    "length_penalty": Field(
        "length_penalty",
        number,
        "Exponent of the length penalty among beams or samples; without it the log-probability is divided by length.",
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
        "Put the prompt before every window, not only the first; needs one.",
        {"type": "boolean", "default": False},
    ),
    "hotwords": Field(
        "hotwords",
        plain,
        "Names and words to expect; put before every window. Their first 223 tokens count; the prompt and the text "
        "before have what they leave of 223.",
        _TEXT,
    ),
    "condition_on_previous_text": Field(
        "condition_on_previous_text",
        flag,
        "Give each window the text before it.",
        {"type": "boolean", "default": True},
    ),
    "suppress_tokens": Field(
        "suppress_tokens",
        token_ids,
        "Ids of tokens of text that are never said, with commas between them; -1 stands for signs that nobody says, "
        "such as brackets and notes of music; `none` forbids none.",
        {**_TEXT, "default": "-1"},
    ),
    "suppress_blank": Field(
        "suppress_blank",
        flag,
        "Do not let a window's text begin with a blank, or end at once.",
        {"type": "boolean", "default": True},
    ),
    "max_initial_timestamp": Field(
        "max_initial_timestamp",
        optional_number,
        "Seconds of a window in which its first text must begin; 0 or `none` is no bound.",
        {**_FLOAT_OR_NONE, "default": 1.0, "minimum": 0, "maximum": 30},
    ),
    "max_tokens": Field(
        "sample_len",
        whole_number,
        "Tokens of a window's text at most, timestamps among them; `warnings` says where a text broke off. Without it "
        "half of the model's context, 224.",
        {**_WHOLE, "minimum": 1, "maximum": MAX_SAMPLE_LEN},
    ),
    "no_speech_threshold": Field(
        "no_speech_threshold",
        optional_number,
        "Skip a window above this `no_speech_prob` that also fails `logprob_threshold`; `none` never does.",
        {**_FLOAT_OR_NONE, "default": 0.6, "minimum": 0, "maximum": 1},
    ),
    "logprob_threshold": Field(
        "logprob_threshold",
        optional_number,
        "Retry a window whose mean token log-probability is below this; `none` never does.",
        {**_FLOAT_OR_NONE, "default": -1.0, "maximum": 0},
    ),
    "compression_ratio_threshold": Field(
        "compression_ratio_threshold",
        optional_number,
        "Retry a window whose text compresses better than this: it repeats itself; `none` never does.",
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
        "Hear only where the voice activity detector finds speech; `warnings` says what was skipped.",
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
        "How a recording of more than 30 s is heard: window by window, each with the text before it, or cut in pauses "
        "into parts that are decoded side by side, which know no text of one another.",
        {"type": "string", "enum": ["sequential", "batched"], "default": "sequential"},
    ),
    "hallucination_silence_threshold": Field(
        "hallucination_silence_threshold",
        optional_number,
        "Skip silence of more than this many seconds around text that looks invented by the times of its words; "
        "`warnings` says what was skipped. Segments then start and end with words.",
        {**_FLOAT_OR_NONE, "minimum": 0},
    ),
    "prepend_punctuations": Field(
        "prepend_punctuations",
        plain,
        "Marks that belong to the word after them, where words are found: the reference's, or none where sent empty.",
        _TEXT,
        takes_empty=True,
    ),
    "append_punctuations": Field(
        "append_punctuations",
        plain,
        "Marks that belong to the word before them, where words are found: the reference's, or none where sent empty.",
        _TEXT,
        takes_empty=True,
    ),
    "max_line_width": Field(
        "max_line_width",
        whole_number,
        "Characters in a line of subtitles (srt, vtt; tsv with max_line_count); a longer word keeps a line for itself.",
        {**_WHOLE, "minimum": 1, "maximum": MAX_LINE_WIDTH},
    ),
    "max_line_count": Field(
        "max_line_count",
        whole_number,
        "Lines of a cue of srt, vtt and tsv; needs max_line_width or max_words_per_line.",
        {**_WHOLE, "minimum": 1, "maximum": MAX_LINE_COUNT},
    ),
    "max_words_per_line": Field(
        "max_words_per_line",
        whole_number,
        "Words in a line of srt, vtt and tsv; without max_line_width and max_line_count, a cue is one line.",
        {**_WHOLE, "minimum": 1, "maximum": MAX_WORDS_PER_LINE},
    ),
    "highlight_words": Field(
        "highlight_words",
        flag,
        "A cue of srt and vtt for each word, with that word underlined.",
        {"type": "boolean", "default": False},
    ),
    "seed": Field(
        "seed",
        whole_number,
        "Seed of sampling above temperature 0.",
        {**_WHOLE, "default": 0, "minimum": 0, "maximum": 10**18 - 1},
    ),
}

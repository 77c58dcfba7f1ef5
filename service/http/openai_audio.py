"""The hosted API's audio forms and answers: what its clients send becomes a form of `/v1/transcribe`.

A translation, and no second way through the service: gets the fields from `service.http.multipart`, has
`service.http.schemas` read them as our own, and puts the result into the hosted API's words. Names and shapes are those
of OpenAI's `/v1/audio/transcriptions` and `/v1/audio/translations` for `whisper-1`. What that API has for other models
is refused by name, but for what it says of itself that `whisper-1` ignores (`stream`): the served model's own name gets
the stream. Fields of ours that it does not know are taken too.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from starlette.responses import Response

from model.language import LANGUAGES
from model.output.formats import to_paragraph
from model.segments import Segment, Transcription
from service.errors import BadRequest, NotFound
from service.http.field_values import choice, flag, plain
from service.http.fields import FIELDS, Field
from service.http.formats import json_response, raw_response, segment_json, text_response, warnings_json
from service.http.schemas import TranscribeForm, check_names, parse_transcribe
from service.wire.messages import ModelInfo

Task = Literal["transcribe", "translate"]
ALIAS = "whisper-1"
"""The hosted API's name of its Whisper; whatever model is served goes by it too."""
OPENAI_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_JSON = ("json", "verbose_json")
_GRANULARITIES = ("word", "segment")
_LISTS = ("timestamp_granularities[]", "timestamp_granularities")
_OTHER_MODELS = frozenset(
    {"chunking_strategy", "include", "keywords", "known_speaker_names", "known_speaker_references", "languages"}
)
_OUR_ANSWER = frozenset({"task", "timestamps", "language_probabilities", "stream"})
"""Fields of ours that say what these endpoints say otherwise, or whose answer has no place here."""


def _granularities(name: str, text: str) -> frozenset[str]:
    """Values of a field that may come several times, as `service.http.multipart` joins them."""
    return frozenset(choice(*_GRANULARITIES)(name, value.strip()) for value in text.split(","))


_SHARED: Mapping[str, Field] = {
    "model": Field(
        "model",
        plain,
        f"Name of the served model, `{ALIAS}`, or one of `WHISPER_MODEL_ALIASES`.",
        {"type": "string", "minLength": 1},
    ),
    "prompt": FIELDS["prompt"],
    "response_format": replace(
        FIELDS["response_format"],
        parse=choice(*OPENAI_FORMATS),
        schema={"type": "string", "enum": list(OPENAI_FORMATS), "default": "json"},
    ),
    "temperature": replace(
        FIELDS["temperature"],
        description="0 raises the temperature step by step when a window's text is poor; any other number is used "
        "alone. A comma list is tried in order.",
        schema={"type": ["number", "string"], "minimum": 0, "maximum": 1, "default": 0},
    ),
}
_TRANSCRIPTION_ONLY: Mapping[str, Field] = {
    "language": FIELDS["language"],
    **{
        name: Field(
            "timestamps",
            _granularities,
            "Which times `verbose_json` has, by default `segment`; needs that format. May be sent twice.",
            {"type": "array", "items": {"type": "string", "enum": list(_GRANULARITIES)}},
        )
        for name in _LISTS
    },
    "stream": Field(
        "stream",
        flag,
        "Send the text in pieces, as server-sent events; needs a JSON format. "
        f"For `{ALIAS}` it is ignored: the answer comes whole.",
        {"type": "boolean", "default": False},
    ),
    "chunking_strategy": Field(
        "chunking_strategy", choice("auto"), "`auto` changes nothing.", {"type": "string", "enum": ["auto"]}
    ),
}
_OURS = {name: field for name, field in FIELDS.items() if name not in {*_SHARED, *_OUR_ANSWER, "language"}}
OPENAI_FIELDS: Mapping[Task, Mapping[str, Field]] = {
    "transcribe": {**_SHARED, **_TRANSCRIPTION_ONLY, **_OURS},
    "translate": {**_SHARED, **_OURS},
}


@dataclass(frozen=True, slots=True)
class OpenAIForm:
    """What a client of the hosted API asks."""

    ours: TranscribeForm
    """The same in our words."""
    response_format: str
    """`json`, `text`, `srt`, `verbose_json` or `vtt`."""
    granularities: frozenset[str]
    """Of `word` and `segment`, what `verbose_json` lists."""
    stream: bool = False
    """Whether the answer is sent in pieces."""


def parse_openai(
    fields: Mapping[str, str], model: ModelInfo, task: Task, *, beam_size: int = 0, aliases: Collection[str] = ()
) -> OpenAIForm:
    """The form's fields as `model` can fulfil them; `BadRequest` or `NotFound` names the first that is wrong.

    `beam_size`: that of every request, for that API has no field for it; 0 is none. `aliases`: see `check_model`.
    """
    known = OPENAI_FIELDS[task]
    for name in fields:
        if name not in known and name.partition("[")[0] in _OTHER_MODELS:
            raise BadRequest(f"The field '{name}' is not for Whisper.", param=name, code="unknown_field")
    check_names(fields, known=known)
    values = {name: known[name].parse(name, text) for name, text in fields.items() if text}
    if "model" not in values:
        raise BadRequest("model is missing.", param="model")
    check_model(values["model"], model, aliases)
    if task == "translate" and not model.can_translate:
        raise BadRequest(f"The model {model.name} cannot translate.", param="model")
    response_format = values.get("response_format", "json")
    listed = [name for name in _LISTS if name in values]
    if listed and response_format != "verbose_json":
        raise BadRequest(f"{listed[0]} needs response_format=verbose_json.", param=listed[0])
    granularities = frozenset[str]().union(*(values[name] for name in listed)) or frozenset({"segment"})
    stream = values.get("stream", False) and values["model"] != ALIAS
    if stream and response_format not in _JSON:
        raise BadRequest(f"stream is for json and verbose_json, not for {response_format}.", param="stream")
    ours = {name: text for name, text in fields.items() if name in FIELDS and name != "stream"}
    if values.get("temperature") == (0.0,):
        del ours["temperature"]  # the hosted API's 0 is the first of our default temperatures
    ours["task"] = task
    ours["timestamps"] = "word" if "word" in granularities else "segment"
    ours["response_format"] = "json" if response_format == "verbose_json" else response_format
    asked = parse_transcribe(ours, model, beam_size=beam_size)
    return OpenAIForm(asked, response_format, granularities, stream)


def check_model(name: str, model: ModelInfo, aliases: Collection[str] = ()) -> None:
    """`NotFound` where `model` does not go by this name: its own, `whisper-1` or another of its `aliases`."""
    if name not in (model.name, ALIAS, *aliases):
        message = f"No such model: here is {model.name}, which {ALIAS} stands for too."
        raise NotFound(message, param="model", code="model_not_found")


def openai_response(result: Transcription, form: OpenAIForm) -> Response:
    """The answer of `/v1/audio/transcriptions` and `/v1/audio/translations`."""
    if form.response_format in _JSON:
        return json_response(openai_json(result, form))
    if form.response_format == "text":  # there it is one paragraph
        return raw_response(to_paragraph(result), "text", result.warnings)
    return text_response(result, form.response_format, form.ours.layout)


def openai_json(result: Transcription, form: OpenAIForm) -> dict[str, Any]:
    """The same as JSON; most of it is the last event of a stream too."""
    usage = {"type": "duration", "seconds": round(result.duration, 3)}
    warnings = {"warnings": warnings_json(result)} if result.warnings else {}
    if form.response_format == "json":
        return {"text": result.text, **warnings, "usage": usage}
    language = "en" if result.task == "translate" else result.language  # of the text
    content: dict[str, Any] = {
        "task": result.task,
        "language": LANGUAGES.get(language, language),
        "duration": usage["seconds"],
        "text": result.text,
    }
    if "segment" in form.granularities:
        content["segments"] = [_segment(segment) for segment in result.segments]
    if "word" in form.granularities:
        content["words"] = [word for segment in result.segments for word in _words(segment)]
    return {**content, **warnings, "usage": usage}


class TextEvents:
    """The events of a stream, of the hosted API's types: the text in pieces, which together are `text`, in
    `verbose_json` the segments, and the answer last."""

    def __init__(self, form: OpenAIForm) -> None:
        self._form, self._heard, self._told = form, "", 0

    def __call__(self, segments: Sequence[Segment]) -> Iterator[dict[str, Any]]:
        """Of the segments that are new."""
        for segment in segments:
            self._heard = (self._heard + segment.text).lstrip()
            text = self._heard.rstrip()  # a blank at the end is one only if more follows
            yield {"type": "transcript.text.delta", "delta": text[self._told :]}
            self._told = len(text)
            if self._form.response_format == "verbose_json":
                words = {"words": _words(segment)} if "word" in self._form.granularities else {}
                known = {**_segment(segment), "id": str(segment.id), "speaker": ""}  # there it is a speaker's
                yield {"type": "transcript.text.segment", **known, **words}

    def done(self, result: Transcription) -> dict[str, Any]:
        """The last event: the answer with its seconds as `duration`, for `usage` counts tokens there."""
        content = openai_json(result, self._form)
        seconds = content.pop("usage")["seconds"]
        return {"type": "transcript.text.done", **content, "duration": seconds}


def _segment(segment: Segment) -> dict[str, Any]:
    """A segment of ours without what the hosted API does not tell."""
    content = segment_json(replace(segment, words=None))
    del content["language"]
    return content


def _words(segment: Segment) -> list[dict[str, Any]]:
    """Words as the hosted API tells them: without the blank before them."""
    return [
        {"word": word.word.strip(), "start": round(word.start, 3), "end": round(word.end, 3)}
        for word in segment.words or ()
    ]

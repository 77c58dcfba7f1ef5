"""What `/openapi.json` says of the endpoints: the forms of those that work, and everybody's answers and refusals.

FastAPI reads signatures; ours are plain requests, so the document comes from the table of fields that also parses
them (`service.http.fields.FIELDS`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI

from model.segments import SKIP_REASONS
from service.http import event_stream
from service.http.fields import FIELDS, Field
from service.http.formats import MEDIA_TYPES
from service.http.multipart import FILE_FIELD
from service.http.openai_audio import ALIAS, OPENAI_FIELDS, OPENAI_FORMATS

_STRING: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "number"}
_INTEGER: dict[str, Any] = {"type": "integer"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


_ERROR = _object(
    error=_object(message=_STRING, type=_STRING, param=_nullable(_STRING), code=_nullable(_STRING)),
    request_id=_nullable(_STRING),
)
_SEGMENT = _object(
    id=_INTEGER,
    seek={**_INTEGER, "description": "Frame of 10 ms at which the segment's window starts."},
    start={**_NUMBER, "description": "Seconds."},
    end={**_NUMBER, "description": "Seconds."},
    language={**_STRING, "description": "What was spoken in the segment's window."},
    text=_STRING,
    tokens={"type": "array", "items": _INTEGER},
    temperature=_NUMBER,
    avg_logprob=_NUMBER,
    compression_ratio=_NUMBER,
    no_speech_prob=_NUMBER,
)
_SKIPPED = _object(
    reason={
        **_STRING,
        "description": " ".join(f"`{reason}`: {meaning}." for reason, meaning in SKIP_REASONS.items()),
    },
    start={**_NUMBER, "description": "Seconds."},
    end={**_NUMBER, "description": "Seconds."},
)
_WARNINGS = {"type": "array", "items": _SKIPPED, "description": "What of the recording was skipped, and why."}
_SEGMENT["properties"]["words"] = {
    "type": "array",
    "items": _object(word=_STRING, start=_NUMBER, end=_NUMBER, probability=_NUMBER),
    "description": "Only with `timestamps=word`. A word has its blank before and its punctuation.",
}
_USAGE = _object(type=_STRING, seconds=_NUMBER)
_TRANSCRIPTION = _object(
    task=_STRING,
    language={**_STRING, "description": "What was spoken first; `en` where nobody named it and no window was heard."},
    language_probability={
        **_nullable(_NUMBER),
        "description": "Null where the language was not detected: the caller named it, the model knows English alone, "
        "or no window was heard.",
    },
    duration={**_NUMBER, "description": "Seconds."},
    text=_STRING,
    segments={"type": "array", "items": _SEGMENT, "description": "Empty for silence."},
    warnings=_WARNINGS,
    model=_STRING,
    usage=_USAGE,
    timings=_object(queue=_NUMBER, decode_audio=_NUMBER, inference=_NUMBER, total=_NUMBER),
    request_id=_STRING,
)
_TRANSCRIPTION["properties"]["language_probabilities"] = {
    "type": "object",
    "additionalProperties": _NUMBER,
    "description": "Every language, likeliest first, where the form asked for them and the language was detected.",
}
_LANGUAGE = _object(
    language=_STRING,
    language_name=_STRING,
    probability=_NUMBER,
    probabilities={
        "type": "object",
        "additionalProperties": _NUMBER,
        "description": "Every language that the model knows, likeliest first.",
    },
    duration=_NUMBER,
    model=_STRING,
    request_id=_STRING,
)


def _form(fields: Mapping[str, Field], *required: str) -> dict[str, Any]:
    properties: dict[str, Any] = {
        FILE_FIELD: {"type": "string", "format": "binary", "description": "Audio, or video with a sound track."}
    }
    properties.update({name: {**field.schema, "description": field.description} for name, field in fields.items()})
    schema: dict[str, Any] = {"type": "object", "required": [FILE_FIELD, *required], "properties": properties}
    schema["additionalProperties"] = False
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


_X_WARNINGS = {
    "description": "Where the answer is no JSON and something was skipped: `reason start-end, ...`, in seconds.",
    "schema": _STRING,
}

_EVENT = {
    "type": "object",
    "properties": {"data": {**_STRING, "contentMediaType": MEDIA_TYPES["json"]}},
    "required": ["data"],
}
"""One of `text/event-stream`: what OpenAPI before 3.2, which does not say it, is understood to describe."""


def _answers(schema: dict[str, Any], formats: Iterable[str] = (), events: str | None = None) -> dict[str, Any]:
    """JSON of this schema, text where another format may be asked for, and a stream where that has `events`."""
    others = [MEDIA_TYPES[name].partition(";")[0] for name in formats if not name.endswith("json")]
    content = {MEDIA_TYPES["json"]: {"schema": schema}} | {other: {"schema": _STRING} for other in others}
    if events is not None:
        description = f"With `stream`. An event each, whose `data` is a JSON object: {events}. What fails meanwhile is "
        description += "a last one, the error body. A line with a colon alone says nothing."
        content[event_stream.MEDIA_TYPE] = {"schema": _EVENT | {"description": description}}
    answer = {"description": "The result.", "content": content}
    return {"200": answer | ({"headers": {"X-Warnings": _X_WARNINGS}} if others else {})}


def _refusals(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"description": description, "content": {"application/json": {"schema": _ERROR}}}
        for status, description in descriptions.items()
    }


ERRORS = _refusals(
    {
        400: "A field is wrong, or the file cannot be decoded; `param` names the field.",
        401: "No valid API key.",
        408: "The body came too slowly.",
        413: "Too many bytes, or too many seconds of audio.",
        415: "A Content-Encoding or media type that is not taken.",
        429: "This key has too many requests in progress; see Retry-After.",
        500: "A bug, or a request that crashes workers; a retry does not help.",
        503: "Full, starting, draining or without workers; see Retry-After.",
        504: "Not done within the deadline, or waiting with too little time left to be.",
    }
)
ERRORS[500]["headers"] = {
    "x-should-retry": {"description": "OpenAI's clients obey it.", "schema": {**_STRING, "const": "false"}}
}
NO_MODEL = _refusals({404: "No such model."})
TRANSCRIBE: dict[str, Any] = {
    "requestBody": _form(FIELDS),
    "responses": _answers(
        _TRANSCRIPTION,
        MEDIA_TYPES,
        "`type` is `transcript.segment`, with a `segment` of the answer, and at last `transcript.done`, with all of "
        "the JSON answer beside it",
    ),
}
_OPENAI_JSON = _object(text=_STRING, usage=_USAGE)
_OPENAI_VERBOSE = _object(
    task=_STRING,
    language={**_STRING, "description": "English name of the text's language, in lower case."},
    duration={**_NUMBER, "description": "Seconds."},
    text=_STRING,
    usage=_USAGE,
)
_IF_SKIPPED = {"warnings": {**_WARNINGS, "description": "What was skipped, and why; absent where nothing was."}}
_OPENAI_JSON["properties"] |= _IF_SKIPPED
_OPENAI_VERBOSE["properties"] |= _IF_SKIPPED | {
    "segments": {
        "type": "array",
        "items": _object(
            **{name: one for name, one in _SEGMENT["properties"].items() if name not in ("language", "words")}
        ),
        "description": "Unless words alone were asked for.",
    },
    "words": {
        "type": "array",
        "items": _object(word=_STRING, start=_NUMBER, end=_NUMBER),
        "description": "Where they were asked for. A word has its punctuation, and no blank before it.",
    },
}
_OPENAI_ANSWER = {"anyOf": [_OPENAI_JSON, _OPENAI_VERBOSE]}
OPENAI_TRANSCRIPTION: dict[str, Any] = {
    "requestBody": _form(OPENAI_FIELDS["transcribe"], "model"),
    "responses": _answers(
        _OPENAI_ANSWER,
        OPENAI_FORMATS,
        "`type` is `transcript.text.delta`, with a `delta` of the text, in `verbose_json` `transcript.text.segment` "
        "too, with what a segment has there, its `id` as a string and `speaker` empty, and at last "
        "`transcript.text.done`, with the JSON answer beside it, `duration` in place of `usage`",
    ),
}
OPENAI_TRANSLATION: dict[str, Any] = {
    "requestBody": _form(OPENAI_FIELDS["translate"], "model"),
    "responses": _answers(_OPENAI_ANSWER, OPENAI_FORMATS),
}
DETECT_LANGUAGE: dict[str, Any] = {"requestBody": _form({}), "responses": _answers(_LANGUAGE)}
_MODEL = _object(
    id=_STRING,
    object={**_STRING, "const": "model"},
    created=_INTEGER,
    owned_by=_STRING,
    languages={"type": "array", "items": _STRING, "description": "Codes; none where the model knows English only."},
    can_translate={"type": "boolean"},
    device=_STRING,
    compute_type=_STRING,
    encoder_context=_STRING,
    cross_kv=_STRING,
    sha256={**_nullable(_STRING), "description": "Of the weights."},
)
MODEL: dict[str, Any] = {
    "parameters": [
        {"name": "model", "in": "path", "required": True, "schema": _STRING, "description": f"Its id, or `{ALIAS}`."}
    ],
    "responses": _answers(_MODEL),
}
MODELS: dict[str, Any] = {
    "responses": _answers(_object(object={**_STRING, "const": "list"}, data={"type": "array", "items": _MODEL}))
}
HEALTH: dict[str, Any] = {"responses": _answers(_object(status=_STRING))}


def describe_keys(app: FastAPI) -> None:
    """Have the document say that a key is asked for, wherever it says that one may be missing (401)."""
    document = app.openapi()
    document["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
    for operations in document["paths"].values():
        for operation in operations.values():
            if "401" in operation["responses"]:
                operation["security"] = [{"key": []}]

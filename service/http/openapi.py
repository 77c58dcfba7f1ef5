"""What `/openapi.json` says of the endpoints: the forms of those that work, and everybody's answers and refusals.

FastAPI reads signatures; ours are plain requests, so the document comes from the table of fields that also parses
them (`service.http.fields.FIELDS`), from `service.http.answer_schemas` and `service.http.answer_examples`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.http import answer_examples, answer_schemas, event_stream
from service.http.answer_schemas import array, record, text
from service.http.fields import FIELDS, Field
from service.http.formats import MEDIA_TYPES
from service.http.multipart import FILE_FIELD
from service.http.openai_audio import ALIAS, OPENAI_FIELDS, OPENAI_FORMATS


def operation_id(route: APIRoute) -> str:
    """What programs that are made from the document call an operation: as its handler is called."""
    return route.name


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
    "schema": {"type": "string"},
}

_EVENT = {
    "type": "object",
    "properties": {"data": text("A JSON object in one line.", contentMediaType=MEDIA_TYPES["json"])},
    "required": ["data"],
}
"""One of `text/event-stream`: what OpenAPI before 3.2, which does not say it, is understood to describe."""


def _answers(
    schema: dict[str, Any], example: Any = None, formats: Iterable[str] = (), events: str | None = None
) -> dict[str, Any]:
    """JSON of this schema, text where another format may be asked for, and a stream where that has `events`."""
    others = [MEDIA_TYPES[name].partition(";")[0] for name in formats if not name.endswith("json")]
    content: dict[str, Any] = {MEDIA_TYPES["json"]: {"schema": schema}}
    if example is not None:
        content[MEDIA_TYPES["json"]]["example"] = example
    content |= {other: {"schema": {"type": "string"}, "example": answer_examples.TEXTS[other]} for other in others}
    if events is not None:
        description = f"With `stream`: events whose `data` is a JSON object: {events}. A later error is the last "
        description += "event, with the error body. Comment lines (`:`) keep the connection open."
        content[event_stream.MEDIA_TYPE] = {"schema": _EVENT | {"description": description}}
    answer = {"description": "The result.", "content": content}
    return {"200": answer | ({"headers": {"X-Warnings": _X_WARNINGS}} if others else {})}


def _refusals(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    refusals: dict[int | str, dict[str, Any]] = {}
    for status, description in descriptions.items():
        shown = {"example": answer_examples.REFUSALS[status]} if status in answer_examples.REFUSALS else {}
        content = {MEDIA_TYPES["json"]: {"schema": answer_schemas.ERROR, **shown}}
        refusals[status] = {"description": description, "content": content}
    return refusals


ERRORS = _refusals(
    {
        400: "A field is wrong, or the file cannot be decoded; `param` names the field.",
        401: "No valid API key.",
        408: "The request arrived too slowly.",
        413: "Too many bytes, or too many seconds of audio.",
        415: "A Content-Encoding or media type that is not accepted.",
        429: "This key has too many requests in progress; see Retry-After.",
        500: "A bug, or a request that crashes workers; a retry does not help.",
        503: "Full, starting, draining or without workers; see Retry-After.",
        504: "Not done within the deadline, or still waiting with too little time left.",
    }
)
ERRORS[500]["headers"] = {
    "x-should-retry": {"description": "OpenAI's clients obey it.", "schema": {"type": "string", "const": "false"}}
}
for _status in (429, 503):
    ERRORS[_status]["headers"] = {
        "Retry-After": {
            "description": "Seconds after which to retry.",
            "schema": {"type": "integer", "minimum": 1, "maximum": 60},
        }
    }
NO_MODEL = _refusals({404: "No such model."})
TRANSCRIBE: dict[str, Any] = {
    "requestBody": _form(FIELDS),
    "responses": _answers(
        answer_schemas.TRANSCRIPTION,
        answer_examples.TRANSCRIPTION,
        MEDIA_TYPES,
        "`type` is `transcript.segment`, with a `segment` of the answer, and at last `transcript.done`, with all of "
        "the JSON answer beside it",
    ),
}
_OPENAI_ANSWER = {"anyOf": [answer_schemas.OPENAI_JSON, answer_schemas.OPENAI_VERBOSE]}
OPENAI_TRANSCRIPTION: dict[str, Any] = {
    "requestBody": _form(OPENAI_FIELDS["transcribe"], "model"),
    "responses": _answers(
        _OPENAI_ANSWER,
        answer_examples.OPENAI,
        OPENAI_FORMATS,
        "`type` is `transcript.text.delta`, with a `delta` of the text, in `verbose_json` `transcript.text.segment` "
        "too, with what a segment has there, its `id` as a string and `speaker` empty, and at last "
        "`transcript.text.done`, with the JSON answer beside it, `duration` in place of `usage`",
    ),
}
OPENAI_TRANSLATION: dict[str, Any] = {
    "requestBody": _form(OPENAI_FIELDS["translate"], "model"),
    "responses": _answers(_OPENAI_ANSWER, answer_examples.OPENAI, OPENAI_FORMATS),
}
DETECT_LANGUAGE: dict[str, Any] = {
    "requestBody": _form({}),
    "responses": _answers(answer_schemas.LANGUAGE, answer_examples.LANGUAGE),
}
MODEL: dict[str, Any] = {
    "parameters": [
        {
            "name": "model",
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "description": f"Its id, `{ALIAS}`, or one of `WHISPER_MODEL_ALIASES`.",
        }
    ],
    "responses": _answers(answer_schemas.MODEL_INFO),
}
_MODEL_LIST = record(
    object=text("What this is.", const="list"),
    data=array(answer_schemas.MODEL_INFO, "The model that is loaded; none until one is."),
)
MODELS: dict[str, Any] = {"responses": _answers(_MODEL_LIST)}
HEALTH: dict[str, Any] = {"responses": _answers(answer_schemas.HEALTH_STATUS)}


def describe_keys(app: FastAPI) -> None:
    """Have the document say that a key is asked for, wherever it says that one may be missing (401)."""
    document = app.openapi()
    azure = {"type": "apiKey", "in": "header", "name": "api-key"}
    document["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}, "api-key": azure}}
    for operations in document["paths"].values():
        for operation in operations.values():
            if "401" in operation["responses"]:
                operation["security"] = [{"key": []}, {"api-key": []}]

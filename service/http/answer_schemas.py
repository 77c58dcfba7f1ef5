"""What `/openapi.json` says of answers: a schema for each, every property with its meaning.

Used by `service.http.openapi`. `tests/service/http/test_openapi.py` holds real answers against them.
"""

from typing import Any

from model.segments import SKIP_REASONS


def text(description: str, **more: Any) -> dict[str, Any]:
    """A string."""
    return {"type": "string", "description": description, **more}


def number(description: str) -> dict[str, Any]:
    """A number; of seconds, most often."""
    return {"type": "number", "description": description}


def whole(description: str) -> dict[str, Any]:
    """A whole number."""
    return {"type": "integer", "description": description}


def array(items: dict[str, Any], description: str) -> dict[str, Any]:
    """A list."""
    return {"type": "array", "items": items, "description": description}


def record(**properties: Any) -> dict[str, Any]:
    """An object that has all of these."""
    return {"type": "object", "required": list(properties), "properties": properties}


def nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def _shares(description: str) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": {"type": "number"}, "description": description}


_REQUEST_ID = text("The value of the header `X-Request-Id`: the client's, or a new one.")
_MODEL_NAME = text("Name of the model.")
_CODE = "Code of the language"
_STRETCH = {"start": number("Seconds."), "end": number("Seconds.")}
ERROR = record(
    error=record(
        message=text("What is wrong, for people."),
        type=text("Kind of error, as the hosted API names it."),
        param=nullable(text("The field that is wrong.")),
        code=nullable(text("What is wrong, for programs.")),
    ),
    request_id=nullable(_REQUEST_ID),
)
_SEGMENT = record(
    id=whole("Number of the segment, from 0."),
    seek=whole("Frame of 10 ms at which the segment's window starts."),
    **_STRETCH,
    language=text(f"{_CODE} that was spoken in the segment's window."),
    text=text("What was said, with a leading blank."),
    tokens=array({"type": "integer"}, "Tokens of the text and of its timestamps."),
    temperature=number("At which the window was decoded."),
    avg_logprob=number("Mean log-probability of the window's tokens; below -1 it is doubtful."),
    compression_ratio=number("How well the window's text compresses; above 2.4 it repeats itself."),
    no_speech_prob=number("The model's probability that nobody speaks in the window."),
)
WARNINGS = array(
    record(
        reason=text(" ".join(f"`{reason}`: {meaning}." for reason, meaning in SKIP_REASONS.items())),
        **_STRETCH,
    ),
    "Which parts of the recording were skipped, and why.",
)
_HOSTED_SEGMENT = record(**{name: one for name, one in _SEGMENT["properties"].items() if name != "language"})
_SEGMENT["properties"]["words"] = array(
    record(
        word=text("The word, with its leading blank and its punctuation."),
        **_STRETCH,
        probability=number("Mean of its tokens' probabilities."),
    ),
    "Only with `timestamps=word`.",
)
_USAGE = record(type=text("What is counted: time.", const="duration"), seconds=number("Length of the recording."))
TRANSCRIPTION = record(
    task=text("`transcribe` or `translate`."),
    language=text(f"{_CODE} that was spoken first; `en` where nobody named it and no window was heard."),
    language_probability=nullable(
        number(
            "Null where the language was not detected: the caller named it, the model knows English alone, or no "
            "window was heard."
        )
    ),
    duration=number("Seconds of the recording."),
    text=text("All that was said."),
    segments=array(_SEGMENT, "Empty for silence."),
    warnings=WARNINGS,
    model=_MODEL_NAME,
    usage=_USAGE,
    timings=record(
        queue=number("Seconds until its first window started."),
        decode_audio=number("Seconds from upload to samples."),
        inference=number("Seconds of work on its windows."),
        total=number("Seconds from its arrival."),
    ),
    request_id=_REQUEST_ID,
)
TRANSCRIPTION["properties"]["language_probabilities"] = _shares(
    "Every language, most probable first, if the form asked for them and the language was detected."
)
LANGUAGE = record(
    language=text(f"{_CODE} that is spoken."),
    language_name=text("Its English name."),
    probability=number("Of this language."),
    probabilities=_shares("Every language that the model knows, most probable first."),
    duration=number("Seconds of the recording, of which the first 30 are used."),
    model=_MODEL_NAME,
    request_id=_REQUEST_ID,
)
OPENAI_JSON = record(text=text("All that was said."), usage=_USAGE)
OPENAI_VERBOSE = record(
    task=text("`transcribe` or `translate`."),
    language=text("English name of the text's language, in lower case."),
    duration=number("Seconds of the recording."),
    text=text("All that was said."),
    usage=_USAGE,
)
_IF_SKIPPED = {"warnings": {**WARNINGS, "description": "What was skipped, and why; absent if nothing was."}}
OPENAI_JSON["properties"] |= _IF_SKIPPED
OPENAI_VERBOSE["properties"] |= _IF_SKIPPED | {
    "segments": array(_HOSTED_SEGMENT, "Absent if only words were asked for."),
    "words": array(
        record(
            word=text("The word with its punctuation, without a leading blank."),
            **_STRETCH,
        ),
        "If they were asked for.",
    ),
}
MODEL_INFO = record(
    id=text("Its name."),
    object=text("What this is.", const="model"),
    created=whole("Always 0."),
    owned_by=text("Who made it."),
    languages=array({"type": "string"}, "Codes; only `en` for English models."),
    can_translate={"type": "boolean", "description": "Whether it takes `task=translate`."},
    device=text("What it runs on."),
    compute_type=text("Its arithmetic."),
    encoder_context=text("`full`, or `short` where the padding behind a clip is known beforehand."),
    cross_kv=text("Number format of the cross-attention cache."),
    sha256=nullable(text("Of the weights.")),
)
HEALTH_STATUS = record(status=text("`alive` or `ready`."))

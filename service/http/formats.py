"""Answers: a finished transcription, or a detected language, in the form that was asked for.

JSON has the keys and units of the interface: seconds, rounded where more digits say nothing. The subtitle formats are
the model package's writers. Segments without text are left out, so silence is an answer with no segments.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from model.output.formats import WRITERS
from model.output.languages import language_json, ranked
from model.output.subtitles import Layout
from model.segments import Segment, Skipped, Transcription, Word

_PLAIN = Layout()
_MOST_IN_HEADER = 64
"""Warnings that a header lists: a balancer may take no more than 8 KiB of head."""
MEDIA_TYPES: Mapping[str, str] = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
}
"""Every format that may be asked for, each with its type: those of `WRITERS`, json with keys of its own."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went, in seconds."""

    queue: float
    decode_audio: float
    inference: float
    total: float


def json_response(content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`content` as compact UTF-8 JSON."""
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(body.encode("utf-8", "replace"), status, dict(headers or {}), media_type=MEDIA_TYPES["json"])


def spoken(segments: Sequence[Segment], first: int = 0) -> tuple[Segment, ...]:
    """The segments that say something, numbered from `first`."""
    heard = (segment for segment in segments if segment.text.strip())
    return tuple(dataclasses.replace(segment, id=number) for number, segment in enumerate(heard, first))


def transcription_response(
    result: Transcription,
    response_format: str,
    layout: Layout = _PLAIN,
    *,
    model: str,
    request_id: str,
    timings: Timings,
    language_probabilities: bool = False,
) -> Response:
    """The answer of `/v1/transcribe`; `layout` cuts subtitles, `language_probabilities` lists them all in JSON."""
    if response_format != "json":
        return text_response(result, response_format, layout)
    return json_response(
        transcription_json(
            result,
            model=model,
            request_id=request_id,
            timings=timings,
            language_probabilities=language_probabilities,
        )
    )


def text_response(result: Transcription, response_format: str, layout: Layout = _PLAIN) -> Response:
    """The transcription in a format that is no JSON."""
    return raw_response(WRITERS[response_format](result, layout), response_format, result.warnings)


def raw_response(text: str, response_format: str, warnings: Sequence[Skipped]) -> Response:
    """Text of this format; `X-Warnings` says what was skipped, as the text cannot."""
    headers = {"content-type": MEDIA_TYPES[response_format]}
    if warnings:
        headers["x-warnings"] = _warnings_line(warnings)
    return Response(text.encode("utf-8", "replace"), headers=headers)


def transcription_json(
    result: Transcription,
    *,
    model: str,
    request_id: str,
    timings: Timings,
    language_probabilities: bool = False,
) -> dict[str, Any]:
    """What `/v1/transcribe` answers in JSON; `language_probabilities` lists them all."""
    duration, probability = round(result.duration, 3), result.language_probability
    content = {
        "task": result.task,
        "language": result.language,
        "language_probability": None if probability is None else round(probability, 4),
        "duration": duration,
        "text": result.text,
        "segments": [segment_json(segment) for segment in result.segments],
        "warnings": warnings_json(result),
        "model": model,
        "usage": {"type": "duration", "seconds": duration},
        "timings": {name: round(seconds, 4) for name, seconds in dataclasses.asdict(timings).items()},
        "request_id": request_id,
    }
    if language_probabilities and result.language_probabilities:
        content["language_probabilities"] = ranked(result.language_probabilities)
    return content


def segment_events(segments: Sequence[Segment]) -> Iterator[dict[str, Any]]:
    """What a stream of `/v1/transcribe` tells of segments before the whole answer."""
    for segment in segments:
        yield {"type": "transcript.segment", "segment": segment_json(segment)}


def segment_json(segment: Segment) -> dict[str, Any]:
    """A segment as `/v1/transcribe` tells it."""
    words = {} if segment.words is None else {"words": [_word_json(word) for word in segment.words]}
    return {
        "id": segment.id,
        "seek": segment.seek,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "language": segment.language,
        "text": segment.text,
        "tokens": segment.tokens,
        "temperature": segment.temperature,
        "avg_logprob": round(segment.avg_logprob, 6),
        "compression_ratio": round(segment.compression_ratio, 6),
        "no_speech_prob": round(segment.no_speech_prob, 6),
        **words,
    }


def _word_json(word: Word) -> dict[str, Any]:
    return {
        "word": word.word,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "probability": round(word.probability, 6),
    }


def warnings_json(result: Transcription) -> list[dict[str, Any]]:
    """What was skipped, and where, as every JSON answer tells it."""
    return [{"reason": one.reason, "start": round(one.start, 3), "end": round(one.end, 3)} for one in result.warnings]


def _warnings_line(warnings: Sequence[Skipped]) -> str:
    """The same for a header, which is no place for long lists: `no_voice 12.000-30.000, ...`."""
    told = [f"{one.reason} {one.start:.3f}-{one.end:.3f}" for one in warnings[:_MOST_IN_HEADER]]
    return ", ".join([*told, "..."] if len(warnings) > _MOST_IN_HEADER else told)


def language_response(
    language: str, probabilities: Mapping[str, float], *, duration: float, model: str, request_id: str
) -> Response:
    """The answer of `/v1/detect-language`: every language that the model knows, likeliest first."""
    return json_response(
        {
            **language_json(language, probabilities),
            "duration": round(duration, 3),
            "model": model,
            "request_id": request_id,
        }
    )

"""Answers as `/openapi.json` shows them: one recording, told by what writes the real answers.

Used by `service.http.openapi`, whose schemas they keep to.
"""

from collections.abc import Mapping
from typing import Any

from model.options import TranscribeOptions
from model.output.formats import WRITERS
from model.output.languages import language_json
from model.output.subtitles import Layout
from model.segments import Segment, Transcription
from service.errors import BadRequest, NotFound, ServiceError, TooLarge
from service.http.exchange import error_body
from service.http.formats import MEDIA_TYPES, Timings, transcription_json
from service.http.openai_audio import OpenAIForm, openai_json
from service.http.schemas import TranscribeForm

_REQUEST_ID = "e835d1d1c341402b89e1f61c201c8cc2"
_TEXT = "And so my fellow Americans ask not what your country can do for you."
_SEGMENT = Segment(
    id=0,
    seek=0,
    start=0.0,
    end=7.6,
    text=f" {_TEXT}",
    tokens=(50364, 400, 370, 452, 7177, 6280, 1029, 406, 437, 428, 1941, 393, 360, 337, 291, 13, 50744),
    temperature=0.0,
    avg_logprob=-0.392422,
    compression_ratio=1.046154,
    no_speech_prob=0.071743,
)
_SAID = Transcription("transcribe", "en", 0.9507, 8.0, _TEXT, (_SEGMENT,))
_FORM = TranscribeForm(TranscribeOptions(), "json", Layout(), language_probabilities=False)

TRANSCRIPTION: dict[str, Any] = transcription_json(
    _SAID,
    model="base",
    request_id=_REQUEST_ID,
    timings=Timings(queue=0.0004, decode_audio=0.0064, inference=0.2406, total=0.2575),
)
OPENAI: dict[str, Any] = openai_json(_SAID, OpenAIForm(_FORM, "verbose_json", frozenset({"segment"})))
LANGUAGE: dict[str, Any] = {
    **language_json("en", {"en": 0.9507, "de": 0.0103, "cy": 0.0052}),
    "duration": 8.0,
    "model": "base",
    "request_id": _REQUEST_ID,
}
TEXTS: Mapping[str, str] = {
    MEDIA_TYPES[name].partition(";")[0]: WRITERS[name](_SAID) for name in MEDIA_TYPES if name != "json"
}
"""By media type."""
_REFUSALS: tuple[ServiceError, ...] = (
    BadRequest("temperature must be a number, or numbers with commas between them.", param="temperature"),
    NotFound("No such model: here is base, which whisper-1 stands for too.", param="model", code="model_not_found"),
    TooLarge("The recording is longer than 3600 seconds.", param="file", code="audio_too_long"),
)
REFUSALS: Mapping[int, dict[str, Any]] = {error.status: error_body(error, _REQUEST_ID) for error in _REFUSALS}
"""By status; of those that blame a field, since FastAPI leaves null out of examples."""

"""What a caller asks: the form's fields as options, every refusal naming its field.

Gets the fields from `service.http.multipart`, reads them by the table in `service.http.fields`, gives
`model.options.TranscribeOptions` to the jobs. A field that is sent empty counts as absent, as browsers send it, but for
those that say otherwise (`Field.takes_empty`).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from model.errors import OptionError
from model.language import canonical_language
from model.options import MAX_WIDTH, TranscribeOptions, check_width
from model.output.subtitles import Layout, check_format
from service.errors import BadRequest
from service.http.fields import FIELDS, Field
from service.http.multipart import FILE_FIELD, MAX_NAME_CHARACTERS
from service.wire.messages import ModelInfo

_LAYOUT_FIELDS = tuple(field.name for field in dataclasses.fields(Layout))
_FIELD_OF_OPTION = {field.option: name for name, field in FIELDS.items()}
_AZURE_FIELD = "api-version"
"""Azure's clients put it into the query string of every request."""


@dataclass(frozen=True, slots=True)
class TranscribeForm:
    """A transcription as asked for."""

    options: TranscribeOptions
    response_format: str
    """One of `service.http.formats.MEDIA_TYPES`."""
    layout: Layout
    """How subtitles are cut; needs words, which `options` then find."""
    language_probabilities: bool
    """Whether the answer lists every language."""
    stream: bool = False
    """Whether it is sent in pieces."""


def parse_transcribe(fields: Mapping[str, str], model: ModelInfo, *, beam_size: int = 0) -> TranscribeForm:
    """The form's fields as options that `model` can fulfil; `BadRequest` names the first that is wrong.

    `beam_size`: that of requests that name none; 0 is none.
    """
    check_names(fields, known=FIELDS)
    said = {name: text for name, text in fields.items() if text or FIELDS[name].takes_empty}
    values = {FIELDS[name].option: FIELDS[name].parse(name, text) for name, text in said.items()}
    if beam_size and 0.0 in values.get("temperature", TranscribeOptions().temperature):
        values.setdefault("beam_size", min(beam_size, model.max_rows or MAX_WIDTH))
    response_format: str = values.pop("response_format", "json")
    lists_languages, stream = values.pop("language_probabilities", False), values.pop("stream", False)
    for name, asked in (("stream", stream), ("language_probabilities", lists_languages)):
        if asked and response_format != "json":
            raise BadRequest(f"{name} is for json, not for {response_format}.", param=name)
    if lists_languages and (values.get("language") or "auto").strip().lower() != "auto":
        raise BadRequest(
            "language_probabilities needs a language that is detected, not named.", param="language_probabilities"
        )
    values["language"] = _language(values.get("language"), model)
    if values.get("task") == "translate" and not model.can_translate:
        raise BadRequest(f"The model {model.name} cannot translate.", param="task")
    timestamps = values.pop("timestamps", "segment")
    chosen = {name: values.pop(name) for name in _LAYOUT_FIELDS if name in values}
    try:
        layout = Layout(**chosen)
        check_format(layout, response_format)
        options = dataclasses.replace(
            TranscribeOptions(),
            **values,
            without_timestamps=timestamps == "none",
            word_timestamps=timestamps == "word" or layout.needs_words,
        )
        check_width(options, model.max_rows or MAX_WIDTH)
    except OptionError as error:
        param = _FIELD_OF_OPTION.get(error.param, error.param)
        raise BadRequest(f"{str(error).replace(error.param, param)}.", param=param) from None
    _check_use(values, options)
    return TranscribeForm(options, response_format, layout, lists_languages, stream)


def _check_use(values: Mapping[str, Any], options: TranscribeOptions) -> None:
    """`BadRequest` for a field that would change nothing beside the others, though its caller expects that it does."""
    for name in ("prepend_punctuations", "append_punctuations"):
        if values.get(name) and not options.finds_words:
            raise BadRequest(f"{name} needs words: their timestamps, or lines of subtitles.", param=name)
    if options.carry_initial_prompt and not options.initial_prompt:
        raise BadRequest("carry_initial_prompt needs a prompt.", param="carry_initial_prompt")
    if options.length_penalty is not None and options.width == 1:
        raise BadRequest("length_penalty needs beam_size or best_of.", param="length_penalty")


def check_query(query: bytes, known: Mapping[str, Field]) -> None:
    """Nothing is read from the query string: `BadRequest` for a name that stands there, which would be passed over."""
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in known or name == FILE_FIELD:
            raise BadRequest(f"{name} must be a field of the form, not of the query string.", param=name)
        if name != _AZURE_FIELD:
            name = name[:MAX_NAME_CHARACTERS]
            message = f"Unknown field '{name}' in the query string, from which nothing is read."
            raise BadRequest(message, param=name, code="unknown_field")


def check_detect(fields: Mapping[str, str], model: ModelInfo) -> None:
    """Language detection takes no field but the file, and a model that knows languages."""
    check_names(fields, known={})
    if len(model.languages) <= 1:
        raise BadRequest(f"The model {model.name} knows English only: it cannot detect a language.")


def check_names(fields: Mapping[str, str], *, known: Mapping[str, Field]) -> None:
    """`BadRequest` for the first field that is not known."""
    for name in fields:
        if name not in known:
            plain = name.removesuffix("[]")
            hint = f" It is '{plain}' here, once; a list has commas in it." if plain in known else ""
            raise BadRequest(f"Unknown field '{name}'.{hint}", param=name, code="unknown_field")


def _language(text: str | None, model: ModelInfo) -> str | None:
    """The language's code, or None to detect it."""
    known = model.languages or ("en",)  # an English-only vocabulary names no language
    if text is None or text.strip().lower() == "auto":
        return known[0] if len(known) == 1 else None
    try:
        code = canonical_language(text)
    except OptionError:
        raise BadRequest("language must be a code or an English name of a language.", param="language") from None
    if code not in known:
        raise BadRequest(f"The model {model.name} does not know the language '{code}'.", param="language")
    return code

"""A detected language to text and JSON: what it is, and how probable each is.

Gets probabilities by code, the likeliest first, as `Transcriber.detect_language` gives them; gives strings to the
command line and the keys of its answer to the service.
"""

from collections.abc import Callable, Mapping
from typing import Any

from model.language import LANGUAGES
from model.output.formats import dump_json


def ranked(probabilities: Mapping[str, float]) -> dict[str, float]:
    """Languages, likeliest first, with six digits of their probability."""
    found = sorted(probabilities.items(), key=lambda item: (-item[1], item[0]))
    return {code: round(probability, 6) for code, probability in found}


def language_json(language: str, probabilities: Mapping[str, float]) -> dict[str, Any]:
    """A language with its English name and its probability, and those of all of them."""
    return {
        "language": language,
        "language_name": LANGUAGES.get(language, language),
        "probability": round(probabilities.get(language, 0.0), 6),
        "probabilities": ranked(probabilities),
    }


def _text(probabilities: Mapping[str, float]) -> str:
    """Code, English name and probability of the likeliest, with tabs between them."""
    code = next(iter(probabilities))
    return f"{code}\t{LANGUAGES.get(code, code)}\t{probabilities[code]:.3f}\n"


def _json(probabilities: Mapping[str, float]) -> str:
    """One JSON object in one line."""
    return dump_json(language_json(next(iter(probabilities)), probabilities)) + "\n"


LANGUAGE_WRITERS: Mapping[str, Callable[[Mapping[str, float]], str]] = {"text": _text, "json": _json}
"""Every format of a detected language by its name; no language is an error of the caller's."""

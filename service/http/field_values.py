"""The values of a form's fields: text as numbers, lists, choices; what cannot be read is refused by the field's name.

Each function gets the field's name and its text and gives the value, or `BadRequest`. Used by the tables of fields
(`service.http.fields`, `service.http.openai_audio`).
"""

import re
from collections.abc import Callable

from model.options import MAX_SUPPRESSED
from service.errors import BadRequest

MAX_CLIPS = 512
_NUMBER = re.compile(r"[+-]?(\d{1,18}(\.\d{0,18})?|\.\d{1,18})([eE][+-]?\d{1,3})?")
_INTEGER = re.compile(r"\d{1,18}")
_TOKEN = re.compile(r"-1|\d{1,6}")


def number(name: str, text: str) -> float:
    """A number."""
    if not _NUMBER.fullmatch(text.strip()):
        raise BadRequest(f"{name} must be a number.", param=name)
    return float(text)


def optional_number(name: str, text: str) -> float | None:
    """A number, or None for `none`."""
    if text.strip().lower() == "none":
        return None
    if not _NUMBER.fullmatch(text.strip()):
        raise BadRequest(f"{name} must be a number or none.", param=name)
    return float(text)


def numbers(name: str, text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    parts = _parts(name, text, MAX_CLIPS)
    if not all(_NUMBER.fullmatch(part.strip()) for part in parts):
        raise BadRequest(f"{name} must be a number, or numbers with commas between them.", param=name)
    return tuple(float(part) for part in parts)


def token_ids(name: str, text: str) -> tuple[int, ...]:
    """Ids of tokens, or -1, with commas between them; () for `none`."""
    if text.strip().lower() == "none":
        return ()
    parts = _parts(name, text, MAX_SUPPRESSED)
    if not all(_TOKEN.fullmatch(part.strip()) for part in parts):
        raise BadRequest(f"{name} must be ids of tokens (or -1) with commas between them, or none.", param=name)
    return tuple(int(part) for part in parts)


def _parts(name: str, text: str, most: int) -> list[str]:
    """What is between the commas; `BadRequest` where that are more than `most`."""
    parts = text.split(",", most)
    if len(parts) > most:
        raise BadRequest(f"{name} has too many values.", param=name)
    return parts


def flag(name: str, text: str) -> bool:
    """True or false."""
    value = {"true": True, "false": False, "1": True, "0": False}.get(text.strip().lower())
    if value is None:
        raise BadRequest(f"{name} must be true or false.", param=name)
    return value


def whole_number(name: str, text: str) -> int:
    """A whole number from 0 on."""
    if not _INTEGER.fullmatch(text.strip()):
        raise BadRequest(f"{name} must be a whole number from 0 on, of at most 18 digits.", param=name)
    return int(text)


def choice(*values: str) -> Callable[[str, str], str]:
    """Reads one of `values`, and refuses everything else."""

    def parse(name: str, text: str) -> str:
        if text not in values:
            raise BadRequest(f"{name} must be one of: {', '.join(values)}.", param=name)
        return text

    return parse


def plain(_: str, text: str) -> str:
    """The text as it is."""
    return text

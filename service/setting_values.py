"""How the texts of settings that are lists or addresses are read; `ValueError` says what is allowed.

Used by `service.settings`, which names the variable.
"""

import re
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

_DEVICE = re.compile(r"cpu|cuda:(0|[1-9]\d{0,2})")
_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]{8,512}")
_MAX_KEYS = 1000
_ALIAS = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,100}")
_MAX_ALIASES = 32


def devices(value: Any) -> tuple[Any, ...]:
    """`auto`, or a comma list of devices."""
    names = _split(value)
    if names != ("auto",) and not all(isinstance(name, str) and _DEVICE.fullmatch(name) for name in names):
        raise ValueError("must be 'auto' or a comma list of 'cpu', 'cuda:0', 'cuda:1', ...")
    if not names or names.count("cpu") > 1:
        raise ValueError("must name at least one device, and the CPU once")
    return names


def api_keys(value: Any) -> tuple[Any, ...]:
    """A comma list of keys; messages repeat none."""
    keys = _split(value)
    if value and not keys:
        raise ValueError("holds no key")
    if isinstance(value, str) and re.fullmatch(r"\s*(['\"]).*\1\s*", value):
        raise ValueError("is in quotes, which would be part of the keys")
    if len(keys) > _MAX_KEYS:
        raise ValueError(f"must hold at most {_MAX_KEYS} keys")
    if not all(isinstance(key, SecretStr) or _KEY.fullmatch(key) for key in keys):
        raise ValueError("every key must be 8 to 512 visible ASCII characters without a comma")
    return keys


def model_aliases(value: Any) -> tuple[Any, ...]:
    """A comma list of names of models."""
    names = _split(value)
    if len(names) > _MAX_ALIASES:
        raise ValueError(f"must hold at most {_MAX_ALIASES} names")
    if not all(isinstance(name, str) and _ALIAS.fullmatch(name) for name in names):
        raise ValueError("every name must be 1 to 100 visible ASCII characters without a comma")
    return names


def trace_endpoint(value: str) -> str:
    """An address of HTTP, or nothing."""
    try:
        urlsplit(value).port  # noqa: B018  reading it is what tells
        valid = re.fullmatch(r"(https?://[^\s/?#:]\S*)?", value)
    except ValueError:
        valid = None
    if not valid:
        raise ValueError("must be an address of the form http://collector:4318/v1/traces")
    return value


def _split(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        return tuple(part for part in (part.strip() for part in value.split(",")) if part)
    return tuple(value)

"""API keys: who may call, decided from `Authorization`, or without one from Azure's `api-key`, and nothing else.

Keys are kept as SHA-256 only. Every known key is compared, in constant time, whatever was sent, so that an answer's
time tells nothing about a key or its place in the list. With no keys configured the service is open.
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence

from service.errors import Unauthorized

KEY_ID_LENGTH = 12
_SCHEME = b"bearer "


class Keys:
    """The keys that may call."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(hashlib.sha256(key.encode("utf-8")).digest() for key in keys)

    def authenticate(self, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
        """The id of the caller's key (the first digits of its hash), None for an open service; `Unauthorized`.

        `headers` are ASGI's: lower-case names, raw values; a value need not be ASCII.
        """
        if not self._digests:
            return None
        bearers = [_bearer(value) for name, value in headers if name == b"authorization"]
        sent = bearers or [value.strip() for name, value in headers if name == b"api-key"]
        key = sent[0] if len(sent) == 1 else b""
        digest = hashlib.sha256(key).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            raise Unauthorized("A valid API key is required: Authorization: Bearer KEY, or api-key: KEY.")
        return digest.hex()[:KEY_ID_LENGTH]


def _bearer(value: bytes) -> bytes:
    """The key in a value of `Authorization`; nothing for another scheme."""
    return value[len(_SCHEME) :].strip() if value[: len(_SCHEME)].lower() == _SCHEME else b""

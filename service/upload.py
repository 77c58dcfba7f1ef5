"""Receives a request body: counted, against a deadline, into a `service.multipart.Form`.

ASGI gives the body in pieces of at most 64 KiB or one transport read, so an upload over the limit is refused within
that much of it. What the client announces (`Content-Length`, `Content-Encoding`, `Content-Type`) is checked before
anything is read; what it then sends is counted all the same.

`linger` is for the answers that come before the body was read: closing a connection with unread bytes resets it, and
a client that sends first and reads later would see the reset, not the answer. So the rest is thrown away for a while.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.types import Message, Receive

from service.errors import BadRequest, TooLarge, UnsupportedEncoding, UploadTimeout
from service.multipart import Form, FormReader, boundary_of

LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 3.0
_MAX_CONTENT_TYPE_BYTES = 1024
_DIGITS = re.compile(rb"\d{1,19}")

Headers = Sequence[tuple[bytes, bytes]]


class ClientDisconnected(Exception):
    """The client went away: nobody waits for the answer."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bytes of one body, and the time to receive it."""

    max_bytes: int
    seconds: float


def content_length(headers: Headers) -> int | None:
    """The announced size of the body, None where it is not announced (chunked); `BadRequest` for nonsense."""
    values = {value.strip() for name, value in headers if name == b"content-length"}
    if not values:
        return None
    if len(values) > 1 or not _DIGITS.fullmatch(value := values.pop()):
        raise BadRequest("The Content-Length is not a number.")
    return int(value)


def has_body(headers: Headers) -> bool:
    """Whether the request brings a body."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0") for name, value in headers
    )


async def receive_form(
    receive: Receive, headers: Headers, limits: UploadLimits, hold_bytes: Callable[[int], None]
) -> Form:
    """The form in the request's body; the caller closes it.

    `hold_bytes` hears how much the upload takes and may refuse it. Raises `BadRequest`, `UnsupportedEncoding`,
    `TooLarge`, `UploadTimeout`, `ClientDisconnected`, and what `hold_bytes` raises; then nothing is left behind.
    """
    boundary = _check_type(headers)
    announced = content_length(headers)
    if announced is not None and announced > limits.max_bytes:
        raise _too_large(limits)
    hold_bytes(announced or 0)
    form = Form()
    try:
        async with asyncio.timeout(limits.seconds) as deadline:
            await _receive_into(FormReader(boundary, form), receive, limits, hold_bytes, announced or 0)
    except TimeoutError:
        form.close()
        if not deadline.expired():
            raise
        raise UploadTimeout(f"The request body did not arrive within {limits.seconds:g} seconds.") from None
    except BaseException:
        form.close()
        raise
    return form


async def _receive_into(
    reader: FormReader, receive: Receive, limits: UploadLimits, hold_bytes: Callable[[int], None], held: int
) -> None:
    received, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        body: bytes = message.get("body", b"")
        received += len(body)
        if received > limits.max_bytes:
            raise _too_large(limits)
        if received > held:
            held = received
            hold_bytes(held)
        reader.feed(body)
        more = message.get("more_body", False)
    reader.finish()


def _check_type(headers: Headers) -> bytes:
    """The multipart boundary, once the headers are such that the body is worth reading."""
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise UnsupportedEncoding("The body must not be compressed: no Content-Encoding but identity is taken.")
    types = [value for name, value in headers if name == b"content-type"]
    if len(types) != 1 or len(types[0]) > _MAX_CONTENT_TYPE_BYTES:
        raise BadRequest("The request needs one Content-Type, multipart/form-data with a boundary.")
    if types[0].partition(b";")[0].strip().lower() != b"multipart/form-data":
        raise UnsupportedEncoding("The body must be multipart/form-data.", code="unsupported_media_type")
    return boundary_of(types[0])


def _too_large(limits: UploadLimits) -> TooLarge:
    return TooLarge(f"The request body is larger than {limits.max_bytes} bytes.", param="file")


async def linger(receive: Receive) -> None:
    """Throw the rest of the body away, until it ends or has gone on for too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            thrown = 0
            while thrown < LINGER_BYTES:
                message: Message = await receive()
                thrown += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return

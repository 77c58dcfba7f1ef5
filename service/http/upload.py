"""Receives a request body: counted, against a deadline, into a `service.http.multipart.Form`.

ASGI gives the body in pieces of at most 64 KiB or one transport read, so an upload over the limit is refused within
that much of it. What the client announces (`Content-Length`, `Content-Encoding`, `Content-Type`) is checked before
anything is read; what it then sends is counted all the same.

A sender holds a place and memory, so it must also keep up: every byte buys it a little time, and who has none left
is refused long before the whole upload's deadline (`_Pace`).

`linger` is for the answers that come before the body was read: closing a connection with unread bytes resets it, and
a client that sends first and reads later would see the reset, not the answer. So the rest is thrown away for a while.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from starlette.types import Message, Receive

from service.errors import BadRequest, TooLarge, UnsupportedEncoding, UploadTimeout
from service.http.multipart import Form, FormReader, boundary_of

LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 3.0
_MAX_CONTENT_TYPE_BYTES = 1024
_DIGITS = re.compile(rb"\d{1,19}")

Headers = Sequence[tuple[bytes, bytes]]


class ClientDisconnected(Exception):
    """The client went away: nobody waits for the answer."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bytes of one body, the time to receive it, and how fast it must come."""

    max_bytes: int
    seconds: float
    bytes_per_second: int
    """0 asks for no pace."""
    grace_seconds: float
    """How long a sender may be silent."""


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
    receive: Receive,
    headers: Headers,
    limits: UploadLimits,
    hold_bytes: Callable[[int], None],
    lists: Collection[str] = (),
) -> Form:
    """The form in the request's body, whose `lists` are fields that may come more than once; the caller closes it.

    `hold_bytes` hears how much the upload takes and may refuse it. Raises `BadRequest`, `UnsupportedEncoding`,
    `TooLarge`, `UploadTimeout`, `ClientDisconnected`, and what `hold_bytes` raises; then nothing is left behind.
    """
    boundary = _check_type(headers)
    announced = content_length(headers)
    if announced is not None and announced > limits.max_bytes:
        raise _too_large(limits)
    hold_bytes(announced or 0)
    form = Form(lists)
    try:
        async with asyncio.timeout(limits.seconds) as deadline:
            pace = _Pace(limits, announced or 0, deadline)
            await _receive_into(FormReader(boundary, form), receive, limits, hold_bytes, announced or 0, pace)
    except TimeoutError:
        form.close()
        if not deadline.expired():
            raise
        raise pace.error() from None
    except BaseException:
        form.close()
        raise
    return form


class _Pace:
    """Moves the deadline of an upload on as its bytes come.

    A byte buys the time in which the asked-for pace would have brought it; at most `grace_seconds` are saved up. The
    pace is `bytes_per_second`, for a large upload half of what would bring the announced size in the time it has:
    so a place, and the memory that was announced, cost a sender that much all the time.
    """

    def __init__(self, limits: UploadLimits, announced: int, deadline: asyncio.Timeout) -> None:
        self._limits, self._deadline = limits, deadline
        self._clock = asyncio.get_running_loop().time
        self._end = self._clock() + limits.seconds
        self._due = self._clock() + limits.grace_seconds
        self._bytes_per_second = max(limits.bytes_per_second, announced / limits.seconds / 2)
        self.brought(0)

    def brought(self, count: int) -> None:
        """So many bytes came."""
        if self._limits.bytes_per_second:
            self._due = min(self._due + count / self._bytes_per_second, self._clock() + self._limits.grace_seconds)
            self._deadline.reschedule(min(self._due, self._end))

    def error(self) -> UploadTimeout:
        """What to say once the deadline has passed."""
        if self._limits.bytes_per_second and self._due < self._end:
            least = f"at least {self._bytes_per_second:.0f} bytes a second are asked for"
            return UploadTimeout(f"The request body came too slowly: {least}.", code="upload_too_slow")
        return UploadTimeout(f"The request body did not arrive within {self._limits.seconds:g} seconds.")


async def _receive_into(
    reader: FormReader,
    receive: Receive,
    limits: UploadLimits,
    hold_bytes: Callable[[int], None],
    held: int,
    pace: _Pace,
) -> None:
    received, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        body: bytes = message.get("body", b"")
        received += len(body)
        pace.brought(len(body))
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

"""An answer in pieces: server-sent events (HTML standard, section 9.2), each a JSON object in a line `data:`.

Nothing goes out before there is something to tell, so that what is refused until then is refused with its status, as
any other request. From then on the status is 200, and an error is the last event: the common error body, which the
hosted API's clients raise (`service.http.exchange`). While nothing is told a comment goes out now and then:
proxies close what is silent for long. What ends without its last event has been cut off.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

MEDIA_TYPE = "text/event-stream"
BEAT_SECONDS = 15.0
"""A quarter of what proxies commonly wait for the next byte of an answer."""
_COMMENT = b":\n\n"
_HEADERS = (
    (b"content-type", f"{MEDIA_TYPE}; charset=utf-8".encode()),  # what `requests` would take for Latin-1
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # by default nginx keeps what comes slowly until there is more of it
)
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""Ends of lines to Python, whose HTTP clients cut lines in them, though neither to JSON nor to the standard."""


def event(content: Mapping[str, Any]) -> bytes:
    """The bytes of one event."""
    line = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"data: {line.translate(_LINE_ENDS)}\n\n".encode("utf-8", "replace")


def begins_stream(message: Message) -> bool:
    """Whether this is the beginning of an answer in pieces."""
    return message["type"] == "http.response.start" and _HEADERS[0] in message.get("headers", ())


class EventStream:
    """Sends events; as a context manager it sends comments meanwhile."""

    def __init__(self, send: Send, beat_seconds: float = BEAT_SECONDS) -> None:
        """`send` must not have been used for an answer yet."""
        self._send, self._beat_seconds = send, beat_seconds
        self._begun = False
        self._last = time.monotonic()
        self._turn = asyncio.Lock()
        self._beats: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._beats = asyncio.create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.gather(self._beats, return_exceptions=True)

    async def tell(self, content: Mapping[str, Any]) -> None:
        """Send an event; the client has it, or the kernel for it, before the next one can be told."""
        await self._write(event(content))

    async def _beat(self) -> None:
        while True:
            due = self._last + self._beat_seconds - time.monotonic()
            if due > 0:
                await asyncio.sleep(due)
            else:
                await self._write(_COMMENT)

    async def _write(self, piece: bytes) -> None:
        async with self._turn:
            if not self._begun:
                self._begun = True
                await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            self._last = time.monotonic()


class Answer(Response):
    """An answer that is made while it is sent: `make` gives it whole, or None where it sent all of it in pieces."""

    def __init__(self, make: Callable[[Send], Awaitable[Response | None]]) -> None:
        super().__init__()
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make and send it; errors of `make` come out, also after its first pieces went."""
        response = await self._make(send)
        if response is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await response(scope, receive, send)

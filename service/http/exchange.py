"""One request's two directions as the application uses them, and how a refusal is sent wherever both have come to.

An answer that comes before the body was read is followed by a bounded reading of the rest
(`service.http.upload.linger`), then the connection closes. One that has begun as a stream ends with the error.
"""

from typing import Any

from starlette.types import Message, Receive, Scope, Send

from service.errors import ServiceError
from service.http import event_stream
from service.http.formats import json_response
from service.http.upload import has_body, linger


class Exchange:
    """The request's `receive` and `send`, with an eye on how far both have come."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str, traceparent: str | None) -> None:
        self._receive, self._send = receive, send
        self._headers = [(b"x-request-id", request_id.encode())]
        if traceparent is not None:
            self._headers.append((b"traceparent", traceparent.encode()))
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
            # Somebody before us may have seen another end of this body (RFC 9112, section 6.1).
            self._headers.append((b"connection", b"close"))
        self.unread = has_body(scope["headers"])
        self.status: int | None = None
        self._begun = self._streams = False

    @property
    def fixed(self) -> bool:
        """Whether an answer has begun in which no error can be told any more."""
        return self._begun and not self._streams

    async def receive(self) -> Message:
        """The next piece of the body, or the disconnect."""
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.unread = False
        return message

    async def send(self, message: Message) -> None:
        """Pass on, with the request's id and its place in the trace in the headers.

        What waits for the client to read an answer before, and is cancelled meanwhile, has not begun.
        """
        if message["type"] != "http.response.start":
            await self._send(message)
            return
        self.status = message["status"]
        await self._send({**message, "headers": [*message.get("headers", ()), *self._headers]})
        self._begun, self._streams = True, event_stream.begins_stream(message)

    async def answer(self, error: ServiceError, request_id: str, headers: dict[str, str], *, patient: bool) -> None:
        """Send the error body; when the request's own body was not read, close after a bounded rest of it.

        In an answer that has begun as a stream it is the last event.
        """
        if self._streams:
            self.status = error.status  # of the logs and metrics: what was sent before it was known is no success
            body = event_stream.event(error_body(error, request_id))
            await self._send({"type": "http.response.body", "body": body, "more_body": False})
            return
        response = json_response(error_body(error, request_id), error.status, headers)
        if self.unread:
            response.headers["connection"] = "close"
        await self.send({"type": "http.response.start", "status": error.status, "headers": response.raw_headers})
        await self.send({"type": "http.response.body", "body": response.body, "more_body": True})
        if self.unread and patient:
            await linger(self.receive)
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


def error_body(error: ServiceError, request_id: str | None) -> dict[str, Any]:
    """The one error body."""
    fields = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return {"error": fields, "request_id": request_id}

"""One client's connection: uvicorn's HTTP/1.1, with deadlines for heads and for who reads nothing, and our error body.

Requests that are refused before the application sees them (a malformed request line, a negative Content-Length, a late
head) get the same error body as any other, and stand in the log and the metrics. A connection takes a descriptor, and
anybody may open thousands: of too many the one that has been idle for longest is closed, never one whose request is in
work.
"""

import asyncio
import json
import uuid
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service import logs
from service.errors import BadRequest, ServiceError, UploadTimeout
from service.http.context import RequestContext
from service.http.exchange import error_body
from service.http.metrics import Metrics

KEEP_ALIVE_SECONDS = 75
"""An idle connection waits so long for its next request: longer than load balancers do."""
_MAX_AHEAD_BYTES = 64 * 1024
"""What a client may send of its next requests before the answer to one; past that nothing is read."""


class HttpProtocol(H11Protocol):
    """A deadline for every head, JSON for refusals; see the module."""

    header_seconds = 60.0
    """Time for a request's head: from the connection for the first one, from its first bytes for later ones.

    Between two requests a connection has `KEEP_ALIVE_SECONDS`.
    """
    unread_seconds = float(KEEP_ALIVE_SECONDS)
    """A client that takes nothing of what waits for it for so long is gone."""
    max_connections = 4096
    """Of more than these one is closed."""
    metrics: Metrics | None = None
    """Where refusals are counted."""
    _idle_since = 0.0
    """The end of its last answer, or else its beginning, by the clock of the event loop."""
    _header_timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: its headers are due."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # be told of whatever waits for the client
        self._idle_since = self.loop.time()
        self._make_room()
        self._expect_head()

    def pause_writing(self) -> None:
        """Something waits for the client to read."""
        super().pause_writing()
        self._expect_reading(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client has all of it, or the kernel for it."""
        super().resume_writing()
        self._forget_reading()

    def data_received(self, data: bytes) -> None:
        """What came may be the beginning of another head, whose rest is due then."""
        super().data_received(data)
        if self._header_timer is None and self.timeout_keep_alive_task is None and not self._has_request:
            self._expect_head()

    def handle_events(self) -> None:
        """Something arrived; a request ends the wait for headers."""
        super().handle_events()
        if self._has_request:
            self._forget_head()
            # Where anything follows the request uvicorn reads nothing while it answers, and would not see a client go.
            if len(self.conn.trailing_data[0]) <= _MAX_AHEAD_BYTES:
                self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """The answer has gone out; another request may follow."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._forget_head()
        self._forget_reading()
        super().connection_lost(exc)

    @property
    def _has_request(self) -> bool:
        """Whether a request has come that is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _works(self) -> bool:
        """Whether it is our turn."""
        return self._has_request and self._reading_timer is None

    def _make_room(self) -> None:
        """Close a connection if there are too many: an idle one if there is one, else one that reads no answer."""
        if len(self.connections) <= self.max_connections:
            return
        others = [each for each in self.connections if isinstance(each, HttpProtocol) and each is not self]
        if waiting := [each for each in others if not each._works]:
            longest = min(waiting, key=lambda each: (each._has_request, each._idle_since))
            self.connections.discard(longest)
            longest.transport.abort()

    def _expect_head(self) -> None:
        self._header_timer = self.loop.call_later(self.header_seconds, self._headers_are_late)

    def _forget_head(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _expect_reading(self, waiting: int) -> None:
        self._reading_timer = self.loop.call_later(self.unread_seconds, self._check_reading, waiting)

    def _check_reading(self, before: int) -> None:
        """However slow a client is, it must have taken some of the bytes that waited `before`."""
        waiting = self.transport.get_write_buffer_size()
        if waiting < before:
            self._expect_reading(waiting)
        else:
            self.transport.abort()

    def _forget_reading(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: any client could fill the log with it, and an upgrade may be passed over (RFC 9110, 7.8)."""

    def _headers_are_late(self) -> None:
        """Refuse half a head; who has sent nothing has asked for nothing, and is told nothing."""
        self._header_timer = None
        if self._has_request or self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            self._refuse(UploadTimeout("The head of the request took too long."))
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; when an answer is already on its way, just close."""
        self._refuse(BadRequest(msg, code="invalid_http"))
        if self.cycle is not None and not self.cycle.response_complete:
            # The application must not answer on top of it.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _refuse(self, error: ServiceError) -> None:
        """Send an error body where nothing of an answer is on its way; the connection is to be closed then."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        context = self._context_in_work()
        if context is None:
            request_id = self._noted(error)
            if self._has_request:
                self.scope["state"]["refused"] = True
        else:
            request_id, context.refused = context.request_id, error
        body = json.dumps(error_body(error, request_id)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
        ]
        reason = HTTPStatus(error.status).phrase.encode()
        for event in (
            h11.Response(status_code=error.status, headers=headers, reason=reason),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")

    def _context_in_work(self) -> RequestContext | None:
        """Of the request whose body is wrong: the application notes what becomes of it."""
        context: RequestContext | None = self.scope["state"].get("context") if self._has_request else None
        return context

    def _noted(self, error: ServiceError) -> str:
        """Log and count what the application does not see; its id."""
        request_id, status, code = uuid.uuid4().hex, error.status, error.code
        logs.event("request", request_id=request_id, endpoint="other", status=status, code=code, stage="receive")
        if self.metrics is not None:
            self.metrics.count_refusal(status, code)
        return request_id

"""The listening side: uvicorn, with our signals, our error body and a deadline for headers.

uvicorn closes its listener on SIGTERM at once and dies by the signal; here the lifecycle decides when listening ends,
and the exit status is 0 after a drain. Requests that uvicorn refuses before the application sees them (a malformed
request line, a negative Content-Length) get the same error body as any other.
"""

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Generator

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from service import logs
from service.lifecycle import Lifecycle

KEEP_ALIVE_SECONDS = 75
"""An idle connection waits so long for its next request: longer than load balancers do."""
_POLL_SECONDS = 0.05


class HttpProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 connection with a header deadline and JSON for its own refusals."""

    header_seconds = 60.0
    """Time for a connection to bring its first request's head; later ones have `KEEP_ALIVE_SECONDS`."""
    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: its headers are due."""
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(self.header_seconds, self._headers_are_late)

    def handle_events(self) -> None:
        """Something arrived; a request ends the wait for headers."""
        super().handle_events()
        if self._header_timer is not None and self.cycle is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        super().connection_lost(exc)

    def _headers_are_late(self) -> None:
        self._header_timer = None
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; when an answer is already on its way, just close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(
                {
                    "error": {"message": msg, "type": "invalid_request_error", "param": None, "code": "invalid_http"},
                    "request_id": None,
                }
            ).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None and not self.cycle.response_complete:
            # The application must not answer on top of it.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


class Server(uvicorn.Server):
    """Listens until the lifecycle says otherwise."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, *, host: str, port: int, header_seconds: float) -> None:
        class Protocol(HttpProtocol):
            pass

        Protocol.header_seconds = header_seconds
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=Protocol,
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._lifecycle = lifecycle

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """SIGTERM drains, SIGINT drains without notice; a second one of either ends everything."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        logs.event("signal", signal=number.name)
        self._lifecycle.begin_drain(with_notice=number is signal.SIGTERM)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        logs.event("listening", host=host, port=port)

    async def on_tick(self, counter: int) -> bool:
        """Whether listening ends."""
        return await super().on_tick(counter) or self._lifecycle.exit_code is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        """Close the door, wait for the answers in flight as long as the lifecycle does, stop the application."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections and not self._lifecycle.finished:  # noqa: ASYNC110  a set has no event
            await asyncio.sleep(_POLL_SECONDS)
        await self.lifespan.shutdown()

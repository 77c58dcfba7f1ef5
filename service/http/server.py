"""The listening side: uvicorn, with our signals and our connections (`service.http.connection`).

uvicorn closes its listener on SIGTERM at once and dies by the signal; here the lifecycle decides when listening ends,
and the exit status is 0 after a drain.
"""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Generator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from service import logs, signals
from service.http import door
from service.http.connection import KEEP_ALIVE_SECONDS, HttpProtocol
from service.http.metrics import Metrics
from service.lifecycle import Lifecycle

_POLL_SECONDS = 0.05
_BACKLOG = 2048
"""Connections that the kernel keeps until they are accepted."""
_ADDRESS = "WHISPER_HOST and WHISPER_PORT must be an address of this machine on which nobody listens yet"


class Server(uvicorn.Server):
    """Listens until the lifecycle says otherwise."""

    def __init__(
        self, app: ASGIApp, lifecycle: Lifecycle, metrics: Metrics, *, host: str, port: int, header_seconds: float
    ) -> None:
        class Protocol(HttpProtocol):
            pass

        Protocol.metrics = metrics
        Protocol.header_seconds = header_seconds
        Protocol.max_connections = min(Protocol.max_connections, _descriptors() // 2)  # a request wants others
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
                # asyncio accepts so many connections a turn. Where no descriptor is left it tries, and logs, as often,
                # and again a second after each of those tries: with more than one that grows without end.
                backlog=1,
            )
        )
        self._lifecycle, self._protocol = lifecycle, Protocol

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """SIGTERM drains, SIGINT and SIGHUP drain without notice; a second one ends everything, more change nothing.

        SIGHUP is never a second one.
        """
        loop = asyncio.get_running_loop()
        numbers = signals.ending()
        for number in numbers:  # not `loop.add_signal_handler`: what removes it restores the default, which kills
            signal.signal(number, lambda come, _: loop.call_soon_threadsafe(self._on_signal, signal.Signals(come)))
        try:
            yield
        finally:
            signals.ignore(numbers)

    def _on_signal(self, number: signal.Signals) -> None:
        logs.event("signal", signal=number.name)
        if number is signal.SIGHUP and self._lifecycle.ending:
            return
        self._lifecycle.begin_drain(with_notice=number is signal.SIGTERM)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where, or where that cannot be: `SystemExit` with 3 then."""
        asyncio.get_running_loop().set_exception_handler(_tell)
        try:
            await super().startup(sockets)
        except (SystemExit, UnicodeError) as error:  # uvicorn has told of any but a host that cannot be a name
            if not self.lifespan.should_exit:
                logs.event(
                    "not_listening", level=logging.ERROR, host=self.config.host, port=self.config.port, detail=_ADDRESS
                )
            if isinstance(error, UnicodeError):
                await self.lifespan.shutdown()
                raise SystemExit(STARTUP_FAILURE) from None
            raise
        for listening in self.servers[0].sockets:
            with socket.fromfd(listening.fileno(), listening.family, listening.type) as same:
                same.listen(_BACKLOG)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        logs.event("listening", host=host, port=port)

    async def on_tick(self, counter: int) -> bool:
        """Whether listening ends."""
        return await super().on_tick(counter) or self._lifecycle.exit_code is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        """Close the door, wait for the answers in flight as long as the lifecycle does, stop the application."""
        await door.close_listeners(
            self.servers, lambda: self._protocol(self.config, self.server_state, self.lifespan.state)
        )
        await door.first_words(self.server_state.connections, lambda: self._lifecycle.finished)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections and not self._lifecycle.finished:  # noqa: ASYNC110  a set has no event
            await asyncio.sleep(_POLL_SECONDS)
        for connection in list(self.server_state.connections):  # whose clients do not read: their answers end here
            connection.transport.abort()
        await self.lifespan.shutdown()


def _descriptors() -> int:
    """How many this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what there is no task to raise in; of a connection that could not be accepted say why."""
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno is not None and "socket" in context:
        logs.event("connection_not_accepted", level=logging.ERROR, reason=os.strerror(error.errno))
    else:
        loop.default_exception_handler(context)

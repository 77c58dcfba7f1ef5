"""The door at the end: nobody who came before it closed is left without an answer.

Used by `service.http.server`. What the kernel has connected, and the event loop not yet accepted, would be reset with
the listener; who has just come and not spoken yet would be cut off. Both get a connection, and a moment to ask.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence

_TURN_SECONDS = 0.02
_FIRST_WORD_SECONDS = 1.0
"""For the first request of who has just come."""


async def close_listeners(servers: Sequence[asyncio.Server], connection: Callable[[], asyncio.Protocol]) -> None:
    """Let nobody in any more; who waits to be accepted gets a `connection`."""
    loop = asyncio.get_running_loop()
    listeners = [listener for server in servers for listener in server.sockets]
    for listener in listeners:
        loop.remove_reader(listener.fileno())
    await asyncio.sleep(_TURN_SECONDS)  # whom the loop has accepted is connected now
    waiting = [client for listener in listeners for client in _accepted(listener)]
    for server in servers:
        server.close()
    accepted = (loop.connect_accepted_socket(connection, client) for client in waiting)
    await asyncio.gather(*accepted, return_exceptions=True)


async def first_words(
    connections: Collection[object], hurry: Callable[[], bool], *, seconds: float = _FIRST_WORD_SECONDS
) -> None:
    """Return when all of uvicorn's `connections` have asked for something or have had the time to, or on `hurry`."""
    end = time.monotonic() + seconds
    while any(getattr(each, "cycle", None) is None for each in connections):
        if hurry() or time.monotonic() >= end:
            return
        await asyncio.sleep(_TURN_SECONDS)


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    with socket.fromfd(listener.fileno(), listener.family, listener.type) as same, contextlib.suppress(OSError):
        same.setblocking(False)
        while True:
            yield same.accept()[0]

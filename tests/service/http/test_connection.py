"""Connections whose client reads slowly, or not at all."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.http.connection import HttpProtocol
from tests.audio_pools import until

BODY = bytes(16_000_000)


class Impatient(HttpProtocol):
    unread_seconds = 0.4


class Few(HttpProtocol):
    max_connections = 3


class Fair(HttpProtocol):
    """Asks what the client has taken once it had a turn: this process, which is the client too, may stand still."""

    unread_seconds = 0.05
    terms = 0

    def _check_reading(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self.terms += 1
            super()._check_reading(before)
        else:
            self._expect_reading(before)


async def answer(_scope: Any, _receive: Any, send: Any) -> None:
    length = str(len(BODY)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": BODY})


@contextlib.asynccontextmanager
async def asked(
    request: bytes, protocol: type[HttpProtocol] = Impatient, app: Any = answer
) -> AsyncIterator[tuple[socket.socket, ServerState]]:
    """A connection on which so much was asked for, and who is connected."""
    config, state = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False), ServerState()
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.setblocking(False)
        await loop.sock_connect(client, server.sockets[0].getsockname())
        await loop.sock_sendall(client, request)
        yield client, state
    server.close()


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_r09_who_reads_nothing_is_let_go(connection: str) -> None:
    async def scenario() -> None:
        request = f"GET / HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n".encode()
        async with asked(request) as (_, state):
            await until(lambda: bool(state.connections))
            await until(lambda: not state.connections)

    asyncio.run(scenario())


def test_who_reads_slowly_gets_it_all() -> None:
    async def scenario() -> None:
        loop, read = asyncio.get_running_loop(), 0
        async with asked(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", Fair) as (client, state):
            await until(lambda: bool(state.connections))
            (server,) = state.connections
            while data := await loop.sock_recv(client, 65_536 if server.terms < 3 else 1_000_000):
                read += len(data)
                if server.terms < 3:  # some, but far from all of it, in each of several terms
                    await asyncio.sleep(0.02)
        assert server.terms >= 3
        assert read > len(BODY)

    asyncio.run(scenario())


def test_an_upgrade_is_passed_over_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        request = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        async with asked(request) as (client, _):
            assert (await asyncio.get_running_loop().sock_recv(client, 12)) == b"HTTP/1.1 200"

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    assert not caplog.records


HELLO = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


async def connect(client: socket.socket, beside: socket.socket, state: ServerState, request: bytes) -> None:
    """Connect where somebody else is, ask for something, and wait until the server knows."""
    loop = asyncio.get_running_loop()
    client.setblocking(False)
    await loop.sock_connect(client, beside.getpeername())
    await until(lambda: any(each.client == client.getsockname() for each in state.connections))
    await loop.sock_sendall(client, request)


@pytest.mark.parametrize("request_", [b"", b"GET / HT", HELLO], ids=["silent", "half a head", "unread answer"])
def test_r09_of_too_many_connections_the_one_that_has_idled_longest_is_closed(request_: bytes) -> None:
    async def scenario() -> None:
        async with asked(request_, Few) as (oldest, state):
            with contextlib.ExitStack() as stack:
                await until(lambda: bool(state.connections))
                for number in range(2, 5):
                    await until(lambda: request_ != HELLO or all(each.flow.write_paused for each in state.connections))
                    client = stack.enter_context(socket.socket())
                    await connect(client, oldest, state, request_ if number < 4 else HELLO)
                assert oldest.getsockname() not in [each.client for each in state.connections]
                assert len(state.connections) == 3
                assert await asyncio.get_running_loop().sock_recv(client, 12) == b"HTTP/1.1 200"

    asyncio.run(scenario())


def test_r09_however_many_come_no_request_in_work_is_dropped() -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def waits(scope: Any, receive: Any, send: Any) -> None:
            await release.wait()
            await answer(scope, receive, send)

        async with asked(HELLO, Few, waits) as (working, state):
            await until(lambda: any(each.cycle for each in state.connections))
            with contextlib.ExitStack() as stack:
                for _ in range(5):
                    await connect(stack.enter_context(socket.socket()), working, state, b"")
                assert len(state.connections) == 3
                release.set()
                assert await asyncio.get_running_loop().sock_recv(working, 12) == b"HTTP/1.1 200"

    asyncio.run(scenario())

"""Connections whose client reads slowly, or not at all, and those for which there is no descriptor."""

import asyncio
import contextlib
import logging
import resource
import socket
import time
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
import uvicorn
from starlette.applications import Starlette
from uvicorn.server import ServerState

from service import logs
from service.http.server import HttpProtocol, Server
from tests.audio_pools import until
from tests.serving import service, wait_until

BODY = bytes(16_000_000)


class Impatient(HttpProtocol):
    unread_seconds = 0.4


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
    request: bytes, protocol: type[HttpProtocol] = Impatient
) -> AsyncIterator[tuple[socket.socket, ServerState]]:
    """A connection on which so much was asked for, and who is connected."""
    config, state = uvicorn.Config(answer, ws="none", lifespan="off", log_config=None, access_log=False), ServerState()
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
def test_who_reads_nothing_is_let_go(connection: str) -> None:
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


@pytest.mark.parametrize("host", ["a" * 70, "..", "192.0.2.1"])
def test_where_it_cannot_listen_the_log_names_the_settings(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(logs, "event", lambda name, **fields: noted.append((name, fields)))
    server = Server(Starlette(), Mock(), host=host, port=0, header_seconds=1)
    with pytest.raises(SystemExit) as exit_:
        asyncio.run(server.serve())
    assert exit_.value.code == 3
    ((name, fields),) = noted
    assert (name, fields["host"], fields["port"]) == ("not_listening", host, 0)
    assert "WHISPER_HOST" in fields["detail"]
    assert fields.keys() - {"level"} <= logs.KEYS


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux sets the limits of another process")
def test_connections_beyond_the_descriptors_wait_and_do_not_fill_the_log() -> None:
    with service() as server, contextlib.ExitStack() as stack:
        process = psutil.Process(server.process.pid)
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (process.num_fds() + 4, hard))
        waiting = [stack.enter_context(server.connect()) for _ in range(32)]

        def refused() -> list[dict[str, Any]]:
            return [line for line in server.log() if line["event"] not in ("listening", "ready", "request")]

        wait_until(lambda: len(refused()) > 0)
        time.sleep(3.0)
        assert {(line["event"], line.get("reason")) for line in refused()} == {
            ("connection_not_accepted", "Too many open files")
        }
        assert len(refused()) < 10
        for connection in waiting:
            connection.close()
        assert server.get("/livez").status_code == 200

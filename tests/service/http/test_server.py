"""Where it cannot listen, and connections for which there is no descriptor."""

import asyncio
import contextlib
import resource
import time
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
from starlette.applications import Starlette

from service import logs
from service.http.server import Server
from tests.serving import service, wait_until


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

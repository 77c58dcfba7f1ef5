"""Where it cannot listen, what it refuses by itself, and connections for which there is no descriptor."""

import asyncio
import contextlib
import json
import resource
import signal
import time
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
from starlette.applications import Starlette

from service import logs, signals
from service.http.server import Server
from tests.fakes import script
from tests.serving import check_error_body, read_answer, request_head, service, wait_until


@pytest.mark.parametrize("host", ["a" * 70, "..", "192.0.2.1"])
def test_where_it_cannot_listen_the_log_names_the_settings(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(logs, "event", lambda name, **fields: noted.append((name, fields)))
    server = Server(Starlette(), Mock(), Mock(), host=host, port=0, header_seconds=1)
    with pytest.raises(SystemExit) as exit_:
        asyncio.run(server.serve())
    assert exit_.value.code == 3
    ((name, fields),) = noted
    assert (name, fields["host"], fields["port"]) == ("not_listening", host, 0)
    assert "WHISPER_HOST" in fields["detail"]
    assert fields.keys() - {"level"} <= logs.KEYS


def test_the_default_action_of_a_signal_is_never_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a moment: a signal in it would be the status of the process."""
    became: list[Any] = []
    before = {number: signal.getsignal(number) for number in signals.ending()}
    set_action = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, action: (became.append(action), set_action(number, action))[1])

    async def serve() -> None:
        became.clear()  # asyncio takes SIGINT for itself first, unless whoever began the tests has it ignored
        with Server(Starlette(), Mock(), Mock(), host="", port=0, header_seconds=1).capture_signals():
            pass

    try:
        asyncio.run(serve())
        assert {signal.getsignal(number) for number in before} == {signal.SIG_IGN}
    finally:
        for number, action in before.items():
            set_action(number, action)
    assert len(became) == 2 * len(before)
    assert signal.SIG_DFL not in became


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"hello\r\n\r\n", 400, "invalid_http"),
        (request_head(None) + b"no size\r\n", 400, "invalid_http"),
        (b"GET / HT", 408, "upload_timeout"),
    ],
)
def test_what_the_application_never_sees_has_an_id_a_line_and_a_place_in_the_metrics(
    sent: bytes, status: int, code: str
) -> None:
    with service(WHISPER_UPLOAD_SECONDS="1") as server, server.connect() as connection:
        connection.sendall(sent)
        answered, headers, body = read_answer(connection)
        assert (answered, check_error_body(json.loads(body))["code"]) == (status, code)
        request_id = json.loads(body)["request_id"]
        assert headers["x-request-id"] == request_id
        wait_until(lambda: request_id in server.log_text())
        (line,) = [line for line in server.log() if line.get("request_id") == request_id]
        assert (line["event"], line["endpoint"], line["status"], line["code"]) == ("request", "other", status, code)
        page = server.get("/metrics").text
        assert f'whisper_requests_total{{endpoint="other",status="{status}"}} 1.0' in page
        assert f'whisper_rejections_total{{reason="{code}"}} 1.0' in page
        assert 'status="499"' not in page


def test_a_body_that_is_no_http_is_refused_under_the_id_of_its_request() -> None:
    with service() as server, server.connect() as connection:
        connection.sendall(request_head(None, "/v1/transcribe", "X-Request-Id: mine"))
        wait_until(lambda: server.gauge("whisper_queue_requests") == 1.0)
        connection.sendall(b"no size\r\n")
        status, headers, body = read_answer(connection)
        assert (status, headers["x-request-id"], json.loads(body)["request_id"]) == (400, "mine", "mine")
        server.assert_idle()
        wait_until(lambda: '"mine"' in server.log_text())
        (line,) = [line for line in server.log() if line.get("request_id") == "mine"]
        assert (line["endpoint"], line["status"], line["code"]) == ("/v1/transcribe", 400, "invalid_http")
        assert 'whisper_requests_total{endpoint="/v1/transcribe",status="400"} 1.0' in server.get("/metrics").text
        assert server.gauge('whisper_rejections_total{reason="invalid_http"}') == 1.0
        assert server.post(script()).status_code == 200


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

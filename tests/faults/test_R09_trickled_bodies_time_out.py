"""R09: fifty bodies that trickle get 408 and a closed connection at `upload_seconds`; others are not affected.

Those that come slower than the least pace get it sooner, so that they keep nobody out.
"""

import contextlib
import json
import resource
import time

import pytest

from tests.fakes import script
from tests.serving import (
    ServiceProcess,
    check_error_body,
    error_of,
    form,
    read_answer,
    request_head,
    service,
    wait_until,
)

pytestmark = pytest.mark.fault
SECONDS, CLIENTS = 2.0, 50


def test_r09_slow_bodies_are_refused_and_fast_ones_served():
    body = form(script(seconds=3))
    with service(WHISPER_UPLOAD_SECONDS=str(SECONDS), WHISPER_MAX_QUEUE_REQUESTS="64") as server:
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(server.connect()) for _ in range(CLIENTS)]
            started = time.monotonic()
            for connection in slow:
                connection.sendall(request_head(len(body)))
            sent = 0
            while time.monotonic() - started < SECONDS - 0.5:
                for connection in slow:
                    connection.sendall(body[sent : sent + 1])
                sent += 1
                assert server.post(script(seconds=3)).status_code == 200
                time.sleep(0.2)
            assert sent >= 3
            for connection in slow:
                status, headers, answer = read_answer(connection)
                assert status == 408
                assert headers["connection"] == "close"
                assert b'"upload_timeout"' in answer
                assert connection.recv(1) == b""
            assert SECONDS - 0.1 <= time.monotonic() - started < SECONDS + 3.0
        server.assert_idle()
        answer = server.post(b"", data={"x": "y"})
        assert check_error_body(answer.json())


def test_r09_slow_senders_lose_their_places_to_others():
    body = form(b" " * 400_000)
    pace = {"WHISPER_UPLOAD_BYTES_PER_SECOND": "5000", "WHISPER_UPLOAD_GRACE_SECONDS": "2"}
    with service(WHISPER_MAX_QUEUE_REQUESTS="3", WHISPER_UPLOAD_SECONDS="60", **pace) as server:
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(server.connect()) for _ in range(2)]
            for connection in slow:
                connection.sendall(request_head(len(body)) + body[:100_000])
            honest = stack.enter_context(server.connect())
            honest.sendall(request_head(len(body)))
            wait_until(lambda: server.gauge("whisper_queue_requests") == 3)
            assert error_of(server.post(), 503)["code"] == "overloaded"
            started = time.monotonic()
            for start in range(0, len(body), 40_000):  # it takes longer than the grace, and keeps up
                honest.sendall(body[start : start + 40_000])
                for connection in slow:
                    with contextlib.suppress(ConnectionError):
                        connection.sendall(b" ")
                time.sleep(0.3)
            assert read_answer(honest)[0] == 200
            for connection in slow:
                status, headers, answer = read_answer(connection)
                assert (status, headers["connection"]) == (408, "close")
                assert check_error_body(json.loads(answer))["code"] == "upload_too_slow"
            assert time.monotonic() - started < 30
        server.assert_idle()
        assert server.post().status_code == 200
        assert 'whisper_rejections_total{reason="upload_too_slow"} 2.0' in server.get("/metrics").text
        assert [line["code"] for line in server.log() if line.get("status") == 408] == ["upload_too_slow"] * 2


HALF_A_HEAD = b"POST /v1/transcribe HTTP/1.1\r\nHost: te"


def test_r09_a_head_that_does_not_come_closes_the_connection():
    with service(WHISPER_UPLOAD_SECONDS="1") as server, server.connect() as silent, server.connect() as slow:
        slow.sendall(HALF_A_HEAD)
        assert silent.recv(1) == b""
        check_late(slow)
        with server.connect() as patient:  # a request in time is not affected, nor is the next one on its connection
            for _ in range(2):
                patient.sendall(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
                assert read_answer(patient)[0] == 200
                time.sleep(1.2)
            for letter in HALF_A_HEAD[:5]:  # but a later head is due as well, however it trickles
                patient.sendall(bytes([letter]))
                time.sleep(0.1)
            check_late(patient)


def test_r09_a_request_that_takes_longer_than_a_head_may_is_no_late_head():
    with service(WHISPER_UPLOAD_SECONDS="1") as server, server.connect() as connection:
        for _ in range(2):
            body = form(script(seconds=3, decode_delay=2.0))
            connection.sendall(request_head(len(body)) + body + b"GET")  # the next head begins before the answer
            assert read_answer(connection)[0] == 200
            connection.sendall(b" /livez HTTP/1.1\r\nHost: test\r\n\r\n")
            assert read_answer(connection)[0] == 200


@pytest.mark.parametrize("sent", [b"", HALF_A_HEAD], ids=["silent", "half a head"])
def test_r09_idle_connections_keep_nobody_out(sent):
    """More of them than the service may have descriptors."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    try:
        server = ServiceProcess()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        server.wait_ready()
        for _ in range(300):
            stack.enter_context(server.connect()).sendall(sent)
        assert server.get("/livez").status_code == 200
        assert server.post(script(seconds=3)).status_code == 200
        assert "connection_not_accepted" not in {line["event"] for line in server.log()}


def check_late(connection):
    status, headers, answer = read_answer(connection)
    assert (status, headers["connection"]) == (408, "close")
    assert check_error_body(json.loads(answer))["code"] == "upload_timeout"
    assert connection.recv(1) == b""

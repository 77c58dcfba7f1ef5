"""R09: fifty bodies that trickle get 408 and a closed connection at `upload_seconds`; others are not affected."""

import contextlib
import time

import pytest

from tests.fakes import script
from tests.serving import check_error_body, form, read_answer, request_head, service

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


def test_r09_a_head_that_does_not_come_closes_the_connection():
    with service(WHISPER_UPLOAD_SECONDS="1") as server, server.connect() as silent, server.connect() as slow:
        slow.sendall(b"POST /v1/transcribe HTTP/1.1\r\nHost: te")
        assert silent.recv(1) == slow.recv(1) == b""
        with server.connect() as patient:  # a request in time is not affected, nor is the next one on its connection
            for _ in range(2):
                patient.sendall(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
                assert read_answer(patient)[0] == 200
                time.sleep(1.2)

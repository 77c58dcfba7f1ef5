"""R37: SIGTERM with stuck requests: gone within `drain_seconds` + 2 s, their clients get 503; twice is at once."""

import concurrent.futures
import contextlib
import json
import signal
import time

import psutil
import pytest

from tests.fakes import script
from tests.serving import check_error_body, form, read_answer, real_service, request_head, service, wait_until
from tests.sounds import float_wav, speechlike

pytestmark = pytest.mark.fault
STUCK = form(script(window_delay=120))


def test_r37_what_is_stuck_gets_503_and_the_process_ends():
    drain = {"WHISPER_DRAIN_NOTICE_SECONDS": "0.2", "WHISPER_DRAIN_SECONDS": "1.5"}
    with service(**drain) as server, contextlib.ExitStack() as stack:
        working, decoding, uploading = (stack.enter_context(server.connect()) for _ in range(3))
        working.sendall(request_head(len(STUCK)) + STUCK)
        slow = form(script(decode_delay=120))
        decoding.sendall(request_head(len(slow)) + slow)
        uploading.sendall(request_head(len(STUCK)) + STUCK[:40])
        wait_until(lambda: server.gauge("whisper_queue_requests") == 3.0)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        for connection in (working, decoding, uploading):
            status, headers, body = read_answer(connection)
            assert status == 503
            assert headers["connection"] == "close"
            assert b'"draining"' in body
        assert server.process.wait(10) == 0
        assert time.monotonic() - started < 1.5 + 2.0


def test_r37_real_processes_that_no_longer_answer_are_killed(checkpoint):
    drain = {"WHISPER_DRAIN_NOTICE_SECONDS": "0.2", "WHISPER_DRAIN_SECONDS": "2"}
    body = form(float_wav(speechlike(30.0)), temperature="0")
    with real_service(checkpoint, **drain) as server, contextlib.ExitStack() as stack:
        children = server.children()
        inferring, decoding = (stack.enter_context(server.connect()) for _ in range(2))
        server.worker().suspend()
        inferring.sendall(request_head(len(body)) + body)
        wait_until(lambda: server.gauge("whisper_queue_audio_seconds") == 30.0)
        for child in children:
            child.suspend()
        decoding.sendall(request_head(len(body)) + body)
        wait_until(lambda: server.gauge("whisper_audio_children_busy") == 1.0)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        for connection in (inferring, decoding):
            status, _, answer = read_answer(connection)
            assert (status, b'"draining"' in answer) == (503, True)
        assert server.process.wait(10) == 0
        assert time.monotonic() - started < 2.0 + 2.0
        _, alive = psutil.wait_procs(children, 1.0)
        assert not alive


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_r37_a_second_signal_is_at_once(second):
    drain = {"WHISPER_DRAIN_NOTICE_SECONDS": "30", "WHISPER_DRAIN_SECONDS": "60"}
    with service(**drain) as server, concurrent.futures.ThreadPoolExecutor() as threads:
        stuck = threads.submit(server.post, script(window_delay=120))
        wait_until(lambda: server.gauge("whisper_queue_audio_seconds") > 0)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.get("/readyz").status_code == 503)
        started = time.monotonic()
        server.process.send_signal(second)
        assert server.process.wait(5) == 0
        assert time.monotonic() - started < 3
        assert check_error_body(stuck.result().json())["code"] == "draining"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_r37_whatever_more_signals_come_the_status_is_that_of_a_drain(number):
    with service() as server:
        while server.process.poll() is None:
            server.process.send_signal(number)
            time.sleep(0.001)
        assert server.process.returncode == 0
        assert "Traceback" not in server.log_text()


@pytest.mark.parametrize("signals", [1, 2])
def test_r37_a_stream_that_is_cut_off_says_so(signals):
    body = form(script(windows=600, window_delay=0.2), stream="true")
    with service(WHISPER_DRAIN_SECONDS="2" if signals == 1 else "60") as server, server.connect() as connection:
        connection.sendall(request_head(len(body)) + body)
        wait_until(lambda: server.gauge('whisper_decode_steps_total{device="cpu"}') > 1.0)
        for number in range(signals):
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda number=number: [line["event"] for line in server.log()].count("signal") > number)
        told = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert server.process.wait(10) == 0
    assert told.count(b'"transcript.segment"') > 1
    *_, last = (line for line in told.splitlines() if line.startswith(b"data: "))
    assert check_error_body(json.loads(last.removeprefix(b"data: ")))["code"] == "draining"
    assert told.endswith(b"\r\n0\r\n\r\n")


def test_r37_a_client_that_does_not_read_its_stream_is_no_error_of_ours():
    body = form(script(windows=600, text="x" * 60_000), stream="true")
    with service(WHISPER_DRAIN_SECONDS="1.5") as server, server.connect() as connection:
        connection.sendall(request_head(len(body)) + body)
        wait_until(lambda: server.gauge('whisper_decode_steps_total{device="cpu"}') > 1.0)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        *_, request, stopped = server.log()
    assert (request["event"], request["status"], request["code"]) == ("request", 503, "draining")
    assert stopped["event"] == "stopped"

"""R07: /livez, /readyz and /metrics answer within 250 ms while every slot and every audio child is busy.

Where nobody reads the log they answer as well.
"""

import concurrent.futures
import contextlib
import fcntl
import json
import os
import signal
import statistics
import subprocess
import sys
import time

import httpx
import pytest

from tests.fakes import script
from tests.serving import ROOT, ServiceProcess, form, real_service, request_head, service, wait_until
from tests.sounds import float_wav, speechlike

pytestmark = pytest.mark.fault


def test_r07_health_is_quick_in_a_full_house():
    uploading = form(b"x" * 3_000_000)
    with service(WHISPER_MAX_QUEUE_REQUESTS="24") as server, concurrent.futures.ThreadPoolExecutor(24) as threads:
        busy = [threads.submit(server.post, script(decode_delay=2)) for _ in range(8)]
        busy += [threads.submit(server.post, script(windows=20, window_delay=0.1)) for _ in range(8)]
        connections = [server.connect() for _ in range(8)]
        for connection in connections:
            connection.sendall(request_head(len(uploading)) + uploading[:2_000_000])
        wait_until(lambda: server.gauge("whisper_queue_requests") == 24.0)
        waits = probe(server)
        for connection in connections:
            connection.close()
        assert {future.result().status_code for future in busy} == {200}
        server.assert_idle()
    assert statistics.median(waits) < 0.25
    assert max(waits) < 1.0


def test_r07_health_is_quick_beside_a_model_that_takes_every_core(checkpoint):
    body = form(float_wav(speechlike(120.0)), temperature="0")
    with (
        real_service(checkpoint, WHISPER_THREADS_PER_WORKER="0") as server,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(6):
            connection = stack.enter_context(server.connect())
            connection.sendall(request_head(len(body)) + body)
        wait_until(lambda: steps(server) > 10, 30)
        before = steps(server)
        waits = probe(server)
        wait_until(lambda: steps(server) > before)
    assert statistics.median(waits) < 0.25
    assert max(waits) < 1.0


def test_r07_health_answers_where_the_log_is_not_read_any_more():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "tests.serve_fake"]
    environment = os.environ | {"WHISPER_PORT": "0", "WHISPER_DRAIN_NOTICE_SECONDS": "0"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=writer) as server, os.fdopen(reader) as log:
        try:
            os.close(writer)
            port = next(line["port"] for line in map(json.loads, log) if line["event"] == "listening")
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
                for _ in range(200):  # a line each, and 4 KiB of room
                    assert client.get("/livez").status_code == 200
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0
        finally:
            server.kill()


def steps(server: ServiceProcess) -> float:
    page = server.get("/metrics").text
    return sum(float(line.split()[1]) for line in page.splitlines() if line.startswith("whisper_decode_steps_total{"))


def probe(server: ServiceProcess) -> list[float]:
    """How long each of them took, several times."""
    waits = []
    with httpx.Client(base_url=server.url, timeout=10, trust_env=False) as client:
        for path in ("/livez", "/readyz", "/metrics") * 5:
            started = time.monotonic()
            assert client.get(path).status_code == 200
            waits.append(time.monotonic() - started)
    return waits

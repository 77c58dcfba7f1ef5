"""R07: /livez, /readyz and /metrics answer within 250 ms while every slot and every audio child is busy."""

import concurrent.futures
import statistics
import time

import httpx
import pytest

from tests.fakes import script
from tests.serving import form, request_head, service, wait_until

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
        waits = []
        with httpx.Client(base_url=server.url, timeout=10, trust_env=False) as probe:
            for path in ("/livez", "/readyz", "/metrics") * 5:
                started = time.monotonic()
                assert probe.get(path).status_code == 200
                waits.append(time.monotonic() - started)
        for connection in connections:
            connection.close()
        assert {future.result().status_code for future in busy} == {200}
        server.assert_idle()
    assert statistics.median(waits) < 0.25
    assert max(waits) < 1.0

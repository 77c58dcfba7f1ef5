"""R22: a client that goes while uploading, decoding, or in window 1 of 5: the work for it stops within a step."""

import pytest

from tests.fakes import script
from tests.serving import ServiceProcess, form, request_head, service, wait_until

pytestmark = pytest.mark.fault
STEP = 0.2


def cancellations(server: ServiceProcess, stage: str) -> float:
    name = f'whisper_cancellations_total{{reason="disconnect",stage="{stage}"}}'
    try:
        return server.gauge(name)
    except KeyError:
        return 0.0


def steps(server: ServiceProcess) -> float:
    return server.gauge('whisper_decode_steps_total{device="cpu"}')


@pytest.fixture(scope="module")
def server():
    with service() as process:
        yield process
        process.assert_idle()


def test_r22_while_uploading(server):
    body = form(b"x" * 100_000)
    with server.connect() as connection:
        connection.sendall(request_head(len(body)) + body[:50_000])
        wait_until(lambda: server.gauge("whisper_queue_upload_bytes") > 0)
    wait_until(lambda: cancellations(server, "receive") == 1.0, 1.0)
    server.assert_idle(1.0)


def test_r22_while_decoding(server):
    body = form(script(decode_delay=30))
    with server.connect() as connection:
        connection.sendall(request_head(len(body)) + body)
        wait_until(lambda: server.gauge("whisper_audio_children_busy") == 1.0)
    wait_until(lambda: cancellations(server, "decode_audio") == 1.0, 1.0)
    server.assert_idle(1.0)


@pytest.mark.parametrize("path", ["/v1/transcribe", "/v1/detect-language"])
def test_r22_in_the_first_window(server, path):
    body, before = form(script(windows=5, window_delay=STEP)), cancellations(server, "inference")
    started = steps(server)
    with server.connect() as connection:
        connection.sendall(request_head(len(body), path) + body)
        wait_until(lambda: server.gauge("whisper_queue_audio_seconds") > 0)
    wait_until(lambda: cancellations(server, "inference") == before + 1, STEP + 1.0)
    server.assert_idle(1.0)
    assert steps(server) - started <= 1
    wait_until(lambda: server.get("/readyz").status_code == 200)
    assert steps(server) - started <= 1


def test_r22_the_slot_is_free_for_the_next(server):
    assert server.post(script(windows=2)).status_code == 200


def test_r22_a_client_that_stays_is_not_cancelled(server):
    before = cancellations(server, "inference")
    assert server.post(script(windows=5, window_delay=0.05)).status_code == 200
    assert cancellations(server, "inference") == before

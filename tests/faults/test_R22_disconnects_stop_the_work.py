"""R22: a client that goes while uploading, decoding, or in window 1 of 5: the work for it stops within a step."""

import time

import pytest

from tests.fakes import script
from tests.serving import ServiceProcess, form, real_service, request_head, service, wait_until
from tests.sounds import float_wav, speechlike

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


def waiting(server: ServiceProcess) -> float:
    return server.gauge('whisper_worker_waiting_windows{device="cpu"}')


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


def test_r22_while_queued(server):
    body, started = form(script(queue_delay=30)), steps(server)
    with server.connect() as connection:
        connection.sendall(request_head(len(body)) + body)
        wait_until(lambda: server.gauge("whisper_queue_audio_seconds") > 0)
    wait_until(lambda: cancellations(server, "queue") == 1.0, 1.0)
    server.assert_idle(1.0)
    assert steps(server) == started
    wait_until(lambda: any(line.get("stage") == "queue" for line in server.log()))
    (line,) = [line for line in server.log() if line.get("stage") == "queue"]
    assert (line["status"], 0.0 < line["queue_seconds"] < 30.0) == (499, True)


@pytest.mark.parametrize("ahead", [b"", b"\r\n", b"GET /livez HTT"])
@pytest.mark.parametrize("path", ["/v1/transcribe", "/v1/detect-language"])
def test_r22_in_the_first_window(server, path, ahead):
    body, before = form(script(windows=5, window_delay=STEP)), cancellations(server, "inference")
    started = steps(server)
    with server.connect() as connection:
        connection.sendall(request_head(len(body), path) + body)
        wait_until(lambda: server.gauge("whisper_queue_audio_seconds") > 0)
        connection.sendall(ahead)  # of a next request, or what old clients put behind a body
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


def test_r22_a_real_worker_stops_and_forgets_the_later_windows(checkpoint):
    body = form(float_wav(speechlike(150.0)), temperature="0")
    with real_service(checkpoint, WHISPER_MAX_BATCH_ROWS="2") as server:
        wait_until(lambda: "whisper_decode_steps_total{" in server.get("/metrics").text)
        connections = [server.connect() for _ in range(4)]
        for connection in connections:
            connection.sendall(request_head(len(body)) + body)
        wait_until(lambda: steps(server) > 10 and waiting(server) == 2.0, 30)
        for connection in connections:
            connection.close()
        wait_until(lambda: cancellations(server, "queue") + cancellations(server, "inference") == 4.0)
        assert cancellations(server, "inference") >= 2.0
        server.assert_idle()
        time.sleep(1.0)  # the worker says twice a second how far it is
        stopped_at = steps(server)
        assert waiting(server) == 0.0
        time.sleep(1.2)
        assert steps(server) == stopped_at
        assert server.post(float_wav(speechlike(2.0)), data={"temperature": "0"}).status_code == 200


def test_r22_in_the_middle_of_a_stream(server):
    body, before = form(script(windows=50, window_delay=STEP), stream="true"), cancellations(server, "inference")
    with server.connect() as connection:
        connection.sendall(request_head(len(body)) + body)
        assert b"text/event-stream" in connection.recv(65_536)
        started = steps(server)
    wait_until(lambda: cancellations(server, "inference") == before + 1, STEP + 1.0)
    server.assert_idle(1.0)
    assert steps(server) - started <= 2

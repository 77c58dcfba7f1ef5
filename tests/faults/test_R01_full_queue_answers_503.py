"""R01: a full queue answers 503 with Retry-After before the body is stored, and a naive client sees it (P11)."""

import concurrent.futures
import time
import urllib.error
import urllib.request

import pytest

from tests.fakes import script
from tests.serving import BOUNDARY, check_error_body, error_of, form, read_answer, request_head, service, wait_until

pytestmark = pytest.mark.fault
LIMIT = 3


def test_r01_the_excess_is_refused_at_once_and_nothing_of_it_decoded():
    with service(WHISPER_MAX_QUEUE_REQUESTS=str(LIMIT)) as server, concurrent.futures.ThreadPoolExecutor() as threads:
        slow = [threads.submit(server.post, script(seconds=20, window_delay=1.5)) for _ in range(LIMIT)]
        wait_until(lambda: server.gauge("whisper_queue_audio_seconds") == 20 * LIMIT)
        for _ in range(5):
            with server.connect() as connection:
                started = time.monotonic()
                connection.sendall(request_head(20_000_000))  # not a byte of the body
                status, headers, body = read_answer(connection)
                took = time.monotonic() - started
            assert status == 503
            assert took < 0.5
            assert 1 <= int(headers["retry-after"]) <= 60
            assert b'"overloaded"' in body
        assert server.gauge("whisper_queue_upload_bytes") == 0.0
        assert [future.result().status_code for future in slow] == [200] * LIMIT
        assert error_of(server.post(b"", data={"x": "y"}), 400)
        server.assert_idle()


def test_r01_a_client_that_sends_first_and_reads_later_sees_the_answer():
    body = form(b"x" * (25 * 1024 * 1024))
    with service(WHISPER_MAX_QUEUE_REQUESTS="1") as server, concurrent.futures.ThreadPoolExecutor() as threads:
        slow = threads.submit(server.post, script(window_delay=4))
        wait_until(lambda: server.gauge("whisper_queue_requests") == 1.0)
        for _ in range(5):
            request = urllib.request.Request(
                f"{server.url}/v1/transcribe",
                data=body,
                headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
            )
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=10)
            assert caught.value.code == 503
            caught.value.close()
        assert slow.result().status_code == 200
        server.assert_idle()


def test_r01_the_refusal_has_the_one_error_body():
    with service(WHISPER_MAX_QUEUE_REQUESTS="1") as server, concurrent.futures.ThreadPoolExecutor() as threads:
        slow = threads.submit(server.post, script(window_delay=1))
        wait_until(lambda: server.gauge("whisper_queue_requests") == 1.0)
        answer = server.post()
        assert check_error_body(answer.json())["code"] == "overloaded"
        assert answer.headers["connection"] == "close"
        slow.result()

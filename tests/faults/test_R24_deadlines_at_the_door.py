"""R24, as far as the HTTP process goes: past its deadline a request is 504 within 250 ms, wherever it was."""

import time
from typing import Any

import pytest

from tests.fakes import script
from tests.serving import ServiceProcess, error_of, service, wait_until

pytestmark = pytest.mark.fault
DEADLINE = 0.5


def late_lines(server: ServiceProcess) -> list[dict[str, Any]]:
    return [line for line in server.log() if line["event"] == "request" and line["status"] == 504]


def test_r24_a_late_request_is_504_and_counted_by_stage():
    with service(WHISPER_REQUEST_TIMEOUT_SECONDS=str(DEADLINE)) as server:
        late = {
            "decode_audio": {"decode_delay": 20},
            "queue": {"queue_delay": 20},
            "inference": {"windows": 9, "window_delay": 3},
        }
        for stage, words in late.items():
            started = time.monotonic()
            answer = server.post(script(**words))
            took = time.monotonic() - started
            assert error_of(answer, 504)["code"] == "deadline_exceeded"
            assert DEADLINE <= took < DEADLINE + 0.25 + 0.25  # the client's own start is in it
            assert server.gauge(f'whisper_cancellations_total{{reason="deadline",stage="{stage}"}}') == 1.0
        wait_until(lambda: len(late_lines(server)) == len(late))
        lines = {line["stage"]: line for line in late_lines(server)}
        assert set(lines) == set(late)
        assert 0.0 < lines["queue"]["queue_seconds"] < 2 * DEADLINE
        assert lines["inference"]["queue_seconds"] < lines["queue"]["queue_seconds"]
        assert "queue_seconds" not in lines["decode_audio"]
        assert server.post(script(window_delay=0.1)).status_code == 200
        server.assert_idle()

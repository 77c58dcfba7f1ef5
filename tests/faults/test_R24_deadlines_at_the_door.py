"""R24, as far as the HTTP process goes: past its deadline a request is 504 within 250 ms, wherever it was."""

import time

import pytest

from tests.fakes import script
from tests.serving import error_of, service

pytestmark = pytest.mark.fault
DEADLINE = 0.5


def test_r24_a_late_request_is_504_and_counted_by_stage():
    with service(WHISPER_REQUEST_TIMEOUT_SECONDS=str(DEADLINE)) as server:
        for stage, words in (("decode_audio", {"decode_delay": 20}), ("inference", {"windows": 9, "window_delay": 3})):
            started = time.monotonic()
            answer = server.post(script(**words))
            took = time.monotonic() - started
            assert error_of(answer, 504)["code"] == "deadline_exceeded"
            assert DEADLINE <= took < DEADLINE + 0.25 + 0.25  # the client's own start is in it
            assert server.gauge(f'whisper_cancellations_total{{reason="deadline",stage="{stage}"}}') == 1.0
        assert server.post(script(window_delay=0.1)).status_code == 200
        server.assert_idle()

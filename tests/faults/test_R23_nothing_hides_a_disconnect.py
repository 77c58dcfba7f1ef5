"""R23: the disconnect reaches the work through the whole stack that is installed (P1)."""

import pytest
from starlette.middleware.base import BaseHTTPMiddleware

from tests.fakes import script
from tests.serving import form, make_app, request_head, service, wait_until

pytestmark = pytest.mark.fault
KEY = "a-key-of-the-test"


def test_r23_with_keys_docs_quota_and_debug_logs():
    keys = {"authorization": f"Bearer {KEY}"}
    environment = {
        "WHISPER_API_KEYS": KEY, "WHISPER_DOCS": "true", "WHISPER_MAX_KEY_REQUESTS": "4", "WHISPER_LOG_LEVEL": "debug",
    }  # fmt: skip
    with service(**environment) as server:
        body = form(script(windows=50, window_delay=0.1))
        with server.connect() as connection:
            connection.sendall(request_head(len(body), "/v1/transcribe", f"Authorization: Bearer {KEY}") + body)
            wait_until(lambda: server.gauge("whisper_queue_audio_seconds", headers=keys) > 0)
        name = 'whisper_cancellations_total{reason="disconnect",stage="inference"}'
        wait_until(lambda: name in server.get("/metrics", headers=keys).text, 1.0)
        server.assert_idle(1.0, headers=keys)
        assert server.gauge('whisper_decode_steps_total{device="cpu"}', headers=keys) < 10


def test_r23_no_middleware_is_of_the_kind_that_hides_it():
    app, _, _ = make_app(api_keys=(KEY,), docs=True)
    assert app.user_middleware
    assert not [m for m in app.user_middleware if isinstance(m.cls, type) and issubclass(m.cls, BaseHTTPMiddleware)]

"""R35: before the workers are warm it lives, is unready, and refuses at once; the first request is as quick as any."""

import pytest

from benchmarks.concurrency import AUDIO, Upload
from benchmarks.first import measure
from benchmarks.service import running
from tests.fakes import script
from tests.serving import ServiceProcess, error_of, wait_until

pytestmark = pytest.mark.fault


def test_r35_it_lives_before_it_is_ready():
    server = ServiceProcess("--warm-delay", "1.5")
    try:
        server.wait_listening()
        assert server.get("/livez").status_code == 200
        for answer in (server.get("/readyz"), server.post(script(seconds=1))):
            assert error_of(answer, 503)["code"] == "starting"
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        wait_until(lambda: server.get("/readyz").status_code == 200)
        assert server.post(script(seconds=1)).status_code == 200
        server.assert_idle()
    finally:
        server.stop()


def test_r35_what_can_never_start_ends_with_one_line_that_says_why():
    server = ServiceProcess("--failure", "weights: model.bin has the wrong SHA-256")
    try:
        assert server.process.wait(15) == 1
        (line,) = [line for line in server.log() if line["level"] == "error"]
        assert line["event"] == "start_failed"
        assert "model.bin" in line["detail"]
    finally:
        server.stop()


@pytest.mark.weights
def test_r35_the_first_request_waits_for_nothing():
    file = Upload("en-stereo.flac", (AUDIO / "en-stereo.flac").read_bytes())
    with running(compute_type="float32", drain_notice_seconds=0) as service:
        figures = measure(service.url, file, requests=6)
    assert figures["first_s"] < 2.0 * figures["steady_s"] + 0.5  # 1.5 on a machine with nothing else to do

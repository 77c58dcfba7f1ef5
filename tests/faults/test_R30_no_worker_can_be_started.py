"""R30: a worker that dies at every start: 503 at once, `/livez` 200, clear lines in the log, and no busy loop."""

import time

import psutil
import pytest

from tests.serving import error_of, real_service, wait_until
from tests.sounds import float_wav, speechlike

pytestmark = pytest.mark.fault


def test_r30_the_service_outlives_its_workers_and_comes_back(checkpoint, tmp_path):
    weights = tmp_path / "model.pt"
    weights.write_bytes(checkpoint.read_bytes())
    sound = float_wav(speechlike(1.0))
    with real_service(weights) as server:
        assert server.post(sound, data={"temperature": "0"}).status_code == 200
        weights.write_bytes(b"no weights")
        server.worker().kill()
        wait_until(lambda: server.get("/readyz").status_code == 503)
        wait_until(lambda: server.gauge("whisper_worker_restarts_total") >= 2.0, 60)
        own = psutil.Process(server.process.pid)
        before, started = own.cpu_times(), time.monotonic()
        posted = time.monotonic()
        refused = server.post(sound)
        assert time.monotonic() - posted < 1.0
        assert error_of(refused, 503)["code"] == "no_worker"
        assert "retry-after" in refused.headers
        assert server.get("/livez").status_code == 200
        time.sleep(2.0)
        after, seconds = own.cpu_times(), time.monotonic() - started
        # Starting a worker every second or two costs something; a loop that never rests costs a whole core.
        assert (after.user + after.system - before.user - before.system) / seconds < 0.5
        ended = [line for line in server.log() if line["event"] == "worker_ended"]
        assert 2 <= len(ended) <= 6
        assert any("model.pt" in line.get("detail", "") for line in ended)
        weights.write_bytes(checkpoint.read_bytes())
        wait_until(lambda: server.get("/readyz").status_code == 200, 60)
        assert server.post(sound, data={"temperature": "0"}).status_code == 200
        server.assert_idle()

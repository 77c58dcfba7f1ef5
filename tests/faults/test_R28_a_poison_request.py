"""R28 through HTTP: a request that kills its worker gets 500 once, its neighbours 200, and its bytes 500 at once."""

import concurrent.futures

import pytest

from tests.faulty_worker import Harm
from tests.serving import error_of, real_service, wait_until
from tests.sounds import float_wav, speechlike

pytestmark = pytest.mark.fault
GREEDY = {"temperature": "0", "language": "en", "guards": "false"}


def test_r28_only_the_request_at_fault_fails(checkpoint):
    sounds = [float_wav(speechlike(40.0, seed=seed)) for seed in (0, 1, 2)]
    poison = float_wav(speechlike(2.0)[: Harm.DIES])
    with real_service(checkpoint, module="tests.serve_faulty") as server:
        alone = [server.post(sound, data=GREEDY).json()["text"] for sound in sounds]
        with concurrent.futures.ThreadPoolExecutor(4) as clients:
            innocent = [clients.submit(server.post, sound, data=GREEDY, timeout=120.0) for sound in sounds]
            wait_until(lambda: server.gauge("whisper_queue_audio_seconds") == 120.0, 15)
            guilty = clients.submit(server.post, poison, data=GREEDY, timeout=120.0).result()
            assert error_of(guilty, 500)["code"] == "request_crashed_worker"
            assert "retry-after" not in guilty.headers
            assert guilty.headers["x-should-retry"] == "false"
            answers = [answer.result() for answer in innocent]
        assert [answer.status_code for answer in answers] == [200] * 3
        assert [answer.json()["text"] for answer in answers] == alone
        wait_until(lambda: server.get("/readyz").status_code == 200, 30)
        assert server.gauge("whisper_worker_restarts_total") == 2
        again = server.post(poison, data=GREEDY)
        assert error_of(again, 500)["code"] == "request_crashed_worker"
        assert again.headers["x-should-retry"] == "false"
        assert server.gauge("whisper_worker_restarts_total") == 2
        server.assert_idle()

"""R27 through HTTP: a worker that stops or loops while it has work is replaced; a stopped one without work is not."""

import concurrent.futures
import signal
import time

import pytest

from tests.faulty_worker import Harm
from tests.serving import ServiceProcess, error_of, real_service, wait_until
from tests.sounds import float_wav, speechlike

pytestmark = pytest.mark.fault
STALL = 2.0
GREEDY = {"temperature": "0", "language": "en", "guards": "false"}
STEPS = 'whisper_decode_steps_total{device="cpu"}'


@pytest.fixture(scope="module")
def server(checkpoint):
    """A service whose worker some recordings harm."""
    with real_service(checkpoint, module="tests.serve_faulty", WHISPER_STALL_SECONDS=str(STALL)) as process:
        yield process


def restarts(server: ServiceProcess) -> float:
    return server.gauge("whisper_worker_restarts_total")


def reasons(server: ServiceProcess) -> list[str]:
    return [line["reason"] for line in server.log() if line["event"] == "worker_ended"]


def test_r27_a_worker_without_work_may_sleep(server):
    sound, worker = float_wav(speechlike(2.0)), server.worker()
    worker.send_signal(signal.SIGSTOP)
    time.sleep(2 * STALL + 0.5)
    assert server.get("/readyz").status_code == 200
    worker.send_signal(signal.SIGCONT)
    assert server.post(sound, data=GREEDY).status_code == 200
    assert (restarts(server), server.worker().pid) == (0, worker.pid)


def test_r27_a_stopped_worker_is_replaced_and_its_requests_are_answered(server):
    sounds = [float_wav(speechlike(90.0, seed=seed)) for seed in (0, 1)]
    before, steps, worker = restarts(server), server.gauge(STEPS), server.worker()
    with concurrent.futures.ThreadPoolExecutor(2) as clients:
        answers = [clients.submit(server.post, sound, data=GREEDY, timeout=120.0) for sound in sounds]
        wait_until(lambda: server.gauge("whisper_queue_audio_seconds") == 180.0, 15)
        wait_until(lambda: server.gauge(STEPS) > steps, 30)
        worker.send_signal(signal.SIGSTOP)
        assert not any(answer.done() for answer in answers)
        wait_until(lambda: restarts(server) == before + 1, 30)
        assert server.get("/livez").status_code == 200
        assert [answer.result().status_code for answer in answers] == [200, 200]
    assert reasons(server)[-1] == "it was stopped by somebody else"
    server.assert_idle()


def test_r27_a_request_that_hangs_its_worker_twice_is_refused(server):
    before, sound = restarts(server), float_wav(speechlike(2.0)[: Harm.HANGS])
    hung = server.post(sound, data=GREEDY, timeout=60.0)
    assert error_of(hung, 500)["code"] == "request_crashed_worker"
    assert reasons(server)[-1] == "it made no progress"
    wait_until(lambda: server.get("/readyz").status_code == 200, 30)
    assert restarts(server) == before + 2
    assert server.post(float_wav(speechlike(2.0)), data=GREEDY).status_code == 200
    server.assert_idle()

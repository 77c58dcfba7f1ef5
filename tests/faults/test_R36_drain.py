"""R36: SIGTERM with six in flight: unready first, still listening; new posts 503; the six 200; exit 0 in time."""

import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.fakes import script
from tests.serving import ROOT, ServiceProcess, error_of, real_service, service, wait_until
from tests.sounds import float_wav, speechlike

pytestmark = pytest.mark.fault


@pytest.fixture(autouse=True)
def _not_spared() -> Iterator[None]:
    """Tests that were themselves started by `nohup` would pass its ignoring of SIGHUP on."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_r36_a_drain_loses_nothing():
    drain = {"WHISPER_DRAIN_NOTICE_SECONDS": "1", "WHISPER_DRAIN_SECONDS": "10"}
    with service(**drain) as server, concurrent.futures.ThreadPoolExecutor() as threads:
        busy = [threads.submit(server.post, script(windows=20, window_delay=0.1)) for _ in range(6)]
        wait_until(lambda: server.gauge("whisper_queue_audio_seconds") == 6.0)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.get("/readyz").status_code == 503, 0.9)
        assert server.get("/livez").status_code == 200
        refused = server.post(b"x" * 1_000_000)
        assert error_of(refused, 503)["code"] == "draining"
        assert refused.headers["connection"] == "close"
        assert "retry-after" in refused.headers
        assert [future.result().status_code for future in busy] == [200] * 6
        children = psutil.Process(server.process.pid).children(recursive=True) if server.process.poll() is None else []
        assert server.process.wait(10) == 0
        assert time.monotonic() - started < 10
        assert not [child for child in children if child.is_running()]
        assert server.log()[-1]["event"] == "stopped"


def test_r36_a_real_service_ends_its_work_and_leaves_no_process(checkpoint):
    drain = {"WHISPER_DRAIN_NOTICE_SECONDS": "1", "WHISPER_DRAIN_SECONDS": "60"}
    sound = float_wav(speechlike(40.0))
    with real_service(checkpoint, **drain) as server, concurrent.futures.ThreadPoolExecutor() as threads:
        children = server.children()
        assert len(children) >= 3
        busy = [threads.submit(server.post, sound, data={"temperature": "0"}, timeout=60) for _ in range(6)]
        wait_until(lambda: server.gauge("whisper_queue_audio_seconds") == 240.0, 20)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.get("/readyz").status_code == 503, 0.9)
        assert error_of(server.post(sound), 503)["code"] == "draining"
        assert [future.result().status_code for future in busy] == [200] * 6
        assert server.process.wait(60) == 0
        _, alive = psutil.wait_procs(children, 2.0)
        assert not alive


def test_r36_an_idle_service_leaves_after_the_notice():
    with service(WHISPER_DRAIN_NOTICE_SECONDS="0.5") as server, server.connect() as idle:
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 0
        assert 0.5 <= time.monotonic() - started < 4
        assert idle.recv(1) == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_r36_a_person_at_the_terminal_needs_no_notice(number):
    with service(WHISPER_DRAIN_NOTICE_SECONDS="20") as server:
        started = time.monotonic()
        server.process.send_signal(number)
        assert server.process.wait(5) == 0
        assert time.monotonic() - started < 4
        assert [line["signal"] for line in server.log() if line["event"] == "signal"] == [number.name]


def test_r36_a_terminal_that_closes_costs_no_request():
    """The log has nowhere to go then, and a shell sends SIGHUP beside the kernel: a second one hurries nobody."""
    terminal, theirs = os.openpty()
    run = (
        "import fcntl, runpy, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "runpy.run_module('tests.serve_fake', None, '__main__')"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", run],
        cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=os.environ | {"WHISPER_PORT": "0", "WHISPER_DRAIN_SECONDS": "20"},
    )  # fmt: skip
    os.close(theirs)
    with contextlib.ExitStack() as stack:
        stack.enter_context(server)
        stack.callback(server.kill)
        threads = stack.enter_context(concurrent.futures.ThreadPoolExecutor())
        log = stack.enter_context(open(terminal, closefd=False))
        lines = map(json.loads, log)
        port = next(line["port"] for line in lines if line["event"] == "listening")
        assert any(line["event"] == "ready" for line in lines)
        files = {"file": ("a.wav", script(windows=20, window_delay=0.1))}
        url = f"http://127.0.0.1:{port}"
        busy = threads.submit(httpx.post, f"{url}/v1/transcribe", files=files, timeout=20, trust_env=False)
        wait_until(lambda: "whisper_in_flight_requests 1.0" in httpx.get(f"{url}/metrics", trust_env=False).text)
        os.close(terminal)
        with pytest.raises(httpx.ConnectError):
            wait_until(lambda: httpx.get(f"{url}/livez", trust_env=False).is_error)
        server.send_signal(signal.SIGHUP)
        assert busy.result().status_code == 200
        assert server.wait(20) == 0


def test_r36_a_service_started_to_outlive_its_terminal_does():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup
    try:
        server = ServiceProcess()
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        server.wait_ready()
        server.process.send_signal(signal.SIGHUP)
        assert server.post(script(windows=3, window_delay=0.1)).status_code == 200
        assert [line for line in server.log() if line["event"] == "signal"] == []
    finally:
        server.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_r36_a_signal_before_the_service_listens_ends_it(tmp_path, number):
    """As the first process of a container would have to: nobody else's default action ends that one."""
    (tmp_path / "fastapi.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    server = subprocess.Popen(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with server:
        assert server.stdout is not None
        assert server.stdout.readline() == "importing\n"
        while server.poll() is None:  # and whatever more come while it ends
            server.send_signal(number)
            time.sleep(0.001)
        assert server.returncode == 0
        assert server.stdout.read() == ""


@pytest.mark.parametrize("module", ["service.worker", "service.audio_child"])
def test_r36_a_child_that_is_still_starting_leaves_signals_to_its_parent(tmp_path, module):
    """Ctrl-C in a terminal, and what some supervisors send, reach all of them."""
    (tmp_path / "pydantic.py").write_text("print('importing', flush=True)\ninput()\nprint('alive', flush=True)\n")
    child = subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "importing\n"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            child.send_signal(number)
        assert child.communicate("\n", timeout=10)[0] == "alive\n"

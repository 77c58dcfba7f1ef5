import math
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from service.wire import process
from tests.serving import wait_until


@pytest.mark.parametrize(
    ("page", "kills"),
    [("pgfault 7\noom_kill 3\noom_kill_disable 9\n", 3), ("pgfault 7\n", None), (None, None)],
)
def test_kills_for_memory_are_read_or_not_known(tmp_path, monkeypatch, page, kills) -> None:
    file = tmp_path / "vmstat"
    if page is not None:
        file.write_text(page)
    monkeypatch.setattr(process, "Path", lambda path: file if path == "/proc/vmstat" else Path(path))
    assert process.oom_kills() == kills


def test_this_process_has_memory() -> None:
    assert process.resident_bytes() > 1_000_000


@pytest.mark.parametrize(
    ("status", "before", "now", "answer"),
    [(-9, 3, 3, True), (-9, 3, 4, False), (-9, None, None, False), (-11, 3, 3, False), (1, 3, 3, False)],
)
def test_only_a_kill_that_was_not_for_memory_is_murder(monkeypatch, status, before, now, answer) -> None:
    monkeypatch.setattr(process, "oom_kills", lambda: now)
    assert process.murdered(status, before) == answer


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_process_that_somebody_stopped_is_told_from_one_that_sleeps() -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert not process.stopped(sleeper.pid)
        sleeper.send_signal(signal.SIGSTOP)
        wait_until(lambda: process.stopped(sleeper.pid))
        sleeper.send_signal(signal.SIGCONT)
        wait_until(lambda: not process.stopped(sleeper.pid))
    finally:
        sleeper.kill()
        sleeper.wait()
    assert not process.stopped(sleeper.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_process_that_computes_is_told_from_one_that_waits() -> None:
    program = "import sys, time\nprint(flush=True)\nwhile 's' not in sys.argv: pass\ntime.sleep(60)"
    for argument, wants in (("c", True), ("s", False)):
        child = subprocess.Popen([sys.executable, "-c", program, argument], stdout=subprocess.PIPE)
        with child:
            assert child.stdout is not None
            child.stdout.readline()
            wait_until(lambda child=child, wants=wants: process.wants_processor(child.pid) == wants)
            before = process.processor_seconds(child.pid)
            assert before == pytest.approx(sum(psutil.Process(child.pid).cpu_times()[:2]), abs=5.0)
            if wants:
                wait_until(lambda child=child, before=before: process.processor_seconds(child.pid) > before, 60)
            child.kill()
    assert not process.wants_processor(child.pid)
    assert math.isnan(process.processor_seconds(child.pid))

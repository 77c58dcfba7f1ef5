"""What a locked-down child can no longer do."""

import asyncio
import os
import subprocess
import sys
import time

import pytest

from service.errors import InvalidAudio
from service.wire.audio_messages import MEASURES
from tests.audio_pools import SCRIPTED, decode, new_pool, outcome, running, until
from tests.scripted_audio_child import ATTEMPTS

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the measures are Linux's")


@LINUX
def test_nothing_can_be_opened_started_signalled_or_reached() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            assert {"limits", "no-new-privileges", "dies-with-parent"} <= set(pool.sandbox or ()) <= set(MEASURES)
            if "system-calls" not in (pool.sandbox or ()):
                pytest.skip("no seccomp on this machine")
            for action in ATTEMPTS:
                with pytest.raises(InvalidAudio) as answer:
                    await decode(pool, f"attempt {action}".encode())
                assert answer.value.message in (f"{action}: PermissionError", f"{action}: RuntimeError"), action
            assert pool.restarts == 0

    asyncio.run(scenario())


def test_memory_and_output_are_bounded() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED, max_seconds=1.0, memory_bytes=200_000_000)) as pool:
            assert await outcome(pool, b"allocate 100000000") == 0.01
            assert isinstance(await outcome(pool, b"allocate 300000000"), InvalidAudio)
            assert isinstance(await outcome(pool, b"samples 40000"), InvalidAudio)
            await until(lambda: pool.restarts == 2)

    asyncio.run(scenario())


def test_processor_time_is_bounded_for_one_file_and_renewed_for_the_next() -> None:
    program = (
        "import time\n"
        "from service.audio_child.sandbox import limit_cpu\n"
        "for seconds in (0.7, 0.7, 60):\n"
        "    limit_cpu(1)\n"
        "    end = time.process_time() + seconds\n"
        "    while time.process_time() < end: pass\n"
        "    print(seconds, flush=True)\n"
    )
    start = time.monotonic()
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == ["0.7", "0.7"]
    assert run.returncode == -24  # SIGXCPU
    assert time.monotonic() - start < 40


def test_a_process_whose_parent_is_gone_does_not_go_on() -> None:
    program = (
        "import service.audio_child.sandbox as s; "
        "s.lock_down(memory_bytes=2**30, output_bytes=1000, parent=1); print('on')"
    )
    if os.getpid() == 1:
        pytest.skip("this process is the parent of orphans")
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")

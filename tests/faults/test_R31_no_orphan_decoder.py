"""R31: when the parent is killed with -9, no decoder outlives it, idle or at work."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.fault

PARENT = """
import asyncio, sys
from tests.audio_pools import SCRIPTED, children, decode, new_pool, until

async def main():
    pool = new_pool(SCRIPTED, children=2, decode_seconds=100.0)
    await pool.start()
    await until(lambda: pool.ready and len(children()) == 2)
    asyncio.create_task(decode(pool, sys.argv[1].encode()))
    await until(lambda: pool.busy == 1)
    await asyncio.sleep(0.3)
    print(*children(), flush=True)
    await asyncio.sleep(100)

asyncio.run(main())
"""


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process}/stat") as stat:  # noqa: PTH123
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"  # an orphan may wait for init to reap it


@pytest.mark.parametrize("work", ["spin", "stop"])
def test_R31_children_die_with_their_parent(work: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, work], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        orphans = [int(word) for word in parent.stdout.readline().split()]
        assert len(orphans) == 2
        assert all(map(alive, orphans))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        end = time.monotonic() + 5
        while any(map(alive, orphans)):
            assert time.monotonic() < end, "a decoder outlived its parent"
            time.sleep(0.02)

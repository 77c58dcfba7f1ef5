import os
import time

from benchmarks.memory import Peak, resident_bytes


def test_a_peak_that_has_passed_is_kept() -> None:
    before = sum(resident_bytes(os.getpid()).values())
    with Peak(os.getpid()).watching() as peak:
        block = bytearray(os.urandom(1)) * 150_000_000
        end = time.monotonic() + 10
        while sum(peak.sizes.values()) < before + 100_000_000 and time.monotonic() < end:
            time.sleep(0.05)
        del block
        time.sleep(0.3)
    assert sum(peak.sizes.values()) > before + 100_000_000

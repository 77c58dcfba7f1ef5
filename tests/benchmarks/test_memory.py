import subprocess
import sys

from benchmarks.memory import Peak, resident_bytes
from tests.serving import wait_until

HOLDER = """
import sys
block = bytearray(150_000_000)
block[::4096] = b"x" * len(block[::4096])
print("held", flush=True)
sys.stdin.readline()
del block
print("let go", flush=True)
sys.stdin.readline()
"""
"""A process that holds 150 MB, lets go of them when told to and ends at the next line."""


def test_a_peak_that_has_passed_is_kept() -> None:
    with subprocess.Popen(
        (sys.executable, "-c", HOLDER), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with Peak(holder.pid).watching() as peak:
            wait_until(lambda: sum(peak.sizes.values()) > 150_000_000, 10.0)
            holder.stdin.write("\n")
            holder.stdin.flush()
            assert holder.stdout.readline() == "let go\n"
            assert sum(resident_bytes(holder.pid).values()) < 100_000_000
        assert sum(peak.sizes.values()) > 150_000_000
        holder.communicate("\n")

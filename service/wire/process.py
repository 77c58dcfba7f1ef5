"""What every child process of the service does first: it dies with its parent and ignores the terminal's signals.

And what its end says to the parent.
"""

import ctypes
import math
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> bool:
    """Have the kernel kill this process when `parent` (its process id) is gone; whether it will (Linux can).

    Elsewhere the closed channel tells at the next message. Call it after `unshare`, which may clear the wish.
    """
    held = False
    if sys.platform == "linux":
        held = bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)
    if os.getppid() != parent:  # it died before the call
        raise SystemExit(1)
    return held


def leave_signals_to_parent() -> None:
    """Ignore Ctrl-C, SIGTERM and SIGHUP sent to the whole group: the parent drains and then stops its children."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def resident_bytes() -> int:
    """Resident memory of this process; 0 where /proc is missing."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def oom_kills() -> int | None:
    """Processes that the kernel of this machine has killed for memory so far; None where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def murdered(exit_status: int | None, oom_kills_before: int | None) -> bool:
    """Whether a child that we did not kill was killed, and not for memory: no work of it can have done that.

    `oom_kills_before` is what `oom_kills` said while it was well. If in doubt, no.
    """
    return exit_status == -signal.SIGKILL and oom_kills_before is not None and oom_kills() == oom_kills_before


def stopped(pid: int) -> bool:
    """Whether somebody holds a process of ours still, by SIGSTOP or a debugger; False where /proc does not say."""
    return _status(pid)[:1] in ([b"T"], [b"t"])


def wants_processor(pid: int) -> bool:
    """Whether a process of ours is at work, or would be if the machine let it; False where /proc does not say.

    One that waits for a disk, perhaps for its own memory to come back from there, counts.
    """
    return _status(pid)[:1] in ([b"R"], [b"D"])


def processor_seconds(pid: int) -> float:
    """Processor time that a process of ours has had, to a hundredth of a second; NaN where /proc does not say."""
    status = _status(pid)
    return sum(map(int, status[11:13])) / os.sysconf("SC_CLK_TCK") if status else math.nan


def _status(pid: int) -> list[bytes]:
    """What /proc/PID/stat says from the third field on, the state (proc(5)); empty where it says nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []

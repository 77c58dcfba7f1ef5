"""What every child process of the service does first: it dies with its parent and ignores the terminal's signals."""

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` (its process id) is gone, however it went. Linux only.

    Elsewhere the closed channel says so at the next message.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)


def leave_signals_to_parent() -> None:
    """Ignore Ctrl-C and SIGTERM sent to the whole group: the parent drains and then stops its children."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def resident_bytes() -> int:
    """Resident memory of this process; 0 where /proc is missing."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0

"""What runs inside the locked-down place of `test_R42_locked_down.py`: the real service, one request, and what it saw.

Prints one JSON object: the place as this process finds it, and the answer of the service.
"""

import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

from tests.serving import ROOT, ServiceProcess


def status(name: str) -> str:
    """A field of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(f"{name}:"))


def writable(folder: Path) -> bool:
    """Whether a file can be made there."""
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder):
        return True
    return False


def main() -> int:
    """Start the service, post a clip, print what happened."""
    service = ServiceProcess(module="service", WHISPER_THREADS_PER_WORKER="1")
    try:
        service.wait_ready(180.0)
        answer = service.post((ROOT / "tests/audio/en-stereo.flac").read_bytes(), timeout=120.0)
    finally:
        service.stop()
    facts = {
        "user": os.getuid(),
        "capabilities": int(status("CapEff"), 16) | int(status("CapPrm"), 16),
        "no_new_privileges": status("NoNewPrivs") == "1",
        "writable": [str(folder) for folder in (ROOT, Path("/"), Path.home()) if writable(folder)],
        "temporary_bytes": shutil.disk_usage(tempfile.gettempdir()).total,
        "interfaces": [name for _, name in socket.if_nameindex()],
        "status": answer.status_code,
        "text": answer.json().get("text"),
    }
    json.dump(facts, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())

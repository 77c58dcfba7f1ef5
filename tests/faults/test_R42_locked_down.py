"""R42: as user 10001 on a read-only file system, with 64 MB of temporary files and no network, the service serves.

The place is made with unshare, without a container engine: its own user, mount and network namespaces, the root file
system bound read-only, a tmpfs for temporary files. `tests/test_container.py` holds the container files to the same.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import ROOT

ENTER = r"""
set -eu
mount --make-rprivate /
mount --rbind / "$PLACE"
mount -o remount,bind,ro "$PLACE"
mount -t tmpfs -o size=64m,mode=1777,noexec,nosuid,nodev tmpfs "$PLACE$TMPDIR"
ip link set lo up
cd "$PLACE"
pivot_root . .
umount -l .
cd "$ROOT"
exec unshare --user --map-user=10001 --map-group=10001 setpriv --no-new-privs "$@"
"""


def enter(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the locked-down place."""
    place, temporary = tmp_path / "place", tmp_path / "temporary"
    for folder in (place, temporary):
        folder.mkdir(exist_ok=True)
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "--net", "sh", "-c", ENTER, "sh", *command]
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("WHISPER_", "XDG_"))}
    variables = {"PLACE": str(place), "TMPDIR": str(temporary), "ROOT": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        unshare, env=keep | variables, cwd=ROOT, capture_output=True, text=True, check=False, timeout=400
    )


@pytest.mark.fault
@pytest.mark.weights
def test_the_service_serves_where_it_may_do_nothing(tmp_path: Path) -> None:
    if (probe := enter(tmp_path, "true")).returncode:
        pytest.skip(f"no namespaces here: {probe.stderr.strip()}")
    run = enter(tmp_path, sys.executable, "-m", "tests.faults.locked_down")
    assert run.returncode == 0, run.stderr
    facts = json.loads(run.stdout)
    assert facts.pop("text").strip()
    assert facts == {
        "user": 10001,
        "capabilities": 0,
        "no_new_privileges": True,
        "writable": [],
        "temporary_bytes": 64 * 1024 * 1024,
        "interfaces": ["lo"],
        "status": 200,
    }

"""What memory the machine has left, by the kernel's own books: what can still be taken before it kills somebody.

Read by `service.worker.start`: `/proc/meminfo`, and the limits of the control groups (v1 and v2) in which this process
lives. Files that the kernel may drop from memory count as free, and so does swap: of a group only what programs hold
counts as taken, for its own sum has every file in it that was ever read. What cannot be read says nothing.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")
_KIB = 1024


def available_bytes(root: Path = _ROOT) -> int | None:
    """The least of what the machine and each control group have left; None where nobody says.

    `root`: where `proc` and `sys` are.
    """
    known = _table(root / "proc/meminfo")
    swap = known.get("SwapFree:", 0) * _KIB
    rests = [known["MemAvailable:"] * _KIB + swap] if "MemAvailable:" in known else []
    rests += _rests(root, swap)
    return max(0, min(rests)) if rests else None


def anonymous_bytes(root: Path = _ROOT) -> int:
    """Memory of this process that is no file's; 0 where nobody says."""
    return _table(root / "proc/self/status").get("RssAnon:", 0) * _KIB


def _rests(root: Path, swap: int) -> Iterator[int]:
    """What each limited control group above this process has left."""
    for line in _lines(root / "proc/self/cgroup"):
        controllers, _, path = line.partition(":")[2].partition(":")
        own = PurePosixPath(path.lstrip("/"))
        for group in (own, *own.parents):  # in a container those above its own are not there
            if controllers == "":
                yield from _second_version(root / "sys/fs/cgroup" / group, swap)
            elif "memory" in controllers.split(","):
                yield from _first_version(root / "sys/fs/cgroup/memory" / group, swap)


def _first_version(group: Path, swap: int) -> Iterator[int]:
    limit, used = _number(group / "memory.limit_in_bytes"), _table(group / "memory.stat")
    if limit is not None and "total_rss" in used:
        yield limit - used["total_rss"] - used.get("total_shmem", 0) + swap


def _second_version(group: Path, swap: int) -> Iterator[int]:
    limit, used = _number(group / "memory.max"), _table(group / "memory.stat")
    swap_limit, swapped = _number(group / "memory.swap.max"), _number(group / "memory.swap.current")
    if swap_limit is not None and swapped is not None:
        swap = min(swap, max(0, swap_limit - swapped))
    if limit is not None and "anon" in used:
        yield limit - used["anon"] - used.get("shmem", 0) + swap


def _number(path: Path) -> int | None:
    """The number that a file holds; None for `max`, or no file."""
    words = " ".join(_lines(path))
    return int(words) if words.isdecimal() else None


def _table(path: Path) -> dict[str, int]:
    """Numbers by the word before them."""
    rows = (line.split() for line in _lines(path))
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("ascii", "replace").splitlines()
    except OSError:
        return []

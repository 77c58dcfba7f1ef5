"""Start-up and memory of a whole service of its own: seconds until ready, and all its processes at rest and at work.

    python -m benchmarks.memory [--concurrency 8] [--requests 24]

Memory is resident: what several processes map counts in each, so that the sum is an upper bound and does not depend on
who else maps the same libraries. The service has a request behind it when it counts as idle. Prints a line for people
and one JSON line.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import psutil

from benchmarks.concurrency import AUDIO, Reply, Upload, send, together
from benchmarks.service import running

FILES = ("en-jfk.flac", "en-stereo.flac")


def resident_bytes(pid: int) -> dict[str, int]:
    """Resident bytes by process of a tree, named by what it runs; those that end meanwhile are left out."""
    root = psutil.Process(pid)
    sizes: dict[str, int] = {}
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            words = process.cmdline()
            name = words[words.index("-m") + 1] if "-m" in words else process.name()
            sizes[name] = sizes.get(name, 0) + process.memory_info().rss
    return sizes


class Peak:
    """The most that a process tree held while this was open, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.sizes: dict[str, int] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator["Peak"]:
        """Look from another thread until the block ends."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.1):
                sizes = resident_bytes(self._pid)
                if sum(sizes.values()) > sum(self.sizes.values()):
                    self.sizes = sizes

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()


async def work(url: str, files: Sequence[Upload], concurrency: int) -> list[Reply]:
    """Send every file, so many at once."""
    async with httpx.AsyncClient(base_url=url, timeout=600.0, trust_env=False) as client:
        if concurrency == 1:
            return [await send(client, file, {"language": "en"}) for file in files]
        return await together(client, files, {"language": "en"}, concurrency)


def main(arguments: list[str] | None = None) -> int:
    """0 unless a request was not answered."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=[AUDIO / name for name in FILES])
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--requests", type=int, default=24)
    parser.add_argument("--rest", type=float, default=5.0, help="seconds at rest before memory is looked at")
    parser.add_argument("--compute-type", default="auto")
    options = parser.parse_args(arguments)
    uploads = [Upload(file.name, file.read_bytes()) for file in options.files]
    files = list(itertools.islice(itertools.cycle(uploads), options.requests))
    begin = time.perf_counter()
    with running(compute_type=options.compute_type, drain_notice_seconds=0) as service:
        ready = time.perf_counter() - begin
        asyncio.run(work(service.url, files[:1], 1))
        time.sleep(options.rest)
        idle = resident_bytes(service.process.pid)
        with Peak(service.process.pid).watching() as peak:
            replies = asyncio.run(work(service.url, files, options.concurrency))
    answered = sum(reply.status == 200 for reply in replies)
    result = {"bench": "memory", "ready_s": round(ready, 2), "idle": idle, "peak": peak.sizes, "answered": answered}
    rest, most = (sum(sizes.values()) / 1e6 for sizes in (idle, peak.sizes))
    sys.stdout.write(
        f"ready after {ready:.1f} s; {rest:.0f} MB at rest, {most:.0f} MB with {options.concurrency} at once; "
    )
    sys.stdout.write(f"{answered} of {len(files)} answered\n{json.dumps(result)}\n")
    return 0 if answered == len(files) else 1


if __name__ == "__main__":
    raise SystemExit(main())

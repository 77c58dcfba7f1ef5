"""A real service as a child process, for benchmarks that need more of it than its port: its processes and memory.

Settings are those of the environment and the arguments; the port is free, the log goes to a temporary file.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

_ROOT = Path(__file__).parents[1]


class Service:
    """A started service."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log
        self.url = ""

    def log(self) -> list[dict[str, Any]]:
        """The lines logged so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def count(self, event: str) -> int:
        """How often `event` was logged so far."""
        return sum(line["event"] == event for line in self.log())

    def children(self, module: str) -> list[psutil.Process]:
        """Its living child processes that run `python -m module`."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if module in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
        return found

    def worker_seconds(self) -> float:
        """CPU seconds that the model workers have used so far."""
        return sum(sum(child.cpu_times()[:2]) for child in self.children("service.worker"))

    def memory(self) -> dict[str, int]:
        """Resident bytes of the HTTP process, and of its model workers together."""
        workers = 0
        for child in self.children("service.worker"):
            with contextlib.suppress(psutil.NoSuchProcess):
                workers += child.memory_info().rss
        return {"server": psutil.Process(self.process.pid).memory_info().rss, "workers": workers}

    def wait_ready(self, seconds: float = 120.0) -> None:
        """Return when `/readyz` says 200; RuntimeError with the last line of the log when it does not come to that."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            listening = [line["port"] for line in self.log() if line["event"] == "listening"]
            if listening:
                self.url = f"http://127.0.0.1:{listening[0]}"
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200:
                        return
            time.sleep(0.05)
        raise RuntimeError(f"the service did not become ready: {self.log()[-1:]}")


@contextlib.contextmanager
def running(module: str = "service", **settings: object) -> Iterator[Service]:
    """A ready service with `settings` (`max_queue_requests=8`, ...); it is asked to stop at the end, then killed."""
    variables = {f"WHISPER_{name.upper()}": str(value) for name, value in settings.items()}
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=_ROOT, env={**os.environ, "WHISPER_PORT": "0", **variables}, stdin=subprocess.DEVNULL, stderr=log,
        )  # fmt: skip
        try:
            service = Service(process, Path(log.name))
            service.wait_ready()
            yield service
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
        finally:
            process.kill()
            process.wait()

"""A peer's process, seen from `benchmarks.peers`: started, asked one thing at a time, stopped in between.

A process that is not asked is held by SIGSTOP: threads that spin while they wait would slow down whoever is measured.
"""

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a process said of one request, or of several at once."""

    texts: tuple[str, ...]
    seconds: float
    peak_bytes: int
    """Most resident memory of the process while it worked on this; on a GPU the card's, where torch held it."""


class PeerProcess:
    """`benchmarks.peer.worker` in some environment. Use as a context manager."""

    def __init__(self, python: Path, load: Mapping[str, Any], *, log: Path, libraries: Sequence[Path] = ()) -> None:
        """Start and load; RuntimeError with the last line of the log where that fails.

        `libraries`: folders in which shared libraries are looked for besides.
        """
        self._log = log
        environment = {
            **os.environ, "OMP_NUM_THREADS": str(load["threads"]), "OMP_WAIT_POLICY": "PASSIVE",
            "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        if libraries:
            before = os.environ.get("LD_LIBRARY_PATH")
            environment["LD_LIBRARY_PATH"] = os.pathsep.join([*map(str, libraries), *([before] if before else [])])
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.peer.worker"], cwd=_ROOT, env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        try:
            self._exchange(load)
        except BaseException:
            self.close()
            raise
        self._hold()

    def one(self, path: Path) -> Answer:
        """A single request."""
        return self._ask({"one": str(path)})

    def many(self, paths: Sequence[Path]) -> Answer:
        """Requests of eight streams."""
        return self._ask({"many": [str(path) for path in paths]})

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> "PeerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any]) -> Answer:
        self._process.send_signal(signal.SIGCONT)
        # 5 forgets the peak so far (proc(5), clear_refs).
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")
        reply = self._exchange(request)
        peak = peak_bytes(Path(f"/proc/{self._process.pid}/status").read_text())
        self._hold()
        return Answer(tuple(reply["texts"]), float(reply["seconds"]), int(reply.get("device_bytes", 0)) or peak)

    def _hold(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def _exchange(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(dict(message)) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            last = self._log.read_text().strip().rpartition("\n")[2]
            raise RuntimeError(f"the process ended: {last[-300:]}")
        reply: dict[str, Any] = json.loads(line)
        return reply


def peak_bytes(status: str) -> int:
    """VmHWM of a /proc/PID/status."""
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024

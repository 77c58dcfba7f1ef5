"""The first request after a start beside those that follow it: what the warm-up leaves to the first user.

    python -m benchmarks.first [FILE] --starts 3 --requests 8

Starts a service of its own several times. Prints for each start the seconds until it was ready, the first latency, the
median of the following ones, and their ratio, which the failure contract (R35) bounds at 1.5; and one JSON line.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import httpx

from benchmarks.concurrency import AUDIO, Upload
from benchmarks.service import running


def measure(url: str, file: Upload, *, requests: int) -> dict[str, float]:
    """Latencies of equal requests one after the other, on a service that has just become ready."""
    latencies = []
    with httpx.Client(base_url=url, timeout=600.0, trust_env=False) as client:
        for _ in range(requests):
            begin = time.perf_counter()
            answer = client.post("/v1/transcribe", files={"file": (file.name, file.content)})
            answer.raise_for_status()
            latencies.append(time.perf_counter() - begin)
    steady = statistics.median(latencies[1:])
    return {
        "first_s": round(latencies[0], 3),
        "steady_s": round(steady, 3),
        "ratio": round(latencies[0] / steady, 3),
    }


def main(arguments: list[str] | None = None) -> int:
    """0 where no first request took more than 1.5 times the steady latency."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=AUDIO / "en-stereo.flac")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--requests", type=int, default=8)
    options = parser.parse_args(arguments)
    file, starts = Upload(options.file.name, options.file.read_bytes()), []
    for _ in range(options.starts):
        begin = time.perf_counter()
        with running(compute_type="float32", drain_notice_seconds=0) as service:
            ready = round(time.perf_counter() - begin, 2)
            starts.append({"ready_s": ready, **measure(service.url, file, requests=options.requests)})
        sys.stdout.write(f"{starts[-1]}\n")
    sys.stdout.write(json.dumps({"bench": "first", "file": file.name, "starts": starts}) + "\n")
    return 0 if all(start["ratio"] <= 1.5 for start in starts) else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""`kill -9` of the model worker at random moments, under load, against a real service of its own.

    python -m benchmarks.kills [FILE ...] --kills 20 --clients 4

Clients send the files without a pause, one request each at a time. Every request must be answered 200 with the text
that the file gets when nothing dies, or 503 with `Retry-After`; none may hang; at the end nothing may be left in
progress. Prints what became of the requests and one JSON line; exit status 1 where any of this was not so.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.concurrency import AUDIO, Upload
from benchmarks.service import Service, running

CLIPS = ("en-stereo.flac", "nl-teleurstelling.webm", "ko-geotda.flac", "zh-guangzhou.flac", "en-video.mp4")
"""The shortest of the clips that ship with the tests."""
_PAUSE_SECONDS = 0.25
_LET_LIVE = 0.8
"""How many of the workers may become ready before it is their turn; the others die while they load."""


@dataclass(slots=True)
class Record:
    """What the clients saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0


async def post(client: httpx.AsyncClient, file: Upload) -> httpx.Response:
    """One request in a language that is detected, as most are."""
    return await client.post("/v1/transcribe", files={"file": (file.name, file.content)})


async def keep_sending(
    client: httpx.AsyncClient, files: Sequence[Upload], texts: Mapping[str, str], record: Record, stop: asyncio.Event
) -> None:
    """Send one request after the other until told to stop, and hold every answer against what it must be."""
    draw = random.Random(len(record.statuses))
    while not stop.is_set():
        file, begin = draw.choice(files), time.monotonic()
        try:
            answer = await post(client, file)
        except httpx.HTTPError as error:
            record.statuses[type(error).__name__] += 1
            record.wrong.append(f"{file.name}: no answer ({type(error).__name__})")
            continue
        record.statuses[str(answer.status_code)] += 1
        record.slowest = max(record.slowest, time.monotonic() - begin)
        if answer.status_code == 200:
            if answer.json()["text"] != texts[file.name]:
                record.wrong.append(f"{file.name}: {answer.json()['text']!r}")
        elif answer.status_code == 503 and "retry-after" in answer.headers:
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            record.wrong.append(f"{file.name}: {answer.status_code} {answer.text}")


async def keep_killing(service: Service, kills: int, within_seconds: float, seed: int) -> list[float]:
    """Kill the worker so many times at random moments; seconds from each end of a ready one to the next ready one."""
    draw, waits = random.Random(seed), []
    for _ in range(kills):
        await asyncio.sleep(draw.uniform(0.0, within_seconds))
        while not (workers := service.children("service.worker")):  # noqa: ASYNC110  it is a process
            await asyncio.sleep(0.02)
        workers[0].kill()
        begin, before = time.monotonic(), service.count("worker_ready")
        if draw.random() < _LET_LIVE:
            while service.count("worker_ready") == before:  # noqa: ASYNC110  it is a process
                await asyncio.sleep(0.02)
            waits.append(time.monotonic() - begin)
    await asyncio.sleep(1.0)  # for the last death to be noticed
    await asyncio.to_thread(service.wait_ready)
    return waits


def gauges(page: str) -> dict[str, float]:
    """The metrics that must be zero of an idle service."""
    names = ("whisper_queue_requests", "whisper_queue_audio_seconds", "whisper_queue_upload_bytes")
    return {n: float(line.split()[1]) for line in page.splitlines() for n in names if line.startswith(f"{n} ")}


async def measure(service: Service, files: Sequence[Upload], options: argparse.Namespace) -> dict[str, Any]:
    """The texts alone, then the load with the kills, then the idle service."""
    record, stop = Record(), asyncio.Event()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=service.url, timeout=options.timeout_seconds, limits=limits, trust_env=False
    ) as client:
        texts = {file.name: (await post(client, file)).json()["text"] for file in files}
        before = service.memory()["server"]
        senders = [
            asyncio.create_task(keep_sending(client, files, texts, record, stop)) for _ in range(options.clients)
        ]
        waits = await keep_killing(service, options.kills, options.within_seconds, options.seed)
        stop.set()
        await asyncio.gather(*senders)
        last = {file.name: (await post(client, file)).json().get("text") for file in files}
        left = gauges((await client.get("/metrics")).text)
    return {
        "bench": "kills",
        "kills": options.kills,
        "statuses": dict(record.statuses),
        "wrong": [*record.wrong, *(f"{name}: left {value}" for name, value in left.items() if value)],
        "texts_afterwards_equal": last == texts,
        "slowest_answer_s": round(record.slowest, 2),
        "ready_again_s": {"median": round(sorted(waits)[len(waits) // 2], 2), "max": round(max(waits), 2)}
        if waits
        else {},
        "server_mib": {"before": before >> 20, "after": service.memory()["server"] >> 20},
    }


def main(arguments: list[str] | None = None) -> int:
    """0 where every answer was as it must be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=[AUDIO / name for name in CLIPS])
    parser.add_argument("--compute-type", default="auto")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clients", type=int, default=4, help="requests in progress at any time")
    parser.add_argument("--within-seconds", type=float, default=4.0, help="a ready worker lives at most so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout-seconds", type=float, default=120.0, help="an answer that takes longer hangs")
    options = parser.parse_args(arguments)
    files = [Upload(file.name, file.read_bytes()) for file in options.files]
    with running(compute_type=options.compute_type, drain_notice_seconds=0) as service:
        result = asyncio.run(measure(service, files, options))
    for name in ("statuses", "slowest_answer_s", "ready_again_s", "server_mib", "wrong"):
        sys.stdout.write(f"{name:20} {result[name]}\n")
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if not result["wrong"] and result["texts_afterwards_equal"] else 1


if __name__ == "__main__":
    raise SystemExit(main())

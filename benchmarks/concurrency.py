"""Requests at once against a running service, compared with the same requests one after another.

    python -m benchmarks.concurrency [FILE ...] --url http://127.0.0.1:8000 --concurrency 8

Every request must get, in company, the text it gets alone. Prints audio seconds per second both ways, the latencies,
and one JSON line; exit status 1 where a text differs or a request fails.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

AUDIO = Path(__file__).parents[1] / "tests" / "audio"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file, read before the clock starts."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request came to."""

    status: int
    text: str
    audio_seconds: float
    seconds: float


async def send(client: httpx.AsyncClient, file: Upload, fields: dict[str, str]) -> Reply:
    """One request; a refusal is a reply too, with its message for text."""
    begin = time.perf_counter()
    response = await client.post("/v1/transcribe", files={"file": (file.name, file.content)}, data=fields)
    seconds = time.perf_counter() - begin
    body = response.json()
    if response.status_code != 200:
        return Reply(response.status_code, str(body.get("error", {}).get("message")), 0.0, seconds)
    return Reply(200, body["text"], float(body["duration"]), seconds)


async def one_by_one(client: httpx.AsyncClient, files: Sequence[Upload], fields: dict[str, str]) -> list[Reply]:
    """Each request after the one before has been answered."""
    return [await send(client, file, fields) for file in files]


async def together(
    client: httpx.AsyncClient, files: Sequence[Upload], fields: dict[str, str], concurrency: int
) -> list[Reply]:
    """At most `concurrency` requests at once; replies in the order of the files."""
    gate = asyncio.Semaphore(concurrency)

    async def guarded(file: Upload) -> Reply:
        async with gate:
            return await send(client, file, fields)

    return list(await asyncio.gather(*(guarded(file) for file in files)))


async def compare(files: Sequence[Upload], options: argparse.Namespace) -> dict[str, Any]:
    """Both ways, sequential first, after one request that warms the service up."""
    fields = {"language": options.language} if options.language else {}
    limits = httpx.Limits(max_connections=options.concurrency)
    async with httpx.AsyncClient(base_url=options.url, timeout=options.timeout_seconds, limits=limits) as client:
        await send(client, files[0], fields)
        begin = time.perf_counter()
        alone = await one_by_one(client, files, fields)
        between = time.perf_counter()
        company = await together(client, files, fields, options.concurrency)
        end = time.perf_counter()
    differing = [
        {"file": file.name, "alone": one.text, "together": other.text, "status": [one.status, other.status]}
        for file, one, other in zip(files, alone, company, strict=True)
        if one.text != other.text or one.status != 200 or other.status != 200
    ]
    return {
        "bench": "concurrency",
        "requests": len(files),
        "concurrency": options.concurrency,
        "equal_texts": not differing,
        "differing": differing,
        "alone": _figures(alone, between - begin),
        "together": _figures(company, end - between),
    }


def _figures(replies: Sequence[Reply], seconds: float) -> dict[str, float]:
    latencies = sorted(reply.seconds for reply in replies)
    return {
        "seconds": round(seconds, 3),
        "audio_seconds_per_second": round(sum(reply.audio_seconds for reply in replies) / seconds, 2),
        "latency_median_s": round(statistics.median(latencies), 3),
        "latency_max_s": round(latencies[-1], 3),
    }


def main(arguments: list[str] | None = None) -> int:
    """0 where every text is equal, 1 where one is not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.concurrency", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(AUDIO.glob("??-*.*")))
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=1, help="send every file this many times")
    parser.add_argument("--language", help="named in every request; default: detected")
    parser.add_argument("--timeout-seconds", type=float, default=600.0)
    options = parser.parse_args(arguments)
    files = [Upload(file.name, file.read_bytes()) for file in options.files] * options.repeat
    result = asyncio.run(compare(files, options))
    for way in ("alone", "together"):
        figures = result[way]
        sys.stdout.write(
            f"{way:8}: {figures['audio_seconds_per_second']:.2f} s of audio a second, "
            f"latency median {figures['latency_median_s']:.2f} s, worst {figures['latency_max_s']:.2f} s\n"
        )
    sys.stdout.write(f"texts {'equal' if result['equal_texts'] else 'DIFFER'}\n{json.dumps(result)}\n")
    return 0 if result["equal_texts"] else 1


if __name__ == "__main__":
    raise SystemExit(main())

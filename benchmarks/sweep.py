"""How much load a service bears: open loops at rising rates, as shares of what it does at most; the knee is told.

    python -m benchmarks.sweep [FILE ...] [--url http://127.0.0.1:8000] [--shares 0.1 0.3 ... 1.2] [--seconds 180]

The most that it does is measured first, in a closed loop: the files, `--repeat` times over, never fewer than
`--concurrency` of them at once. Then each share of that rate arrives by a Poisson schedule (`benchmarks.load`) for
`--seconds`; what arrives in the first `--warm-up` of them is sent and not counted, and the next rate waits until
everybody is answered. The knee is the highest share up to which 95 % of all requests were answered in time
(`--slo-factor` times their recording plus a second). A line per share for people, then one JSON line.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

import httpx

from benchmarks.concurrency import Upload, send, together
from benchmarks.load import client_of, is_good, offer, parser_of, schedule, summarise

SHARES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
IN_TIME = 0.95


async def saturation(
    client: httpx.AsyncClient, files: Sequence[Upload], fields: dict[str, str], options: argparse.Namespace
) -> tuple[float, float]:
    """Requests, and seconds of audio, a second in the closed loop; `RuntimeError` where one is not answered."""
    queue = list(files) * options.repeat
    random.Random(options.seed).shuffle(queue)
    begin = time.perf_counter()
    replies = await together(client, queue, fields, options.concurrency)
    seconds = time.perf_counter() - begin
    for file, reply in zip(queue, replies, strict=True):
        if reply.status != 200:
            raise RuntimeError(f"{file.name}: {reply.status} {reply.text}")
    return len(queue) / seconds, sum(reply.audio_seconds for reply in replies) / seconds


async def point(
    client: httpx.AsyncClient,
    files: Sequence[Upload],
    fields: dict[str, str],
    options: argparse.Namespace,
    *,
    rate: float,
) -> dict[str, Any]:
    """One rate: `benchmarks.load.summarise` of what arrived after the warm-up, and which share of it was in time."""
    arrivals = schedule(files, rate=rate, seconds=options.warm_up + options.seconds, seed=options.seed)
    begin = time.perf_counter()
    outcomes = await offer(client, arrivals, fields)
    seconds = time.perf_counter() - begin - options.warm_up
    counted = [o for o, arrival in zip(outcomes, arrivals, strict=True) if arrival.due >= options.warm_up]
    in_time = sum(is_good(outcome, options.slo_factor) for outcome in counted) / max(len(counted), 1)
    summary = summarise(counted, seconds=seconds, slo_factor=options.slo_factor)
    return {**summary, "rate": round(rate, 3), "in_time": round(in_time, 4)}


def knee(points: Sequence[tuple[float, dict[str, Any]]]) -> float | None:
    """The highest share up to which, from the lowest on, `IN_TIME` of all were in time; None: there is none."""
    found = None
    for share, figures in sorted(points, key=lambda point: point[0]):
        if figures["in_time"] < IN_TIME:
            break
        found = share
    return found


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """The closed loop, then the shares from the lowest on; a line for each as it ends."""
    files = [Upload(file.name, file.read_bytes()) for file in options.files]
    fields = {"language": options.language} if options.language else {}
    points: list[tuple[float, dict[str, Any]]] = []
    async with client_of(options) as client:
        await send(client, files[0], fields)
        most, audio = await saturation(client, files, fields, options)
        told = f"{most:.2f} requests, {audio:.1f} s of audio a second"
        sys.stdout.write(f"at most {told}, {options.concurrency} at once\n")
        for share in sorted(options.shares):
            figures = await point(client, files, fields, options, rate=share * most)
            points.append((share, figures))
            latency = figures["latency_s"] or dict.fromkeys(("p50", "p95", "p99"), float("nan"))
            told = "  ".join(f"{name} {latency[name]:.2f}" for name in ("p50", "p95", "p99"))
            line = f"{share:4.0%} {figures['rate']:6.2f}/s  in time {figures['in_time']:6.1%}  {told} s"
            sys.stdout.write(f"{line}  {figures['statuses']}\n")
            sys.stdout.flush()
    return {
        "bench": "sweep",
        "requests_per_second_at_most": round(most, 3),
        "audio_seconds_per_second_at_most": round(audio, 2),
        "knee": knee(points),
        "points": {f"{share:g}": figures for share, figures in points},
    }


def main(arguments: list[str] | None = None) -> int:
    """0 where every request was answered 200 or refused with 503, 1 otherwise."""
    parser = parser_of("sweep", __doc__)
    parser.set_defaults(seconds=180.0)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the most that the service does")
    parser.add_argument("--warm-up", type=float, default=10.0, help="seconds of each rate that are not counted")
    parser.add_argument("--concurrency", type=int, default=16, help="requests at once in the closed loop")
    parser.add_argument("--repeat", type=int, default=4, help="how often the closed loop sends each file")
    options = parser.parse_args(arguments)
    try:
        result = asyncio.run(run(options))
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    told = "not even the lowest" if result["knee"] is None else f"{result['knee']:.0%}"
    sys.stdout.write(f"{IN_TIME:.0%} in time up to: {told}\n{json.dumps(result)}\n")
    statuses = {status for figures in result["points"].values() for status in figures["statuses"]}
    return 0 if statuses <= {"200", "503"} else 1


if __name__ == "__main__":
    raise SystemExit(main())

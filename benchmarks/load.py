"""An open loop on a running service: requests arrive by a Poisson schedule, whatever becomes of those before them.

    python -m benchmarks.load [FILE ...] --url http://127.0.0.1:8000 --rate 2 --seconds 60

Latency counts from the moment at which a request was due, so that a slow service cannot hide its queue behind a slow
sender. Prints percentiles of the answered (all, and by how long their recordings are), of the refused and of the time
from arrival to the first segment (from the server's own histogram: {} behind a balancer, which hides it), goodput
(requests a second that were answered within `--slo-factor` times their recording plus a second), audio seconds per
second, and one JSON line. `benchmarks.sweep` does so at rising rates.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.concurrency import AUDIO, Reply, Upload, send
from benchmarks.histogram import between, first_segments

_DURATIONS = (5.0, 30.0, 300.0)
"""Seconds of recording by which latencies are told apart: a word or two, a window, some windows, a long file."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a request is due, in seconds after the start, and what it sends."""

    due: float
    file: Upload


@dataclass(frozen=True, slots=True)
class Outcome:
    """A reply (None: the connection failed), how late it was sent, and its latency from when it was due."""

    reply: Reply | None
    lateness: float
    latency: float


def schedule(files: Sequence[Upload], *, rate: float, seconds: float, seed: int) -> list[Arrival]:
    """Poisson arrivals of random files: `rate` a second on average, drawn before the clock starts."""
    draw, due, arrivals = random.Random(seed), 0.0, []
    while (due := due + draw.expovariate(rate)) < seconds:
        arrivals.append(Arrival(due, draw.choice(files)))
    return arrivals


async def offer(client: httpx.AsyncClient, arrivals: Sequence[Arrival], fields: dict[str, str]) -> list[Outcome]:
    """Send each request when it is due; outcomes in the order of arrival."""
    start = time.perf_counter()

    async def one(arrival: Arrival) -> Outcome:
        await asyncio.sleep(max(0.0, arrival.due - (time.perf_counter() - start)))
        lateness = time.perf_counter() - start - arrival.due
        try:
            reply = await send(client, arrival.file, fields)
        except httpx.HTTPError:
            reply = None
        return Outcome(reply, lateness, time.perf_counter() - start - arrival.due)

    return list(await asyncio.gather(*(one(arrival) for arrival in arrivals)))


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the worst, by the nearest rank; {} of nothing."""
    ranked = sorted(values)
    if not ranked:
        return {}
    ranks = {f"p{p}": ranked[max(0, -(-p * len(ranked) // 100) - 1)] for p in (50, 95, 99)}
    return {name: round(value, 3) for name, value in {**ranks, "max": ranked[-1]}.items()}


def is_good(outcome: Outcome, slo_factor: float) -> bool:
    """Whether it was answered, and within `slo_factor` times its recording plus a second."""
    reply = outcome.reply
    return reply is not None and reply.status == 200 and outcome.latency <= slo_factor * reply.audio_seconds + 1.0


def by_duration(answered: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """`percentiles` of the latencies of recordings that are equally long or so, by the most seconds that they have."""
    latencies: dict[float, list[float]] = {bound: [] for bound in (*_DURATIONS, float("inf"))}
    for outcome in answered:
        if outcome.reply:
            bound = next(bound for bound in latencies if outcome.reply.audio_seconds <= bound)
            latencies[bound].append(outcome.latency)
    return {f"{bound:g}": percentiles(values) for bound, values in latencies.items() if values}


def summarise(outcomes: Sequence[Outcome], *, seconds: float, slo_factor: float) -> dict[str, Any]:
    """What the service did with the load; `seconds` from the first arrival to the last answer."""
    answered = [o for o in outcomes if o.reply is not None and o.reply.status == 200]
    refused = [o for o in outcomes if o.reply is not None and o.reply.status == 503]
    good = [o for o in outcomes if is_good(o, slo_factor)]
    statuses = Counter("failed" if o.reply is None else str(o.reply.status) for o in outcomes)
    return {
        "bench": "load",
        "requests": len(outcomes),
        "statuses": dict(statuses),
        "seconds": round(seconds, 2),
        "audio_seconds_per_second": round(sum(o.reply.audio_seconds for o in answered if o.reply) / seconds, 2),
        "goodput_per_second": round(len(good) / seconds, 3),
        "latency_s": percentiles([o.latency for o in answered]),
        "latency_by_duration_s": by_duration(answered),
        "refusal_s": percentiles([o.reply.seconds for o in refused if o.reply]),
        "sent_late_s": percentiles([o.lateness for o in outcomes]),
    }


def parser_of(command: str, description: str | None) -> argparse.ArgumentParser:
    """What every open loop needs to know: the service, the files, how long, and what is good."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{command}", description=description)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(AUDIO.glob("??-*.*")))
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key", help="an API key, where the service has any")
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long requests arrive")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--language", help="named in every request; default: detected")
    parser.add_argument("--slo-factor", type=float, default=0.5)
    parser.add_argument("--timeout-seconds", type=float, default=600.0)
    return parser


def client_of(options: argparse.Namespace) -> httpx.AsyncClient:
    """As many connections as there are requests, with the key where there is one."""
    headers = {"Authorization": f"Bearer {options.key}"} if options.key else {}
    limits, timeout = httpx.Limits(max_connections=None), options.timeout_seconds
    return httpx.AsyncClient(base_url=options.url, headers=headers, timeout=timeout, limits=limits)


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Warm the service with one request, offer the load, sum up."""
    files = [Upload(file.name, file.read_bytes()) for file in options.files]
    arrivals = schedule(files, rate=options.rate, seconds=options.seconds, seed=options.seed)
    fields = {"language": options.language} if options.language else {}
    async with client_of(options) as client:
        await send(client, files[0], fields)
        before, begin = await first_segments(client), time.perf_counter()
        outcomes = await offer(client, arrivals, fields)
        seconds = time.perf_counter() - begin
        first = between(before, await first_segments(client))
        return {**summarise(outcomes, seconds=seconds, slo_factor=options.slo_factor), "first_segment_s": first}


def main(arguments: list[str] | None = None) -> int:
    """0 where every request was answered 200 or refused with 503, 1 otherwise."""
    parser = parser_of("load", __doc__)
    parser.add_argument("--rate", type=float, default=1.0, help="requests a second, on average")
    options = parser.parse_args(arguments)
    result = asyncio.run(run(options))
    for name in (
        "statuses",
        "latency_s",
        "latency_by_duration_s",
        "first_segment_s",
        "refusal_s",
        "audio_seconds_per_second",
        "goodput_per_second",
    ):
        sys.stdout.write(f"{name:25} {result[name]}\n")
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if result["statuses"].keys() <= {"200", "503"} else 1


if __name__ == "__main__":
    raise SystemExit(main())

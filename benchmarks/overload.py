"""The service's peak, then several times its peak: what the accepted, the refused and the machine feel.

    python -m benchmarks.overload [FILE ...] --times 3 --seconds 60 --queue 16 --deadline-seconds 60

Starts a service of its own, with the default arithmetic. The peak is what a closed loop of as many clients as the
queue has places gets done, the mean of before and after the overload: machines that others use too change. An open
loop (`benchmarks.load`) offers a multiple of it. Throughput counts what is answered while the load arrives, less its
first seconds; `share_by_core` is its share of the peak for each core that the workers had. Times to the first segment
are from the server's own histogram, known as finely as its buckets. Prints a line for each figure and one JSON line;
exit status 1 where a bound of R05 was missed.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.concurrency import AUDIO, Reply, Upload, send
from benchmarks.histogram import between, first_segments
from benchmarks.load import Outcome, offer, schedule, summarise
from benchmarks.service import Service, running

CLIPS = tuple(sorted(AUDIO.glob("??-*.*")))
_SAMPLE_SECONDS = 1.0
_MIB = 1 << 20


async def saturate(
    service: Service, client: httpx.AsyncClient, files: Sequence[Upload], options: argparse.Namespace
) -> dict[str, float]:
    """The throughput of a closed loop, and how many cores the workers had for it."""
    fields, used, begin = fields_of(options), service.worker_seconds(), time.perf_counter()
    ramp, end = options.ramp_seconds, options.ramp_seconds + options.peak_seconds
    replies = await loop(client, files, fields, clients=options.queue, ramp=ramp, end=end)
    return {
        "requests_per_second": round(len(replies) / options.peak_seconds, 3),
        "audio_per_second": round(sum(reply.audio_seconds for reply in replies) / options.peak_seconds, 2),
        "worker_cores": round((service.worker_seconds() - used) / (time.perf_counter() - begin), 2),
    }


def fields_of(options: argparse.Namespace) -> dict[str, str]:
    """The form's fields."""
    return {"language": options.language} if options.language else {}


async def loop(
    client: httpx.AsyncClient, files: Sequence[Upload], fields: dict[str, str], *, clients: int, ramp: float, end: float
) -> list[Reply]:
    """What is answered between second `ramp` and second `end` when each client sends again once it has its answer."""
    begin, replies = time.perf_counter(), []

    async def one(number: int) -> None:
        while time.perf_counter() - begin < end:
            reply = await send(client, files[number % len(files)], fields)
            if ramp <= time.perf_counter() - begin < end:
                replies.append(reply)
            number += clients

    await asyncio.gather(*(one(number) for number in range(clients)))
    return replies


async def watch(service: Service, samples: list[tuple[float, dict[str, int]]]) -> None:
    """Note the memory of the service's processes every second until cancelled."""
    begin = time.perf_counter()
    while True:
        samples.append((time.perf_counter() - begin, await asyncio.to_thread(service.memory)))
        await asyncio.sleep(_SAMPLE_SECONDS)


def growth(samples: Sequence[tuple[float, dict[str, int]]], process: str, requests: int) -> dict[str, float]:
    """First and last memory in MiB, and the slope (least squares) in MiB for 100 requests."""
    times, sizes = [t for t, _ in samples], [memory[process] / _MIB for _, memory in samples]
    slope = statistics.linear_regression(times, sizes).slope * (times[-1] - times[0]) / max(requests, 1) * 100
    return {"first": round(sizes[0], 1), "last": round(sizes[-1], 1), "mib_per_100_requests": round(slope, 2)}


def done_between(outcomes: Sequence[Outcome], dues: Sequence[float], ramp: float, end: float) -> float:
    """Audio seconds answered between second `ramp` and second `end` of the load."""
    return sum(
        outcome.reply.audio_seconds
        for outcome, due in zip(outcomes, dues, strict=True)
        if outcome.reply is not None and outcome.reply.status == 200 and ramp <= due + outcome.latency < end
    )


async def measure(service: Service, files: Sequence[Upload], options: argparse.Namespace) -> dict[str, Any]:
    """Warm, saturate, overload, saturate, sum up."""
    limits = httpx.Limits(max_connections=None)
    samples: list[tuple[float, dict[str, int]]] = []
    async with httpx.AsyncClient(base_url=service.url, timeout=600.0, limits=limits, trust_env=False) as client:
        for file in files:
            await send(client, file, fields_of(options))
        peaks = [await saturate(service, client, files, options)]
        rate = options.times * peaks[0]["requests_per_second"]
        arrivals = schedule(files, rate=rate, seconds=options.seconds, seed=options.seed)
        before = await first_segments(client)
        watcher = asyncio.create_task(watch(service, samples))
        used, begin = service.worker_seconds(), time.perf_counter()
        outcomes = await offer(client, arrivals, fields_of(options))
        seconds = time.perf_counter() - begin
        cores = (service.worker_seconds() - used) / seconds
        watcher.cancel()
        after = await first_segments(client)
        peaks.append(await saturate(service, client, files, options))
    dues = [arrival.due for arrival in arrivals]
    audio = done_between(outcomes, dues, options.ramp_seconds, options.seconds)
    audio_per_second = audio / (options.seconds - options.ramp_seconds)
    return {
        **summarise(outcomes, seconds=seconds, slo_factor=options.slo_factor),
        "bench": "overload",
        "peaks": peaks,
        "offered_per_second": round(rate, 3),
        "overloaded": {"audio_per_second": round(audio_per_second, 2), "worker_cores": round(cores, 2)},
        "share_of_peak": round(audio_per_second / statistics.mean(peak["audio_per_second"] for peak in peaks), 3),
        "share_by_core": round(
            audio_per_second / cores / statistics.mean(p["audio_per_second"] / p["worker_cores"] for p in peaks), 3
        )
        if cores
        else None,
        "first_segment_s": between(before, after),
        "server_mib": growth(samples, "server", len(outcomes)),
        "workers_mib": growth(samples, "workers", len(outcomes)),
    }


def missed(result: dict[str, Any], deadline_seconds: float) -> list[str]:
    """The bounds of R05 that were not kept."""
    bounds = {
        "an answer other than 200 and 503": result["statuses"].keys() <= {"200", "503"},
        "latency beyond the deadline": result["latency_s"].get("p99", 0.0) <= deadline_seconds,
        "a refusal that took more than 100 ms (p99)": result["refusal_s"].get("p99", 0.0) <= 0.1,
        "throughput below 90 % of the peak": result["share_of_peak"] >= 0.9,
        "memory that grows": result["server_mib"]["mib_per_100_requests"] < 1.0,
    }
    return [name for name, kept in bounds.items() if not kept]


def main(arguments: list[str] | None = None) -> int:
    """0 where every bound was kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=[f for f in CLIPS if f.name != "en-printing.ogg"])
    parser.add_argument("--times", type=float, default=3.0, help="the load, in peaks")
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long the load arrives")
    parser.add_argument("--compute-type", default="auto")
    parser.add_argument("--peak-seconds", type=float, default=45.0)
    parser.add_argument("--ramp-seconds", type=float, default=15.0, help="until answers come evenly: not counted")
    parser.add_argument("--queue", type=int, default=16, help="requests that the service lets in at once")
    parser.add_argument("--deadline-seconds", type=float, default=60.0)
    parser.add_argument("--slo-factor", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--language", help="named in every request; default: detected")
    options = parser.parse_args(arguments)
    files = [Upload(file.name, file.read_bytes()) for file in options.files]
    settings = {"max_queue_requests": options.queue, "request_timeout_seconds": options.deadline_seconds}
    with running(compute_type=options.compute_type, drain_notice_seconds=0, **settings) as service:
        result = asyncio.run(measure(service, files, options))
    result["missed"] = missed(result, options.deadline_seconds)
    for name, value in result.items():
        sys.stdout.write(f"{name:25} {value}\n")
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())

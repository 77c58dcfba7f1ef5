"""What a histogram of the service's metrics page saw between two readings of the page.

`benchmarks.load` and `benchmarks.overload` learn from it when first segments came, which an answer in one piece does
not show. Percentiles are known as finely as the buckets are.
"""

import re

import httpx

_FIRST_SEGMENT = "whisper_time_to_first_segment_seconds"


async def first_segments(client: httpx.AsyncClient) -> dict[float, float]:
    """The histogram of times from arrival to the first segment so far; {} where the metrics cannot be read."""
    reply = await client.get("/metrics")
    return buckets(reply.text, _FIRST_SEGMENT) if reply.status_code == 200 else {}


def buckets(page: str, name: str) -> dict[float, float]:
    """The cumulative buckets of an unlabelled histogram on a metrics page, by upper bound."""
    found = re.findall(rf'(?m)^{name}_bucket{{le="([^"]+)"}} (\S+)$', page)
    return {float(bound): float(count) for bound, count in found}


def between(before: dict[float, float], after: dict[float, float]) -> dict[str, float]:
    """p50, p95 and p99 of what a histogram saw between two scrapes, linear inside a bucket; {} if it saw nothing."""
    counts = sorted((bound, after[bound] - before.get(bound, 0.0)) for bound in after)
    total = counts[-1][1] if counts else 0.0
    result: dict[str, float] = {}
    for p in (50, 95, 99):
        rank, low, seen = p / 100 * total, 0.0, 0.0
        for bound, count in counts:
            if total and count >= rank:
                width = (bound if bound != float("inf") else low) - low
                result[f"p{p}"] = round(low + width * (rank - seen) / max(count - seen, 1.0), 3)
                break
            low, seen = bound, count
    return result

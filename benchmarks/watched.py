"""A run of the whole stack, drawn: two real replicas behind HAProxy under load, watched by Prometheus, as an SVG.

    python -m benchmarks.watched docs/metrics.svg --seconds 120 --clients 4

Clients send the clips of tests/audio one after another; halfway one replica is restarted. The panels are those of the
dashboard (`deploy.panels`), their queries asked of Prometheus for the time of the run. Needs haproxy and prometheus.
"""

import argparse
import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import httpx

from benchmarks.concurrency import AUDIO
from deploy.panels import ROWS, Panel
from tests.prometheus import Prometheus
from tests.stack import Stack

CLIPS = ("en-jfk.flac", "de-mekka.ogg", "es-arenas.flac", "fr-course.ogg", "ko-geotda.flac", "noise.flac")
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4b5563")
_WIDTH, _HEIGHT, _COLUMNS, _MAX_LINES = 380, 190, 3, 8

Line = tuple[str, list[tuple[float, float]]]
"""A legend, and points of time and value."""


async def load(url: str, clients: int, seconds: float) -> Counter[int]:
    """Clients that send clips in turn until the time is up; answers by status."""
    statuses: Counter[int] = Counter()
    end = time.monotonic() + seconds
    files = itertools.cycle((name, (AUDIO / name).read_bytes()) for name in CLIPS)

    async def client() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=900, trust_env=False) as session:
            while time.monotonic() < end:
                name, content = next(files)
                reply = await session.post("/v1/transcribe", files={"file": (name, content)})
                statuses[reply.status_code] += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return statuses


async def run(stack: Stack, clients: int, seconds: float) -> Counter[int]:
    """The load, with a restart of one replica halfway."""
    pressing = asyncio.create_task(load(stack.balancer.url, clients, seconds))
    await asyncio.sleep(seconds / 2)
    await asyncio.to_thread(stack.roll, 0)
    return await pressing


def lines_of(prometheus: Prometheus, panel: Panel, start: float, end: float, instances: Sequence[str]) -> list[Line]:
    """The panel's series over the run; replicas are called 1 and 2."""
    found: list[Line] = []
    for legend, query in panel.queries.items():
        filled = query.replace("$__rate_interval", "15s").replace("$instance", ".*")
        answer = prometheus.get("query_range", query=filled, start=str(start), end=str(end), step="1")
        for series in answer["result"]:
            name = legend
            for label, value in series["metric"].items():
                named = f"replica {instances.index(value) + 1}" if value in instances else value
                name = name.replace("{{" + label + "}}", named)
            points = [(at - start, float(value)) for at, value in series["values"] if value not in ("NaN", "+Inf")]
            if points:
                found.append((name, points))
    return found[:_MAX_LINES]


def draw(title: str, panels: Sequence[tuple[Panel, Sequence[Line]]], seconds: float) -> str:
    """A grid of graphs as SVG."""
    rows = -(-len(panels) // _COLUMNS)
    width, height = _COLUMNS * _WIDTH, rows * _HEIGHT + 40
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'{head} font-family="sans-serif" font-size="10">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    parts.append(f'<text x="12" y="24" font-size="14">{escape(title)}</text>')
    for index, (panel, lines) in enumerate(panels):
        x, y = index % _COLUMNS * _WIDTH, index // _COLUMNS * _HEIGHT + 40
        parts += [f'<g transform="translate({x} {y})">', *_graph(panel, lines, seconds), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _graph(panel: Panel, lines: Sequence[Line], seconds: float) -> list[str]:
    left, top, wide, tall = 44, 18, _WIDTH - 60, 96
    highest = max((value for _, points in lines for _, value in points), default=0.0) or 1.0
    unit = "" if panel.unit == "none" else f" ({panel.unit})"
    parts = [f'<text x="{left}" y="12" font-weight="bold">{escape(panel.title + unit)}</text>']
    for part in (0.0, 0.5, 1.0):
        at = top + tall * (1 - part)
        parts.append(f'<path d="M{left} {at:.1f}h{wide}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 4}" y="{at + 3:.1f}" text-anchor="end">{highest * part:.3g}</text>')
    for number, (name, points) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{left + at / seconds * wide:.1f},{top + tall * (1 - v / highest):.1f}" for at, v in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
        x, y = left + number % 2 * (wide // 2), top + tall + 13 + number // 2 * 12
        parts.append(f'<text x="{x}" y="{y}" fill="{colour}">{escape(name[:34])}</text>')
    return parts


def main() -> None:
    """Run, ask, draw; prints one JSON line with what became of the requests."""
    parser = argparse.ArgumentParser(description="A run of the stack, drawn.")
    parser.add_argument("target", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    threads = {"OMP_NUM_THREADS": "1", "WHISPER_THREADS_PER_WORKER": "1"}
    with (
        Stack("haproxy", module="service", **threads) as stack,
        Prometheus({"whisper": stack.ports, "balancer": [stack.balancer.metrics_port]}) as prometheus,
    ):
        prometheus.wait_scraping()
        start = time.time()
        statuses = asyncio.run(run(stack, options.clients, options.seconds))
        end = time.time()
        instances = [f"127.0.0.1:{port}" for port in stack.ports]
        panels = [(panel, lines_of(prometheus, panel, start, end, instances)) for row in ROWS.values() for panel in row]
    title = f"{options.clients} clients for {options.seconds:g} s, two replicas of base; replica 1 is restarted halfway"
    options.target.write_text(draw(title, panels, end - start))
    report: dict[str, Any] = {
        "bench": "watched",
        "seconds": round(end - start, 1),
        **{str(k): v for k, v in statuses.items()},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

"""What `benchmarks.peers` measured, as a table for people and as bars in an SVG.

A `Record` holds the rounds of one system in one scenario, each with the time that ours took in the same round: ratios
are of neighbours in time, and their median and interval are what travels to other machines.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

from benchmarks.ratio import ratio_interval

_LEFT, _BAR, _LINE, _PANEL = 190, 330, 17, 34
_OURS, _THEIRS = "#2563eb", "#9ca3af"


@dataclass(frozen=True, slots=True)
class Record:
    """One system in one scenario."""

    scenario: str
    system: str
    setup: str
    audio_seconds: float
    rounds: tuple[tuple[float, float], ...]
    """Seconds of ours and of this system, round by round."""
    peak_bytes: int
    edits: int
    words: int
    explored: dict[str, float]
    """Seconds of eight requests in every set-up, when the fastest was looked for."""

    @property
    def seconds(self) -> float:
        """Median."""
        return statistics.median(theirs for _, theirs in self.rounds)

    @property
    def speed(self) -> float:
        """Seconds of audio a second."""
        return self.audio_seconds / self.seconds


def merge(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """All records, where a newer one replaces that of the same scenario and system; the order is that of `old`."""
    records = {(record.scenario, record.system): record for record in old}
    records |= {(record.scenario, record.system): record for record in new}
    return list(records.values())


def read(path: Path) -> list[Record]:
    """The records of earlier runs; none where there is no such file."""
    if not path.exists():
        return []
    return [
        Record(**{**fields, "rounds": tuple(tuple(pair) for pair in fields["rounds"])})
        for fields in json.loads(path.read_text())["records"]
    ]


def write(path: Path, records: Sequence[Record], device: str, threads: int) -> None:
    """All records as JSON, and as bars beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    card = {"bench": "peers", "device": device, "threads": threads, "records": [asdict(record) for record in records]}
    path.write_text(json.dumps(card, indent=1) + "\n")
    path.with_suffix(".svg").write_text(draw(records, f"Base model, {device}, {threads} threads: longer is faster"))


def table(records: Sequence[Record]) -> str:
    """Markdown: a row for each record, grouped by scenario."""
    columns = ("system", "seconds", "audio s/s", "ours is faster by", "peak memory", "WER", "set-up")
    lines = []
    for scenario in dict.fromkeys(record.scenario for record in records):
        lines += [f"\n{scenario}\n", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
        lines += [f"| {' | '.join(_cells(record))} |" for record in records if record.scenario == scenario]
    return "\n".join([*lines, ""])


def _cells(record: Record) -> tuple[str, ...]:
    ratio, low, high = ratio_interval(record.rounds)
    return (
        record.system,
        f"{record.seconds:.2f}",
        f"{record.speed:.1f}",
        f"{ratio:.2f} [{low:.2f}, {high:.2f}]",
        f"{record.peak_bytes / 2**20:.0f} MB",
        f"{100 * record.edits / record.words:.1f} % of {record.words}" if record.words else "",
        record.setup,
    )


def draw(records: Sequence[Record], title: str) -> str:
    """Bars of audio seconds per second, a panel for each scenario, as SVG; longer is faster."""
    scenarios = list(dict.fromkeys(record.scenario for record in records))
    height = 40 + sum(_PANEL + _LINE * sum(one.scenario == name for one in records) for name in scenarios)
    width = _LEFT + _BAR + 150
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'{head} font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="22" font-size="14">{escape(title)}</text>',
    ]
    top = 40
    for name in scenarios:
        some = sorted((one for one in records if one.scenario == name), key=lambda one: -one.speed)
        parts.append(f'<text x="12" y="{top + 14}" font-weight="bold">{escape(name)}</text>')
        for number, record in enumerate(some):
            parts += _bar(record, top + 22 + number * _LINE, some[0].speed)
        top += _PANEL + _LINE * len(some)
    return "\n".join([*parts, "</svg>", ""])


def _bar(record: Record, y: int, fastest: float) -> list[str]:
    long = _BAR * record.speed / fastest
    colour = _OURS if record.system.startswith("ours") else _THEIRS
    ratio, _, _ = ratio_interval(record.rounds)
    return [
        f'<text x="{_LEFT - 6}" y="{y + 11}" text-anchor="end">{escape(record.system)}</text>',
        f'<rect x="{_LEFT}" y="{y + 1}" width="{long:.1f}" height="{_LINE - 4}" fill="{colour}"/>',
        f'<text x="{_LEFT + long + 5:.1f}" y="{y + 11}">{record.speed:.1f} audio s/s, {ratio:.2f} x our time</text>',
    ]

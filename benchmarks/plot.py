"""Error rate over signal-to-noise ratio as an SVG: one panel for each noise, one line for each system."""

from collections.abc import Mapping
from html import escape

from benchmarks.noise import NOISES, RATIOS

Rates = Mapping[str, Mapping[str, tuple[int, int, int, int]]]
_WIDTH, _HEIGHT, _LEFT, _TOP = 300, 220, 50, 30
_COLOURS = ("#1b6ca8", "#c0392b", "#2d8a4e", "#8e5aa8", "#b07d12")
_TEXT = "font-family='sans-serif' font-size='11' fill='#333'"


def plot(rates: Rates) -> str:
    """The whole file; `rates` as from `benchmarks.accuracy.error_rates_in_noise`."""
    shares = {
        (name, group): 100 * one[0] / max(one[3], 1) for name, groups in rates.items() for group, one in groups.items()
    }
    top = 20.0 * (max(shares.values()) // 20 + 1)
    width = len(NOISES) * (_WIDTH + _LEFT) + 20
    height = _TOP + _HEIGHT + 40 + 16 * len(rates)
    parts = [f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}'>"]
    parts.append(f"<rect width='{width}' height='{height}' fill='white'/>")
    for number, noise in enumerate(NOISES):
        parts += _panel(noise, _LEFT + number * (_WIDTH + _LEFT), top)
        for (name, colour), points in _lines(rates, shares, noise, _LEFT + number * (_WIDTH + _LEFT), top):
            parts.append(
                f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2'>"
                f"<title>{escape(name)}</title></polyline>"
            )
    for row, (name, colour) in enumerate(zip(rates, _COLOURS, strict=False)):
        y = _TOP + _HEIGHT + 42 + 16 * row
        parts.append(f"<line x1='{_LEFT}' y1='{y}' x2='{_LEFT + 24}' y2='{y}' stroke='{colour}' stroke-width='2'/>")
        parts.append(f"<text x='{_LEFT + 30}' y='{y + 4}' {_TEXT}>{escape(name)}</text>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _lines(
    rates: Rates, shares: Mapping[tuple[str, str], float], noise: str, left: int, top: float
) -> list[tuple[tuple[str, str], str]]:
    groups = ["clean", *(f"{noise} {ratio} dB" for ratio in RATIOS)]
    lines = []
    for name, colour in zip(rates, _COLOURS, strict=False):
        places = (
            f"{_x(left, i):.1f},{_TOP + _HEIGHT * (1 - shares[name, group] / top):.1f}"
            for i, group in enumerate(groups)
        )
        lines.append(((name, colour), " ".join(places)))
    return lines


def _panel(noise: str, left: int, top: float) -> list[str]:
    parts = [f"<text x='{left}' y='18' {_TEXT} font-weight='bold'>{noise} noise, error rate in %</text>"]
    for step in range(5):
        y = _TOP + _HEIGHT * step / 4
        parts.append(f"<line x1='{left}' y1='{y}' x2='{left + _WIDTH}' y2='{y}' stroke='#ddd'/>")
        parts.append(f"<text x='{left - 6}' y='{y + 4}' {_TEXT} text-anchor='end'>{top * (4 - step) / 4:.0f}</text>")
    for i, label in enumerate(["clean", *(f"{ratio} dB" for ratio in RATIOS)]):
        parts.append(f"<text x='{_x(left, i)}' y='{_TOP + _HEIGHT + 16}' {_TEXT} text-anchor='middle'>{label}</text>")
    return parts


def _x(left: int, index: int) -> float:
    return left + 12 + index * (_WIDTH - 24) / len(RATIOS)

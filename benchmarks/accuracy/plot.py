"""The accuracy report's pictures as PNG: error rate over signal-to-noise ratio, and by language.

Drawn without `pyplot`, which keeps figures and settings in its module. Colours are those of Okabe and Ito, which people
with any colour vision tell apart; each system has a mark of its own besides.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.accuracy.noise import CLEAN, NOISES, RATIOS, group_name
from benchmarks.accuracy.summary import Row
from benchmarks.accuracy.tables import LABELS

_STYLES = {"ours": ("#0072B2", "o", "-"), "reference": ("#D55E00", "s", "--"), "faster-whisper": ("#009E73", "^", ":")}
_DPI = 110


def noise_figure(rows: Sequence[Row]) -> Figure:
    """A panel for each noise, a line for each system; `rows` are those of `noise` in `benchmarks.accuracy.summary`."""
    by_group = {row["group"]: row["systems"] for row in rows}
    figure = Figure(figsize=(8.5, 3.8), layout="constrained")
    panels = figure.subplots(1, len(NOISES), sharey=True)
    for panel, noise in zip(panels, NOISES, strict=True):
        groups = [CLEAN, *(group_name(noise, ratio) for ratio in RATIOS)]
        for system in by_group[CLEAN]:
            colour, mark, line = _STYLES[system]
            rates = [by_group[group][system]["rate"] for group in groups]
            panel.plot(rates, color=colour, marker=mark, linestyle=line, label=LABELS[system])
        panel.set_title("white noise" if noise == "white" else noise)
        panel.set_xticks(range(len(groups)), [CLEAN, *(f"{ratio} dB" for ratio in RATIOS)])
        panel.set_xlabel("speech over noise")
        _quiet(panel)
    panels[0].set_ylabel("word error rate, %")
    panels[0].set_ylim(bottom=0)
    panels[0].legend(frameon=False)
    return figure


def language_figure(rows: Sequence[Row]) -> Figure:
    """A bar for each system and language; `rows` are those of `error_rates`, grouping `language`."""
    systems = list(rows[0]["systems"])
    ordered = sorted(rows, key=lambda row: float(row["systems"][systems[0]]["rate"]))
    places, width = np.arange(len(ordered)), 0.8 / len(systems)
    figure = Figure(figsize=(8.5, 3.8), layout="constrained")
    panel = figure.subplots()
    for number, system in enumerate(systems):
        rates = [row["systems"][system]["rate"] for row in ordered]
        offset = (number - (len(systems) - 1) / 2) * width
        panel.bar(places + offset, rates, width, color=_STYLES[system][0], label=LABELS[system])
    names = [f"{row['group']}{'*' if row['metric'] == 'CER' else ''}\n{row['clips']}" for row in ordered]
    panel.set_xticks(places, names)
    panel.set_xlabel("language (* by character) and its clips")
    panel.set_ylabel("error rate, %")
    panel.legend(frameon=False)
    _quiet(panel)
    return figure


def save(figure: Figure, path: Path) -> None:
    """As PNG, the same bytes for the same figures."""
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})


def _quiet(panel: Axes) -> None:
    panel.grid(axis="y", color="#dddddd")
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)

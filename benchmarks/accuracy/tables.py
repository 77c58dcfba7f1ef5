"""Tables of the accuracy report, a function each: figures of `benchmarks.accuracy.summary` to Markdown. Pure.

A table of what was not measured is an empty string.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.accuracy.summary import OURS, REFERENCE, Row

LABELS = {OURS: "this project", REFERENCE: "openai-whisper", "faster-whisper": "faster-whisper, VAD"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under a head; nothing without a row."""
    lines = [_line(row) for row in rows]
    return "\n".join([_line(head), _line(["---"] * len(head)), *lines]) + "\n" if lines else ""


def labels(systems: Iterable[str]) -> list[str]:
    """What the report calls them."""
    return [LABELS[name] for name in systems]


def error_table(rows: Sequence[Row], grouping: str) -> str:
    """Error rate of every system in each group, and what the corpus can tell of the difference."""
    chosen = [row for row in rows if row["grouping"] == grouping]
    if not chosen:
        return ""
    systems = list(chosen[0]["systems"])
    compared = any(row["difference"] for row in chosen)
    head = ["", "", "clips", *labels(systems), *(["difference, 95 %"] if compared else [])]
    lines = []
    for row in chosen:
        name = grouping if grouping == "all" else row["group"].removesuffix(f", {row['metric']}")
        cells = [_rate(row["systems"][system]) for system in systems]
        lines.append([name, row["metric"], str(row["clips"]), *cells, *([_interval(row)] if compared else [])])
    return table(head, lines)


def loss_table(rows: Sequence[Row], first: str) -> str:
    """Error rate, lost and invented words of every system in each group."""
    if not rows:
        return ""
    systems = list(rows[0]["systems"])
    compared = any(row["difference"] for row in rows)
    named = [f"{label}: error rate, lost, invented" for label in labels(systems)]
    head = [first, "recordings", "said", *named, *(["difference, 95 %"] if compared else [])]
    lines = []
    for row in rows:
        cells = [row["systems"][system] for system in systems]
        shown = [f"{_percent(cell['rate'])}, {cell['lost']}, {cell['invented']}" for cell in cells]
        shown += [_interval(row)] if compared else []
        lines.append([row["group"], str(row["clips"]), str(cells[0]["tokens"]), *shown])
    return table(head, lines)


def invention_table(rows: Sequence[Row]) -> str:
    """Words invented a minute and words lost, a line for each system in each group."""
    lines = []
    for row in rows:
        for system, cell in row["systems"].items():
            lost = f"{cell['lost']} of {cell['tokens']}" if cell["tokens"] else ""
            invented, speed = str(cell["invented"]), f"{cell['invented_a_minute']:.2f}"
            lines.append([row["group"], f"{row['minutes']:.1f}", LABELS[system], invented, speed, lost])
    return table(["", "minutes", "system", "words invented", "a minute", "words lost"], lines)


def invention_verdict(rows: Sequence[Row]) -> str:
    """This project beside the least inventive of the others, over everything."""
    systems = rows[-1]["systems"]
    others = [name for name in systems if name != OURS]
    if not others:
        return ""
    best = min(others, key=lambda name: int(systems[name]["invented"]))
    ours, theirs = systems[OURS], systems[best]
    share = f", {ours['invented'] / theirs['invented']:.2f} times as many" if theirs["invented"] else ""
    lost = ", ".join(f"{LABELS[name]} {systems[name]['lost']}" for name in others)
    return (
        f"Together this project invents {ours['invented']} words where {LABELS[best]}, the least inventive of the"
        f" others, invents {theirs['invented']}{share}; it loses {ours['lost']} words ({lost}).\n"
    )


def skipped_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What this project says that it left out."""
    lines = [[row["pass"], row["reason"], str(row["recordings"]), f"{row['seconds']:.1f}"] for row in rows]
    return table(["pass", "reason", "recordings", "seconds"], lines)


def nospeech_table(rows: Sequence[Row]) -> str:
    """How many recordings without speech get words."""
    lines = [
        [row["group"], LABELS[system], str(row["clips"]), str(cell["clips_with_words"]), str(cell["invented"])]
        for row in rows
        for system, cell in row["systems"].items()
    ]
    return table(["sounds", "system", "recordings", "with words", "words"], lines)


def language_table(languages: Mapping[str, Any]) -> str:
    """How often the language was found."""
    lines = [
        [LABELS[name], f"{found['right']} of {found['clips']}", _percent(100 * found["right"] / found["clips"])]
        for name, found in languages.items()
        if found["clips"]
    ]
    return table(["system", "right", ""], lines)


def confusion_table(found: Mapping[str, Any]) -> str:
    """Spoken languages down, found languages across; only those that were confused."""
    counts = {(pair["true"], pair["found"]): pair["clips"] for pair in found["confusions"]}
    rows, columns = (sorted({pair[side] for pair in counts}) for side in (0, 1))
    lines = []
    for true in rows:
        wrong = [counts.get((true, other), 0) for other in columns]
        clips = found["spoken"][true]
        lines.append([true, str(clips), str(clips - sum(wrong)), *(str(count or "") for count in wrong)])
    return table(["spoken", "clips", "right", *(f"as {other}" for other in columns)], lines)


def translation_table(translation: Mapping[str, Any]) -> str:
    """Corpus scores of every system."""
    lines = [
        [LABELS[name], str(cell["clips"]), f"{cell['bleu']:.2f}", f"{cell['chrf']:.2f}"]
        for name, cell in translation.items()
    ]
    return table(["system", "clips", "BLEU", "chrF"], lines)


def parity_table(parity: Mapping[str, Any]) -> str:
    """How many answers are the reference's, token for token."""
    lines = [
        [name, str(cell["clips"]), str(cell["same_text"]), str(cell["equal"]), str(cell["same_times"])]
        for name, cell in parity.items()
    ]
    return table(["pass", "clips", "same text", "same tokens", "and same times"], lines)


def difference_table(differences: Sequence[Mapping[str, Any]]) -> str:
    """Where the first differing choice of a recording was, and how close."""
    lines = []
    for item in differences:
        place = item["divergence"] or {}
        gap = item["gap"] if item["gap"] is not None else place.get("margin")
        cells = (place.get("window"), place.get("temperature"), place.get("position"))
        shown = ["" if cell is None else str(cell) for cell in cells]
        gap_cell = "" if gap is None else f"{gap:.6f}"
        lines.append([item["pass"], item["file"], item["reason"], *shown, gap_cell, item["detail"]])
    return table(["pass", "file", "reason", "window", "t", "position", "gap", "detail"], lines)


def _rate(cell: Mapping[str, Any]) -> str:
    return f"{_percent(cell['rate'], 2)} ({cell['edits']}/{cell['tokens']})"


def _percent(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f} %"


def _interval(row: Row) -> str:
    return "" if row["difference"] is None else "{:+.2f} to {:+.2f}".format(*row["difference"])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

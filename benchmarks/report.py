"""The JSON report of `benchmarks.evaluate` as Markdown tables."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any


def markdown(report: dict[str, Any]) -> str:
    """All tables of a report, ending with a newline."""
    systems = report["systems"]
    parts = [
        f"# {report['corpus']}: {report['model']}, {report['device']}, {report['compute_type']}",
        _error_rates(report, systems),
        _languages(report, systems),
        _nospeech(report, systems),
        _translation(report, systems),
        _parity(report),
        _undecodable(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _error_rates(report: dict[str, Any], systems: Sequence[str]) -> str:
    rows = []
    for row in report["error_rates"]:
        cells = [row["systems"][name] for name in systems]
        rates = [f"{cell['rate']:.2f} % ({cell['edits']}/{cell['tokens']})" for cell in cells]
        rows.append([row["grouping"], row["group"], row["metric"], str(row["clips"]), *rates])
    return _table("Error rates, language given", ["by", "group", "metric", "clips", *systems], rows)


def _languages(report: dict[str, Any], systems: Sequence[str]) -> str:
    rows = []
    for name in systems:
        found = report["languages"][name]
        pairs = ", ".join(f"{pair['true']} as {pair['found']} ({pair['clips']})" for pair in found["confusions"])
        rows.append([name, f"{found['right']}/{found['clips']}", f"{found['accuracy']:.2f} %", pairs])
    return _table(
        "Language identification", ["system", "right", "accuracy", "confused"], rows, skip=not _any(report, "languages")
    )


def _nospeech(report: dict[str, Any], systems: Sequence[str]) -> str:
    rows = [
        [name, str(cell["clips"]), str(cell["clips_with_words"]), str(cell["words"])]
        for name in systems
        for cell in [report["nospeech"][name]]
    ]
    head = ["system", "clips", "clips with words", "words"]
    return _table("Clips on which nobody speaks", head, rows, skip=not _any(report, "nospeech"))


def _translation(report: dict[str, Any], systems: Sequence[str]) -> str:
    rows = [
        [name, str(cell["clips"]), f"{cell['bleu']:.2f}", f"{cell['chrf']:.2f}"]
        for name in systems
        if (cell := report["translation"][name])
    ]
    return _table("Translation to English", ["system", "clips", "BLEU", "chrF"], rows, skip=not rows)


def _parity(report: dict[str, Any]) -> str:
    rows = []
    for name, cell in report["parity"].items():
        reasons = Counter(item["reason"] for item in report["differences"][name])
        equal = f"{cell['equal']}/{cell['clips']} ({cell['share']:.2f} %)"
        times = f"{cell['same_times']}/{cell['equal']}"
        rows.append([name, equal, times, ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())])
    head = ["pass", "clips with equal tokens", "of these with equal times", "differences by reason"]
    tables = [_table("Parity with the reference", head, rows, skip=not rows)]
    for name, items in report["differences"].items():
        listed = [_difference(item) for item in items]
        head = ["file", "reason", "window", "t", "position", "gap", "detail"]
        tables.append(_table(f"Clips that differ, pass {name}", head, listed, skip=not listed))
    return "\n\n".join(table for table in tables if table)


def _difference(item: dict[str, Any]) -> list[str]:
    place = item["divergence"] or {}
    gap = item["gap"] if item["gap"] is not None else place.get("margin")
    cells = (
        place.get("window"),
        place.get("temperature"),
        place.get("position"),
        None if gap is None else f"{gap:.6f}",
    )
    return [item["file"], item["reason"], *("" if cell is None else str(cell) for cell in cells), item["detail"]]


def _undecodable(report: dict[str, Any]) -> str:
    rows = [[file, why] for file, why in report["undecodable"].items()]
    return _table("Files that were refused", ["file", "why"], rows, skip=not rows)


def _any(report: dict[str, Any], part: str) -> bool:
    return any(cell["clips"] for cell in report[part].values())


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, skip: bool = False) -> str:
    if skip:
        return ""
    lines = [f"## {title}", "", _line(head), _line(["---"] * len(head)), *(_line(row) for row in rows)]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

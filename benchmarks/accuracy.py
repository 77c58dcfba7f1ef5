"""docs/accuracy.md and its plot, from what `benchmarks.evaluate` and `benchmarks.robustness` wrote.

    python -m benchmarks.accuracy docs --evaluation NAME=FILE.json ... --noise NAME=FILE.jsonl ...

Systems stand side by side; a figure is over the clips that every system of its table has answers for, and says over how
many. Nothing is measured here.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from benchmarks.noise import NOISES, RATIOS
from benchmarks.plot import plot
from benchmarks.scoring import Scorer

Answers = dict[str, dict[str, Any]]
"""By name of the item."""
_NOTHING = ("corpus", "synthetic")
_GROUPS = ("clean", *(f"{kind} {ratio} dB" for kind in NOISES for ratio in RATIOS))
_INTRODUCTION = """# Accuracy

Written by `python -m benchmarks.accuracy` from what `make evaluate` and `python -m benchmarks.robustness` measured, on
2026-11-22 with the base model on two virtual cores (AVX2, no GPU). Error rates are word errors after Whisper's own
normalisation, character errors (CER) for Chinese and Japanese. openai-whisper and faster-whisper (1.2.1) run the same
weights; openai-whisper in float32, greedy with its fallback ladder; faster-whisper in int8 with its defaults (five
beams) and `vad_filter`. What was tried, and the circumstances of every figure: [LOG.md](../benchmarks/LOG.md).
"""


def main(arguments: list[str] | None = None) -> int:
    """Write the report and the plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--evaluation", nargs="+", default=[], metavar="NAME=FILE")
    parser.add_argument("--noise", nargs="+", default=[], metavar="NAME=FILE")
    options = parser.parse_args(arguments)
    evaluations = [(name, json.loads(path.read_text(encoding="utf-8"))) for name, path in _pairs(options.evaluation)]
    noise = {name: read_answers(path) for name, path in _pairs(options.noise)}
    rates = error_rates_in_noise(noise)
    parts = [_INTRODUCTION, *_evaluated(evaluations), invented(noise), in_noise(rates, len(complete(noise)))]
    (options.folder / "accuracy.md").write_text("\n".join(part for part in parts if part), encoding="utf-8")
    (options.folder / "accuracy-noise.svg").write_text(plot(rates), encoding="utf-8")
    return 0


def read_answers(path: Path) -> Answers:
    """The answers of `benchmarks.robustness` by name."""
    entries = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {entry["name"]: entry for entry in entries}


def invented(systems: Mapping[str, Answers]) -> str:
    """A table of words on sounds without speech."""
    scorer = Scorer()
    shared = _shared(systems, _NOTHING)
    lines = _head("Words where nobody speaks", ("system", "sounds", "clips", "clips with words", "words", "a minute"))
    for name, answers in systems.items():
        for group in _NOTHING:
            chosen = [answers[item] for item in shared if answers[item]["group"] == group]
            words = [scorer.words(one["text"]) for one in chosen]
            minutes = sum(one["seconds"] for one in chosen) / 60
            with_words = str(sum(count > 0 for count in words))
            lines += _row(name, group, str(len(chosen)), with_words, str(sum(words)), f"{sum(words) / minutes:.2f}")
    return "\n".join(lines) + "\n"


def error_rates_in_noise(systems: Mapping[str, Answers]) -> dict[str, dict[str, tuple[int, int, int, int]]]:
    """Edits, lost words, invented words and words said, by system and group, over the clips that all have answered."""
    scorer = Scorer()
    clips = complete(systems)
    rates: dict[str, dict[str, tuple[int, int, int, int]]] = {}
    for name, answers in systems.items():
        rates[name] = {}
        for group in _GROUPS:
            chosen = [one for one in answers.values() if one["group"] == group and _clip(one) in clips]
            rates[name][group] = _errors(chosen, scorer)
    return rates


def in_noise(rates: Mapping[str, Mapping[str, tuple[int, int, int, int]]], clips: int) -> str:
    """A table of errors in noise, over so many clips."""
    lines = _head(
        f"Speech in noise, {clips} clips", ("noise", *(f"{name}: error rate, lost, invented" for name in rates))
    )
    said = {group: one[3] for group, one in next(iter(rates.values())).items()}
    for group, words in said.items():
        cells = [
            f"{100 * edits / words:.1f} %, {lost}, {new}" for edits, lost, new, _ in (r[group] for r in rates.values())
        ]
        lines += _row(f"{group} ({words} words)", *cells)
    totals = [[sum(one[i] for one in groups.values()) for i in range(4)] for groups in rates.values()]
    cells = [f"{100 * edits / words:.1f} %, {lost}, {new}" for edits, lost, new, words in totals]
    lines += _row(f"all ({totals[0][3]} words)", *cells)
    return "\n".join([*lines, "", "![Error rate over signal-to-noise ratio](accuracy-noise.svg)"]) + "\n"


def _evaluated(evaluations: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    parts = [_error_table(evaluations)]
    languages = [(name, which, found) for name, one in evaluations for which, found in one["languages"].items()]
    lines = _head("Language identification", ("system", "right", "confused (spoken as found)"))
    for name, which, found in languages:
        if found["clips"]:
            pairs = ", ".join(f"{pair['true']} as {pair['found']} {pair['clips']}" for pair in found["confusions"])
            lines += _row(_label(name, which), f"{found['right']} of {found['clips']}", pairs)
    parts.append("\n".join(lines) + "\n")
    lines = _head("Translation to English", ("system", "clips", "BLEU", "chrF"))
    for name, one in evaluations:
        for which, cell in one["translation"].items():
            if cell:
                lines += _row(_label(name, which), str(cell["clips"]), f"{cell['bleu']:.2f}", f"{cell['chrf']:.2f}")
    return [*parts, "\n".join(lines) + "\n"]


def _error_table(evaluations: Sequence[tuple[str, dict[str, Any]]]) -> str:
    columns: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for name, one in evaluations:
        for row in one["error_rates"]:
            for which, cell in row["systems"].items():
                entry = cell | {"clips": row["clips"], "metric": row["metric"]}
                columns.setdefault(_label(name, which), {})[row["grouping"], row["group"]] = entry
    lines = _head("Error rates, language named", ("by", "", "clips", *columns))
    for grouping, group in next(iter(columns.values()), {}):
        if grouping == "language and kind":
            continue
        cells = [column.get((grouping, group)) for column in columns.values()]
        clips = max((cell["clips"] for cell in cells if cell), default=0)
        shown = [f"{cell['rate']:.2f} % ({cell['edits']}/{cell['tokens']})" if cell else "" for cell in cells]
        lines += _row(grouping, group, str(clips), *shown)
    return "\n".join(lines) + "\n"


def _label(name: str, which: str) -> str:
    return name if which == "ours" else "openai-whisper"


def _errors(chosen: Sequence[dict[str, Any]], scorer: Scorer) -> tuple[int, int, int, int]:
    edits = lost = new = words = 0
    for one in chosen:
        said, printed = (scorer.tokens(one[key], one["language"]) for key in ("said", "text"))
        steps = Levenshtein.editops(said, printed)
        edits, words = edits + len(steps), words + len(said)
        lost += sum(step.tag == "delete" for step in steps)
        new += sum(step.tag == "insert" for step in steps)
    return edits, lost, new, words


def _shared(systems: Mapping[str, Answers], groups: Sequence[str]) -> list[str]:
    first, *others = systems.values()
    return [name for name, one in first.items() if one["group"] in groups and all(name in other for other in others)]


def complete(systems: Mapping[str, Answers]) -> set[str]:
    """Clips that every system has answered in every noise."""
    shared = _shared(systems, _GROUPS)
    clips = [_clip(next(iter(systems.values()))[name]) for name in shared]
    return {clip for clip in clips if clips.count(clip) == len(_GROUPS)}


def _clip(answer: dict[str, Any]) -> str:
    return str(answer["name"]).removesuffix(f", {answer['group']}")


def _pairs(arguments: Sequence[str]) -> list[tuple[str, Path]]:
    return [(name, Path(path)) for name, _, path in (argument.rpartition("=") for argument in arguments)]


def _head(title: str, columns: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *_row(*columns), *_row(*(["---"] * len(columns)))]


def _row(*cells: str) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]


if __name__ == "__main__":
    sys.exit(main())

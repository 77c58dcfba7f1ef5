"""Outcomes of an evaluation, added up: every figure of the report, by system.

Gets `Outcome`s from `benchmarks.evaluate`, gives a dictionary that is the JSON report and that
`benchmarks.accuracy.report` writes out. Pure.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.accuracy.items import CLIP_PASSES, PASSES, Item
from benchmarks.accuracy.noise import CLEAN, NOISES
from benchmarks.accuracy.parity import timestamps_equal, tokens_of
from benchmarks.accuracy.scoring import CHARACTER_LANGUAGES, Errors, Scorer, translation_score
from model.segments import Transcription

OURS, REFERENCE = "ours", "reference"
LANGUAGE_KINDS = ("read", "spontaneous", "longform")
LANGUAGE_SECONDS = 2.0
"""Language identification is counted where there is enough speech to tell."""
_DRAWS = 2000
_NAMES = {"white": "white noise", "babble": "babble"}
_FEW = 5
"""Fewer clips say nothing about an interval."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the systems answered to one item."""

    item: Item
    answers: dict[str, Transcription]
    """By system."""

    def as_json(self) -> dict[str, Any]:
        """What a person looks up later."""
        return {
            **asdict(self.item),
            "answers": {
                name: {"language": answer.language, "text": answer.text, "segments": len(answer.segments)}
                for name, answer in self.answers.items()
            },
        }


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Every figure, by pass; a pass that was not run has none."""
    scorer = Scorer()
    passes = {name: [one for one in outcomes if one.item.pass_name == name] for name in PASSES}
    translated = passes["translate"]
    return {
        "error_rates": error_rates(passes["given"], scorer),
        "error_rates_detected": error_rates(passes["auto"], scorer),
        "languages": {name: languages(passes["auto"], name) for name in _systems(passes["auto"])},
        "translation": {name: _translation(translated, name) for name in _systems(translated)},
        "longform": [*_by_group(passes["longform"], scorer), *_together(passes["longform"], scorer)],
        "nospeech": [*_by_group(passes["nospeech"], scorer), *_together(passes["nospeech"], scorer)],
        "noise": [*_by_group(passes["noise"], scorer), *_together(passes["noise"], scorer)],
        "skipped": skipped(outcomes),
        "invention": invention(passes["nospeech"], passes["noise"], scorer),
        "parity": {
            name: _parity(chosen)
            for name in CLIP_PASSES
            if (chosen := [one for one in passes[name] if {OURS, REFERENCE} <= one.answers.keys()])
        },
    }


def error_rates(outcomes: Sequence[Outcome], scorer: Scorer) -> list[Row]:
    """Rows for all, for each language, for each kind, and for each of both together; words and characters apart."""
    groupings: dict[str, Callable[[Item], str]] = {
        "all": lambda item: metric(item.spoken),
        "language": lambda item: str(item.spoken),
        "kind": lambda item: f"{item.group}, {metric(item.spoken)}",
        "origin": lambda item: f"{item.origin}, {metric(item.spoken)}",
        "language and kind": lambda item: f"{item.spoken} {item.group}",
    }
    scored = [one for one in outcomes if one.item.text and one.item.spoken]
    rows = []
    for grouping, group_of in groupings.items():
        for group in sorted({group_of(one.item) for one in scored}):
            members = [one for one in scored if group_of(one.item) == group]
            kind = {"grouping": grouping, "metric": metric(members[0].item.spoken)}
            rows.append({**kind, **_row(group, members, scorer)})
    return rows


def invention(nospeech: Sequence[Outcome], noise: Sequence[Outcome], scorer: Scorer) -> list[Row]:
    """Rows for sounds without speech, for speech in each noise, and for all of these together."""
    groups = {"sounds without speech": list(nospeech)} | {
        f"speech in {_NAMES[name]}": [one for one in noise if one.item.group.startswith(f"{name} ")] for name in NOISES
    }
    # Speech that nobody disturbed is not what is asked about.
    noisy = [one for one in noise if one.item.group != CLEAN]
    groups["together"] = [*nospeech, *noisy]
    return [_row(group, members, scorer) for group, members in groups.items() if members]


def skipped(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """What our answers say that they left out (`warnings`), by pass and reason."""
    found: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for one in outcomes:
        for left in one.answers[OURS].warnings:
            where = found.setdefault((one.item.pass_name, left.reason), [])
            where.append((f"{one.item.name}, {one.item.group}", left.end - left.start))
    return [
        {
            "pass": pass_name,
            "reason": reason,
            "recordings": len({name for name, _ in places}),
            "seconds": round(sum(seconds for _, seconds in places), 2),
        }
        for (pass_name, reason), places in found.items()
    ]


def metric(language: str | None) -> str:
    """WER, or CER for a language written without spaces."""
    return "CER" if language in CHARACTER_LANGUAGES else "WER"


def languages(outcomes: Iterable[Outcome], system: str) -> dict[str, Any]:
    """How often the language was found, and which was taken for which."""
    counted = [
        (one.item.spoken, one.answers[system].language)
        for one in outcomes
        if one.item.group in LANGUAGE_KINDS and one.item.spoken and one.item.seconds >= LANGUAGE_SECONDS
    ]
    confusions = Counter(pair for pair in counted if pair[0] != pair[1])
    return {
        "clips": len(counted),
        "right": sum(true == found for true, found in counted),
        "spoken": dict(sorted(Counter(str(true) for true, _ in counted).items())),
        "confusions": [{"true": a, "found": b, "clips": count} for (a, b), count in confusions.most_common()],
    }


def difference_interval(pairs: Sequence[tuple[Errors, Errors]]) -> tuple[float, float] | None:
    """Points of error rate that the first system has more than the second: 95 % of a bootstrap over the clips."""
    if len(pairs) < _FEW:
        return None
    edits = np.array([one.edits - other.edits for one, other in pairs])
    tokens = np.array([one.tokens for one, _ in pairs])
    drawn = np.random.default_rng(0).integers(len(pairs), size=(_DRAWS, len(pairs)))
    low, high = np.percentile(100 * edits[drawn].sum(1) / tokens[drawn].sum(1), (2.5, 97.5))
    return round(float(low), 2), round(float(high), 2)


def _by_group(outcomes: Sequence[Outcome], scorer: Scorer) -> list[Row]:
    """In the order in which the groups came."""
    groups = dict.fromkeys(one.item.group for one in outcomes)
    return [_row(group, [one for one in outcomes if one.item.group == group], scorer) for group in groups]


def _together(outcomes: Sequence[Outcome], scorer: Scorer) -> list[Row]:
    return [_row("all", outcomes, scorer)] if outcomes else []


def _row(group: str, members: Sequence[Outcome], scorer: Scorer) -> Row:
    errors = {name: [_errors(one, name, scorer) for one in members] for name in _systems(members)}
    seconds = sum(one.item.seconds for one in members)
    interval = None
    if members[0].item.text and {OURS, REFERENCE} <= errors.keys():
        interval = difference_interval(_paired(members, errors))
    return {
        "group": group,
        "clips": len(members),
        "minutes": round(seconds / 60, 3),
        "difference": interval,
        "systems": {name: _cell(counts, seconds) for name, counts in errors.items()},
    }


def _paired(members: Sequence[Outcome], errors: dict[str, list[Errors]]) -> list[tuple[Errors, Errors]]:
    """Errors of both by recording: one that comes in several noises is drawn as a whole."""
    pairs: dict[str, tuple[Errors, Errors]] = {}
    for one, ours, reference in zip(members, errors[OURS], errors[REFERENCE], strict=True):
        before = pairs.get(one.item.name, (Errors(), Errors()))
        pairs[one.item.name] = before[0] + ours, before[1] + reference
    return list(pairs.values())


def _cell(counts: Sequence[Errors], seconds: float) -> dict[str, Any]:
    total = sum(counts, Errors())
    return {
        **asdict(total),
        "rate": round(total.rate, 4) if total.tokens else None,
        "invented_a_minute": round(60 * total.invented / seconds, 4) if seconds else None,
        "clips_with_words": sum(count.invented > 0 for count in counts if not count.tokens),
    }


def _errors(outcome: Outcome, system: str, scorer: Scorer) -> Errors:
    said, printed = outcome.item.text, outcome.answers[system].text
    return scorer.errors(said, printed, outcome.item.spoken) if said else scorer.invented(printed)


def _systems(outcomes: Sequence[Outcome]) -> list[str]:
    """Those that answered every one, in their order."""
    first = outcomes[0].answers if outcomes else {}
    return [name for name in first if all(name in one.answers for one in outcomes)]


def _translation(outcomes: Sequence[Outcome], system: str) -> dict[str, Any]:
    references = [str(one.item.text) for one in outcomes]
    return asdict(translation_score(references, [one.answers[system].text.strip() for one in outcomes]))


def _parity(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    pairs = [(one.answers[OURS], one.answers[REFERENCE]) for one in outcomes]
    equal = [pair for pair in pairs if tokens_of(pair[0]) == tokens_of(pair[1])]
    return {
        "clips": len(pairs),
        "equal": len(equal),
        "share": 100 * len(equal) / len(pairs),
        "same_times": sum(timestamps_equal(*pair) for pair in equal),
        "same_text": sum(ours.text.strip() == reference.text.strip() for ours, reference in pairs),
    }

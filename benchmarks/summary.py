"""Outcomes of an evaluation, added up: error rates, languages, words on silence, translation, parity."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.corpus import NO_SPEECH, Clip
from benchmarks.parity import share_equal
from benchmarks.scoring import CHARACTER_LANGUAGES, Errors, Scorer, translation_score
from model.segments import Transcription

LANGUAGE_KINDS = ("read", "spontaneous", "longform")
LANGUAGE_SECONDS = 2.0
"""Language identification is counted where there is enough speech to tell."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One clip in one pass."""

    pass_name: str
    clip: Clip
    answers: dict[str, Transcription]
    """By system."""
    equal: bool | None = None
    """Whether the tokens of all segments are the reference's; None without a reference."""
    same_times: bool | None = None

    def as_json(self) -> dict[str, Any]:
        """What a person looks up later."""
        return {
            "pass": self.pass_name,
            "file": self.clip.file,
            "reference_text": self.clip.text,
            "equal": self.equal,
            "same_times": self.same_times,
            "answers": {
                name: {"language": answer.language, "text": answer.text, "segments": len(answer.segments)}
                for name, answer in self.answers.items()
            },
        }


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Every figure of the report, by system."""
    scorer = Scorer()
    systems = sorted({name for outcome in outcomes for name in outcome.answers})
    given, auto, translate = (
        [outcome for outcome in outcomes if outcome.pass_name == name] for name in ("given", "auto", "translate")
    )
    return {
        "systems": systems,
        "error_rates": _error_rates(given, systems, scorer),
        "languages": {name: _languages(auto, name) for name in systems},
        "nospeech": {name: _nospeech(auto, name, scorer) for name in systems},
        "translation": {name: _translation(translate, name) for name in systems},
        "parity": {
            name: _parity(chosen)
            for name, chosen in (("given", given), ("auto", auto), ("translate", translate))
            if any(outcome.equal is not None for outcome in chosen)
        },
    }


def _error_rates(outcomes: Sequence[Outcome], systems: Sequence[str], scorer: Scorer) -> list[dict[str, Any]]:
    scored = [outcome for outcome in outcomes if outcome.clip.text]
    errors = {
        (name, outcome.clip.file): scorer.errors(
            outcome.clip.text or "", outcome.answers[name].text, outcome.clip.language
        )
        for outcome in scored
        for name in systems
    }
    groupings: dict[str, Callable[[Clip], str]] = {
        "all": lambda clip: metric(clip.language),
        "language": lambda clip: str(clip.language),
        "kind": lambda clip: f"{clip.kind}, {metric(clip.language)}",
        "language and kind": lambda clip: f"{clip.language} {clip.kind}",
    }
    rows = []
    for grouping, group_of in groupings.items():
        for group in sorted({group_of(outcome.clip) for outcome in scored}):
            members = [outcome for outcome in scored if group_of(outcome.clip) == group]
            sums = {name: sum((errors[name, member.clip.file] for member in members), Errors()) for name in systems}
            rows.append(
                {
                    "grouping": grouping,
                    "group": group,
                    "metric": metric(members[0].clip.language),
                    "clips": len(members),
                    "systems": {name: {**asdict(total), "rate": total.rate} for name, total in sums.items()},
                }
            )
    return rows


def metric(language: str | None) -> str:
    """WER, or CER for a language written without spaces."""
    return "CER" if language in CHARACTER_LANGUAGES else "WER"


def _languages(outcomes: Iterable[Outcome], system: str) -> dict[str, Any]:
    counted = [
        (str(outcome.clip.language), outcome.answers[system].language)
        for outcome in outcomes
        if outcome.clip.kind in LANGUAGE_KINDS
        and outcome.clip.language is not None
        and outcome.clip.seconds >= LANGUAGE_SECONDS
    ]
    confusions = Counter(pair for pair in counted if pair[0] != pair[1])
    return {
        "clips": len(counted),
        "right": sum(true == found for true, found in counted),
        "accuracy": share_equal(true == found for true, found in counted),
        "confusions": [{"true": a, "found": b, "clips": count} for (a, b), count in confusions.most_common()],
    }


def _nospeech(outcomes: Iterable[Outcome], system: str, scorer: Scorer) -> dict[str, Any]:
    words = {
        outcome.clip.file: scorer.words(outcome.answers[system].text)
        for outcome in outcomes
        if outcome.clip.kind == NO_SPEECH
    }
    return {
        "clips": len(words),
        "clips_with_words": sum(count > 0 for count in words.values()),
        "words": sum(words.values()),
        "by_clip": {file: count for file, count in words.items() if count},
    }


def _translation(outcomes: Sequence[Outcome], system: str) -> dict[str, Any] | None:
    if not outcomes:
        return None
    references = [outcome.clip.translation or "" for outcome in outcomes]
    return asdict(translation_score(references, [outcome.answers[system].text.strip() for outcome in outcomes]))


def _parity(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    equal = [outcome for outcome in outcomes if outcome.equal]
    return {
        "clips": len(outcomes),
        "equal": len(equal),
        "share": share_equal(bool(outcome.equal) for outcome in outcomes),
        "same_times": sum(bool(outcome.same_times) for outcome in equal),
        "same_times_share": share_equal(bool(outcome.same_times) for outcome in equal),
    }

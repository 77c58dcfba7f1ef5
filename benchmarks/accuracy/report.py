"""The accuracy report: what was measured, how to read it, and every table, as Markdown with two pictures beside it.

Gets the figures of `benchmarks.accuracy.summary` and the circumstances of the run, and measures nothing. A part that
was not measured is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os import cpu_count
from pathlib import Path
from typing import Any, Self

import torch

from benchmarks.accuracy import tables
from benchmarks.accuracy.plot import language_figure, noise_figure, save
from benchmarks.accuracy.summary import Row
from benchmarks.accuracy.tables import LABELS

_PICTURES = {"noise": "accuracy-noise.png", "language": "accuracy-languages.png"}
_HOW = """Error rates are word errors after Whisper's own normalisation (`whisper-normalizer`; the paper, appendix
C), in per cent of the words said; character errors (CER) for languages that are written without spaces. Every
system gets the same waveforms and the same weights. An interval is 95 % of a bootstrap over the recordings, of this
project's error rate less openai-whisper's: one that holds 0 says that the corpus cannot tell the two apart."""
_INVENTED = """The words that a system wrote are laid beside the words that were said in the way that needs least
changes. A word that was said and stands nowhere is *lost*; one that stands there and nobody said is *invented*; a
wrong word in a word's place is neither, and counts in the error rate alone: so a system that writes nonsense over
speech is to be seen there. Where nobody speaks every word is invented (notes and other signs are no words). A
minute is a minute of audio, with speech or without.

White noise says nothing, so what is invented in it is the system's own (or a word that it wrote as two). Babble is
eight other people who speak, mixed at equal loudness: whoever writes down one of them is charged with invention
just like one who makes words up, every system alike, because the reference text holds the words of one speaker
only. At 0 dB the eight together are as loud as that speaker, and there is hardly a right answer. Hence babble
stands apart from white noise as well as in the sum. Speech that nobody disturbed is not in this table."""
_NOISE = """30 clips of 2 to 9 s in seven languages (fewer where the corpus has fewer), each in white noise and in
babble at four ratios of speech to noise by mean power, as in the paper's Figure 5; language named. Chosen and mixed
by fixed seeds."""
_LONG = """The corpus's recordings of 40 s and more as they were found, and others made of its clips: joined with
short gaps, with pauses of 1 to 8 s, with music or noise of 3 to 12 s between them. Language named."""
_NOTHING = """The corpus's clips on which nobody speaks, and synthetic sounds of 20 s: noises, hum, tunes, ringing.
Language detected."""
_ORIGIN = """`source`: the text came with the recording. The others were written by ear after a first draft by Whisper,
which leans towards every system here."""
_SKIPPED = """Each answer names what it leaves out (`warnings`), so nothing is lost in silence. The reasons:
`no_speech`, the model itself hears nobody; `no_voice`, the model doubts its words and the detector hears nobody
(`guards`); `repetition`, what was said again was cut (`guards`); `unconfirmed`, words of a doubtful text that other
attempts leave out (`guards`; the whole segment is named)."""
_LANGUAGES = """Language detected, over read, spontaneous and long recordings of 2 s and more. Below, what was
spoken stands at the left and what was found in its place at the top; languages that were never confused are left
out."""
_TRANSLATION = "To English, language named; sacrebleu's defaults, case and punctuation kept."
_PARITY = """With default options this project need not answer as openai-whisper does: guards and int8 are meant to
differ. Parity itself is measured with `--compute-type float32 --no-guards --explain`."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the figures depend on beside the systems."""

    date: str
    machine: str
    corpus: str
    model: str
    device: str
    compute_type: str
    guards: bool
    sample: bool
    """Whether only a part of the corpus was asked about."""
    fingerprints: dict[str, str]
    """By system."""

    @classmethod
    def now(cls, **known: Any) -> Self:
        """The date and the machine added."""
        machine = f"{cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
        return cls(date=datetime.now(UTC).date().isoformat(), machine=machine, **known)


def write(folder: Path, circumstances: Circumstances, figures: Mapping[str, Any]) -> Path:
    """accuracy.md and its pictures into a folder; the answer is where the report lies."""
    folder.mkdir(parents=True, exist_ok=True)
    if figures["noise"]:
        save(noise_figure(figures["noise"]), folder / _PICTURES["noise"])
    if by_language := [row for row in figures["error_rates"] if row["grouping"] == "language"]:
        save(language_figure(by_language), folder / _PICTURES["language"])
    path = folder / "accuracy.md"
    path.write_text(document(circumstances, figures), encoding="utf-8")
    return path


def document(circumstances: Circumstances, figures: Mapping[str, Any]) -> str:
    """The whole report, ending with a newline."""
    rates, detected = figures["error_rates"], figures["error_rates_detected"]
    kinds = [row for row in rates if row["grouping"] == "kind"]
    systems = tables.language_table(figures["languages"])
    parts = [
        _introduction(circumstances),
        _section("Error rates, language named", tables.error_table(rates, "all")),
        _section("By kind of recording", tables.error_table(rates, "kind"), level=3),
        _section("By language", tables.error_table(rates, "language"), _picture("language"), level=3),
        _section("By origin of the text", tables.error_table(rates, "origin"), before=_ORIGIN, level=3),
        _section("Lost and invented words by kind", tables.loss_table(kinds, ""), level=3),
        _section("By language and kind", tables.error_table(rates, "language and kind"), level=3),
        _section("Error rates, language detected", tables.error_table(detected, "all")),
        _section("By kind, language detected", tables.error_table(detected, "kind"), level=3),
        _section("Long recordings", tables.loss_table(figures["longform"], "between the clips"), before=_LONG),
        _section("Language identification", systems, *_confusions(figures["languages"]), before=_LANGUAGES),
        _section("Translation", tables.translation_table(figures["translation"]), before=_TRANSLATION),
        _section("Invented and lost words", *_invention(figures["invention"]), before=_INVENTED),
        _section("Sounds without speech", tables.nospeech_table(figures["nospeech"]), before=_NOTHING, level=3),
        _section("Speech in noise", tables.loss_table(figures["noise"], ""), _picture("noise"), before=_NOISE),
        _section("What this project left out", tables.skipped_table(figures["skipped"]), before=_SKIPPED),
        _section("The same answers as openai-whisper", tables.parity_table(figures["parity"]), before=_PARITY),
        _section("Where answers part", tables.difference_table(figures["differences"]), level=3),
        _section("Refused files", tables.table(["file", "why"], figures["refused"].items())),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _introduction(run: Circumstances) -> str:
    ours = f"{run.compute_type}, {'default options' if run.guards else 'guards off'}"
    others = {
        "ours": f"{LABELS['ours']}: {ours}",
        "reference": "openai-whisper: float32, greedy with its fallback ladder (its defaults in Python)",
        "faster-whisper": "faster-whisper: int8, five beams, `vad_filter` (its defaults but for the filter)",
    }
    listed = [f"- {others[name]} (`{fingerprint}`)" for name, fingerprint in run.fingerprints.items()]
    what = "A sample of the corpus, so not the evidence: m" if run.sample else "M"
    return "\n".join(
        [
            "# Accuracy",
            "",
            f"{what}easured on {run.date} by `make evaluate CORPUS=dir{' ARGS=--against' if len(listed) > 1 else ''}`:",
            f"corpus `{run.corpus}`, model {run.model}, {run.machine}, device {run.device}.",
            "",
            _HOW,
            "",
            *listed,
            "",
            "Figures before these, what was tried and what did not help: [LOG.md](../benchmarks/LOG.md).",
        ]
    )


def _section(title: str, *blocks: str, before: str = "", level: int = 2) -> str:
    """Empty where its first block is."""
    if not blocks[0]:
        return ""
    parts = [f"{'#' * level} {title}", before, *(block.rstrip("\n") for block in blocks)]
    return "\n\n".join(part for part in parts if part)


def _confusions(languages: Mapping[str, Any]) -> Iterable[str]:
    for name, found in languages.items():
        if block := tables.confusion_table(found):
            yield f"{LABELS[name]}:\n\n{block}"


def _invention(rows: Sequence[Row]) -> tuple[str, ...]:
    return (tables.invention_table(rows), tables.invention_verdict(rows)) if rows else ("",)


def _picture(name: str) -> str:
    titles = {"noise": "Word error rate over signal-to-noise ratio", "language": "Error rate by language"}
    return f"![{titles[name]}]({_PICTURES[name]})"

"""Long recordings in every way that we can decode them: errors, lost and invented words, windows, time.

    python -m benchmarks.longform CORPUS [--modes sequential batched ...] [--output FILE.json]

Takes the corpus's recordings of 40 s and more as they are, and makes others of its clips: one language each, joined
with short gaps, with pauses of 1 to 8 s, and with music or noise of 3 to 12 s between them. Prints a table for people
and writes what each recording gave as JSON. Errors are those of `benchmarks.accuracy.scoring`; a word lost is a
deletion, a word invented an insertion, in the cheapest alignment with the reference.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.accuracy.corpus import Clip, read_corpus
from benchmarks.accuracy.items import Item
from benchmarks.accuracy.scoring import CHARACTER_LANGUAGES, Scorer
from benchmarks.accuracy.systems import Samples
from benchmarks.accuracy.waveform import read_waveform
from model import load
from model.transcriber import Transcriber

RATE = 16_000
MODES: dict[str, dict[str, Any]] = {
    "sequential": {"long_form": "sequential"},
    "sequential, vad": {"long_form": "sequential", "vad": True},
    "sequential, unconditioned": {"long_form": "sequential", "condition_on_previous_text": False},
    "batched": {"long_form": "batched"},
    "batched, vad": {"long_form": "batched", "vad": True},
}
_LONG = 40.0
"""Seconds from which a recording of the corpus takes part as it is."""
_MADE = (
    ("en", "joined", 200),
    ("en", "pauses", 200),
    ("en", "sounds", 200),
    ("fr", "pauses", 120),
    ("de", "sounds", 120),
    ("es", "joined", 100),
)
"""Language, what lies between the clips, and seconds of speech, of each recording that is made."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A long recording and what is said in it."""

    name: str
    kind: str
    language: str
    samples: Samples
    text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one way of decoding made of one recording."""

    mode: str
    recording: str
    kind: str
    language: str
    audio_seconds: float
    words: int
    edits: int
    lost: int
    invented: int
    windows: int
    skipped_seconds: float
    wall_seconds: float
    cpu_seconds: float
    text: str


def recordings(corpus: Path) -> Iterator[Recording]:
    """The corpus's long recordings, then those made of its clips; the same ones every time."""
    clips = [clip for clip in read_corpus(corpus) if clip.text and clip.language]
    for clip in clips:
        if clip.seconds >= _LONG:
            yield Recording(clip.file, "as found", str(clip.language), read_waveform(clip.path), str(clip.text))
    generator = random.Random(0)
    unused = [clip for clip in clips if clip.kind in ("read", "spontaneous") and 2.0 <= clip.seconds <= 25.0]
    generator.shuffle(unused)
    for language, between, seconds in _MADE:
        chosen: list[Clip] = []
        for clip in [clip for clip in unused if clip.language == language]:
            if sum(one.seconds for one in chosen) < seconds:
                chosen.append(clip)
                unused.remove(clip)
        if not chosen:
            continue
        text = " ".join(str(clip.text) for clip in chosen)
        yield Recording(f"{language} {between}", between, language, join(chosen, between, seed=len(unused)), text)


def long_items(corpus: Path, *, limit: int | None = None) -> Iterator[tuple[Item, Samples]]:
    """The recordings as an evaluation asks about them, without those that are scored by character."""
    worded = (one for one in recordings(corpus) if one.language not in CHARACTER_LANGUAGES)
    for one in islice(worded, limit):
        seconds = len(one.samples) / RATE
        yield Item("longform", one.name, one.kind, one.language, True, one.text, seconds), one.samples


def join(clips: Sequence[Clip], between: str, *, seed: int) -> Samples:
    """The clips as one recording, evened out in loudness, with what the name says between them."""
    generator = np.random.default_rng(seed)
    pieces: list[Samples] = []
    for clip in clips:
        samples = read_waveform(clip.path)
        loudness = float(np.sqrt(np.mean(np.square(samples)))) or 1.0
        pieces += [
            samples * min(0.08 / loudness, 0.9 / float(np.abs(samples).max(initial=1e-9))),
            _gap(between, generator),
        ]
    joined = np.concatenate(pieces, dtype=np.float64)
    return (joined + generator.normal(0.0, 0.0005, len(joined))).astype(np.float32)


def _gap(between: str, generator: np.random.Generator) -> Samples:
    if between == "joined":
        return np.zeros(int(0.3 * RATE), np.float32)
    if between == "pauses":
        return np.zeros(int(generator.uniform(1.0, 8.0) * RATE), np.float32)
    time_axis = np.arange(int(generator.uniform(3.0, 12.0) * RATE)) / RATE
    if generator.random() < 0.5:
        return (generator.normal(0.0, 0.03, len(time_axis))).astype(np.float32)
    notes = 220.0 * 2.0 ** (generator.integers(0, 13, int(time_axis[-1] * 2) + 1) / 12.0)
    pitch = notes[(time_axis * 2).astype(int)]
    fade = np.exp(-2.0 * (time_axis * 2 % 1.0))
    tone = np.sin(2 * np.pi * pitch * time_axis) + 0.5 * np.sin(4 * np.pi * pitch * time_axis)
    return np.asarray(0.05 * fade * tone, np.float32)


def measure(transcriber: Transcriber, scorer: Scorer, mode: str, recording: Recording) -> Outcome:
    """Decode one recording in one mode."""
    encodes = 0
    encoder = transcriber.model.encoder

    def count(*_: object) -> None:
        nonlocal encodes
        encodes += 1

    hook = encoder.register_forward_hook(count)
    wall, cpu = time.perf_counter(), time.process_time()
    result = transcriber.transcribe(recording.samples, language=recording.language, **MODES[mode])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    hook.remove()
    errors = scorer.errors(recording.text, result.text, recording.language)
    return Outcome(
        mode=mode,
        recording=recording.name,
        kind=recording.kind,
        language=recording.language,
        audio_seconds=round(len(recording.samples) / RATE, 2),
        words=errors.tokens,
        edits=errors.edits,
        lost=errors.lost,
        invented=errors.invented,
        windows=encodes,
        skipped_seconds=round(sum(one.end - one.start for one in result.warnings), 2),
        wall_seconds=round(wall, 3),
        cpu_seconds=round(cpu, 3),
        text=result.text,
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """A row for every kind of recording and mode, and one for all together."""
    columns = ("recordings", "mode", "error rate", "lost", "invented", "windows", "seconds of processor", "skipped")
    rows = [columns, ("---",) * len(columns)]
    modes = list(dict.fromkeys(outcome.mode for outcome in outcomes))
    for kind in [*dict.fromkeys(outcome.kind for outcome in outcomes), "all"]:
        some = [one for one in outcomes if kind in (one.kind, "all")]
        rows += [_row(kind, mode, [one for one in some if one.mode == mode]) for mode in modes]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(kind: str, mode: str, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    words, edits = sum(one.words for one in outcomes), sum(one.edits for one in outcomes)
    return (
        f"{kind}, {sum(one.audio_seconds for one in outcomes) / 60:.1f} min",
        mode,
        f"{100 * edits / words:.2f} % of {words}",
        str(sum(one.lost for one in outcomes)),
        str(sum(one.invented for one in outcomes)),
        str(sum(one.windows for one in outcomes)),
        f"{sum(one.cpu_seconds for one in outcomes):.0f}",
        f"{sum(one.skipped_seconds for one in outcomes):.0f} s",
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure every mode on every recording."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.longform", description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--only", nargs="+", default=[""], help="recordings whose name holds one of these")
    parser.add_argument("--model", default="base")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    transcriber, scorer = load(options.model, options.device, "float32"), Scorer()
    outcomes: list[Outcome] = []
    for recording in tqdm(list(recordings(options.corpus)), desc="recordings"):
        if not any(part in recording.name for part in options.only):
            continue
        for mode in options.modes:
            outcomes.append(measure(transcriber, scorer, mode, recording))
            if options.output:
                options.output.write_text(json.dumps([asdict(one) for one in outcomes], ensure_ascii=False, indent=1))
    sys.stdout.write(table(outcomes))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

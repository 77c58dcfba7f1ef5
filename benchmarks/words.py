"""Word times beside openai-whisper's on the same weights, and what words cost.

    python -m benchmarks.words CORPUS [--clips 60] [--threads 1] [--compute-type float32] [--output FILE.json]
    python -m benchmarks.words --cost [--rounds 7] [--threads 2] [--compute-type float32]

The reference is float32; in float32 we have its words and times, in int8, the default, what rounding leaves of them.

The first form takes clips of every kind and language in turn, lets both transcribe them with words, and counts the
reference's words that we have too, and of these the ones whose start and end are both within 40 ms. The second times
30 s of dense speech with and without words in turn (A B B A). Both print lines for people, then one JSON line.
"""

import argparse
import difflib
import itertools
import json
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import whisper
from tqdm import tqdm

from benchmarks.accuracy.corpus import Clip, read_corpus
from benchmarks.accuracy.reference import Reference
from benchmarks.accuracy.systems import Samples
from benchmarks.accuracy.waveform import read_waveform
from benchmarks.latency import AUDIO, Timing, interleave
from benchmarks.ratio import ratio_interval
from model import Transcriber, load
from model.dims import SAMPLE_RATE, canonical_name
from model.errors import AudioError
from model.segments import Transcription, Word
from model.weights import load_weights

TOLERANCE = 0.04
"""Seconds."""
_LONGEST = 35.0
"""Seconds of the longest clip that takes part."""
_DENSE = AUDIO / "en-printing.ogg"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Both systems' words of one clip."""

    clip: str
    kind: str
    language: str
    words: int
    """Of the reference."""
    same: int
    """Of these, words that we have too, in the same order."""
    close: int
    """Of these, words with both ends within the tolerance."""
    equal: int
    """Of these, words with equal ends."""
    worst: float
    """Seconds; the largest distance of two ends."""


def choose(clips: Sequence[Clip], count: int) -> list[Clip]:
    """`count` clips, none of them long: one of every kind and language in turn until there are enough."""
    groups: dict[tuple[str, str], list[Clip]] = {}
    for clip in sorted(clips, key=lambda clip: clip.file):
        if clip.seconds <= _LONGEST:
            groups.setdefault((clip.kind, clip.language or ""), []).append(clip)
    turns = itertools.zip_longest(*(groups[key] for key in sorted(groups)))
    return [clip for turn in turns for clip in turn if clip is not None][:count]


def compare(clip: Clip, language: str, ours: Sequence[Word], theirs: Sequence[Word]) -> Outcome:
    """Count what is the same; words are matched in order, by their text."""
    matcher = difflib.SequenceMatcher(a=[w.word for w in ours], b=[w.word for w in theirs], autojunk=False)
    pairs = [
        (ours[block.a + i], theirs[block.b + i]) for block in matcher.get_matching_blocks() for i in range(block.size)
    ]
    gaps = [max(abs(a.start - b.start), abs(a.end - b.end)) for a, b in pairs]
    return Outcome(
        clip=clip.file,
        kind=clip.kind,
        language=language,
        words=len(theirs),
        same=len(pairs),
        close=sum(gap <= TOLERANCE + 1e-9 for gap in gaps),
        equal=sum(gap < 1e-9 for gap in gaps),
        worst=round(max(gaps, default=0.0), 3),
    )


def transcribe_both(ours: Transcriber, reference: Reference, clip: Clip) -> Outcome:
    """One clip; where its language is not known, both take the one that we detect."""
    samples = read_waveform(clip.path)
    own = ours.transcribe(samples, language=clip.language, word_timestamps=True)
    reference.steps = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Performing inference on CPU")
        raw = reference.network.transcribe(samples, language=own.language, fp16=False, word_timestamps=True)
    words = [word for segment in raw["segments"] for word in segment["words"]]
    # Its numbers are numpy's, which JSON does not know.
    theirs = [Word(w["word"], float(w["start"]), float(w["end"]), float(w["probability"])) for w in words]
    return compare(clip, own.language, [word for segment in own.segments for word in segment.words or ()], theirs)


def accuracy(options: argparse.Namespace) -> dict[str, Any]:
    """The first form."""
    ours = load(options.model, device="cpu", compute_type=options.compute_type)
    reference = Reference(load_weights(options.model), device="cpu", compute_type="float32")
    reference.network.set_alignment_heads(whisper._ALIGNMENT_HEADS[canonical_name(options.model)])
    clips = choose(read_corpus(options.corpus), options.clips)
    outcomes = []
    for clip in tqdm(clips, desc="clips", leave=False):
        try:
            outcomes.append(transcribe_both(ours, reference, clip))
        except AudioError as error:  # the corpus holds a few files without a header
            sys.stdout.write(f"{clip.file}: {error}\n")
    for outcome in outcomes:
        if outcome.equal != outcome.words:
            sys.stdout.write(f"{outcome}\n")
    sums = {name: sum(getattr(one, name) for one in outcomes) for name in ("words", "same", "close", "equal")}
    groups = {(one.kind, one.language) for one in outcomes}
    sys.stdout.write(
        f"{len(outcomes)} clips of {len(groups)} kinds and languages: {sums['words']} words, {sums['same']} the same, "
        f"{sums['close']} of these within {TOLERANCE * 1000:.0f} ms, {sums['equal']} with equal times\n"
    )
    return {**sums, "clips": [asdict(one) for one in outcomes]}


def cost(options: argparse.Namespace) -> dict[str, Any]:
    """The second form."""
    transcriber = load(options.model, device="cpu", compute_type=options.compute_type)
    samples: Samples = read_waveform(_DENSE)[: 30 * SAMPLE_RATE]

    def transcribe(words: bool) -> Transcription:
        return transcriber.transcribe(samples, language="en", temperature=0.0, word_timestamps=words)

    def run(words: bool) -> Timing:
        wall, cpu = time.perf_counter(), time.process_time()
        transcribe(words)
        return Timing(time.perf_counter() - wall, time.process_time() - cpu)

    answers = [transcribe(False), transcribe(True)]
    pairs = interleave(run, False, True, options.rounds)
    ratio, low, high = ratio_interval([(without.wall, words.wall) for without, words in pairs])
    result = {
        "tokens": [sum(len(segment.tokens) for segment in answer.segments) for answer in answers],
        "windows": [len({segment.seek for segment in answer.segments}) for answer in answers],
        "without_s": round(statistics.median(without.wall for without, _ in pairs), 4),
        "words_s": round(statistics.median(words.wall for _, words in pairs), 4),
        "ratio": round(ratio, 4),
        "ratio_95": [round(low, 4), round(high, 4)],
        "cpu_ratio": round(ratio_interval([(without.cpu, words.cpu) for without, words in pairs])[0], 4),
    }
    sys.stdout.write(f"30 s of speech: {result}\n")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run one of the two forms."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.words", description=__doc__)
    parser.add_argument("corpus", nargs="?", type=Path)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--model", default="base")
    parser.add_argument("--compute-type", default="auto", choices=("auto", "float32", "int8"))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    if options.cost == (options.corpus is not None):
        parser.error("give a corpus, or --cost")
    torch.set_num_threads(options.threads)
    result = cost(options) if options.cost else accuracy(options)
    named = {"bench": "words", "model": options.model, "threads": options.threads, "compute_type": options.compute_type}
    text = json.dumps({**named, **result})
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    else:
        sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

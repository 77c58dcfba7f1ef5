"""The evidence for accuracy: the model on a corpus, and with `--against` what people would use instead beside it.

    python -m benchmarks.evaluate CORPUS [--against] [--quick]

Passes over the clips: `given` (the language is named), `auto` (it is detected) and `translate` (to English); then
`longform` (long recordings, found and made), `nospeech` (sounds on which nobody speaks) and `noise` (speech in white
noise and babble). As people get it: default options, default compute type. `--against` runs openai-whisper in float32
on the same weights and waveforms, and, where `benchmarks.peers` has built it, faster-whisper with its detector in the
last two.

Writes the report and its plots to `--docs` and JSON to `--results`. Answers are kept there too, so that a run that was
cut off goes on where it was, and a second one asks only what has changed. `--quick` and `--limit` take a sample, always
the same one, and leave the documents alone; so does `--takes`, which asks for each clip several times, begun a little
later, and tells what is chance from what is not.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from benchmarks.accuracy.corpus import Clip, read_corpus
from benchmarks.accuracy.items import CLIP_PASSES, PASSES, Item, asked, clip_items, sample
from benchmarks.accuracy.noise import speech_in_noise, without_speech
from benchmarks.accuracy.parity import Difference, tokens_of
from benchmarks.accuracy.report import Circumstances, write
from benchmarks.accuracy.store import Store
from benchmarks.accuracy.summary import Outcome, summarise
from benchmarks.accuracy.systems import SEARCHES, Ours, Samples, System
from benchmarks.accuracy.vad_peer import VadPeer, find
from benchmarks.longform import long_items
from model.compute import CROSS_KVS
from model.weights import load_weights

if TYPE_CHECKING:
    from benchmarks.accuracy.judge import Judge

PEERS = Path.home() / ".cache" / "whisper-service" / "peers"
QUICK = 40
"""Clips of each pass."""
INVENTION = ("nospeech", "noise")
"""Passes in which a peer with a detector takes part."""


def main(arguments: list[str] | None = None) -> int:
    """Run the passes asked for; exit status 0, or 2 where the corpus has nothing to evaluate."""
    command = parser()
    options = command.parse_args(arguments)
    if options.explain and not options.against:
        command.error("--explain compares: it needs --against")
    torch.set_num_threads(options.threads)
    try:
        clips = read_corpus(options.corpus, kinds=options.kind, languages=options.language)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    refused: dict[str, str] = {}
    outcomes: list[Outcome] = []
    differences: list[tuple[str, Difference]] = []
    with ExitStack() as stack:
        store, systems, judge = _systems(options, stack)
        for name in options.passes:
            taking_part = [one for one in systems if name in INVENTION or not isinstance(one, VadPeer)]
            for item, samples in tqdm(items(options, name, clips, refused), desc=name, unit=" recordings"):
                answers = {
                    one.name: store.transcribe(one, samples, language=item.language, task=item.task)
                    for one in taking_part
                }
                outcomes.append(Outcome(item, answers))
                if judge and tokens_of(answers["ours"]) != tokens_of(answers["reference"]):
                    differences.append((name, judge.explain(item, samples)))
        circumstances = _circumstances(options, systems)
    figures = summarise(outcomes) | {"refused": refused}
    figures["differences"] = [{"pass": name, **asdict(one)} for name, one in differences]
    options.results.mkdir(parents=True, exist_ok=True)
    report = {**asdict(circumstances), **figures, "clips": [one.as_json() for one in outcomes]}
    (options.results / "evaluation.json").write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", "utf-8")
    folder = options.results if _is_sample(options) else options.docs
    sys.stdout.write(f"{write(folder, circumstances, figures)}\n")
    return 0


def items(
    options: argparse.Namespace, pass_name: str, clips: Sequence[Clip], refused: dict[str, str]
) -> Iterator[tuple[Item, Samples]]:
    """What a pass asks about. A sample has a tenth as many of what is long or comes in nine variants."""
    limit = options.limit
    tenth = None if limit is None else max(1, limit // 10)
    if pass_name in CLIP_PASSES:
        taking_part = [clip for clip in clips if asked(clip, pass_name)]
        return clip_items(sample(taking_part, limit), pass_name, refused, takes=options.takes)
    if pass_name == "longform":
        return long_items(options.corpus, limit=tenth)
    if pass_name == "nospeech":
        return without_speech(options.corpus, limit=limit)
    return speech_in_noise(options.corpus, limit=tenth)


def _systems(options: argparse.Namespace, stack: ExitStack) -> "tuple[Store, list[System], Judge | None]":
    """Those that answer, where their answers are kept, and who explains how they differ."""
    weights = load_weights(options.model)
    store = Store(options.results / "answers.jsonl", weights=weights.sha256 or weights.name)
    search = SEARCHES[options.search]
    unlike = search if options.guards else {"guards": False, **search}
    ours = Ours(
        options.model, device=options.device, compute_type=options.compute_type, cross_kv=options.cross_kv, **unlike
    )
    systems: list[System] = [ours]
    judge = None
    if options.against:
        # Needs openai-whisper, which an evaluation of ours alone does not.
        from benchmarks.accuracy.judge import Judge
        from benchmarks.accuracy.reference import Reference

        half = ours.compute_type == "float16"
        precision = "float16" if half else "float32"
        reference = Reference(weights, device=options.device, compute_type=precision, **search)
        systems.append(reference)
        judge = Judge(ours, reference, compute_type=ours.compute_type) if options.explain else None
        found = find(options.peers) if set(options.passes) & set(INVENTION) else None
        if found:
            systems.append(stack.enter_context(VadPeer(*found, threads=options.threads)))
    return store, systems, judge


def _circumstances(options: argparse.Namespace, systems: Sequence[System]) -> Circumstances:
    return Circumstances.now(
        corpus=options.corpus.name,
        model=options.model,
        device=options.device,
        fingerprints={one.name: one.fingerprint for one in systems},
        compute_type=next(one.compute_type for one in systems if isinstance(one, Ours)),
        guards=options.guards,
        sample=_is_sample(options),
    )


def _is_sample(options: argparse.Namespace) -> bool:
    unusual = options.cross_kv != "auto" or options.search != "greedy" or options.takes > 1
    return unusual or bool(options.limit or options.kind or options.language or set(options.passes) != set(PASSES))


def count(text: str) -> int:
    """One or more."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.evaluate", description=__doc__)
    command.add_argument("corpus", type=Path, help="folder with manifest.jsonl (or .json) and audio")
    command.add_argument("--against", action="store_true", help="openai-whisper and faster-whisper too, same weights")
    command.add_argument(
        "--explain", action="store_true", help="ask again where tokens differ, and say which choice did"
    )
    command.add_argument("--peers", type=Path, default=PEERS, help="folder that benchmarks.peers built")
    command.add_argument("--model", default="base", help="published name, .pt file or folder")
    command.add_argument("--device", default="cpu")
    command.add_argument("--compute-type", default="auto", choices=("auto", "float32", "int8", "float16", "bfloat16"))
    command.add_argument(
        "--cross-kv", default="auto", choices=CROSS_KVS, help="how the audio's keys and values are kept"
    )
    command.add_argument("--no-guards", dest="guards", action="store_false", help="as the reference does: for parity")
    command.add_argument(
        "--search", default="greedy", choices=SEARCHES, help="beams, samples: of ours and the reference"
    )
    command.add_argument("--threads", type=int, default=torch.get_num_threads())
    command.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    command.add_argument("--kind", nargs="+", default=[], help="only these kinds, in the passes over the clips")
    command.add_argument("--language", nargs="+", default=[], help="only these languages, there too")
    command.add_argument(
        "--limit", type=int, help="a sample: so many clips of a pass, and a tenth of the long and noisy"
    )
    command.add_argument(
        "--quick", dest="limit", action="store_const", const=QUICK, help=f"the same as --limit {QUICK}"
    )
    command.add_argument("--takes", type=count, default=1, help="so many times each clip, each begun a little later")
    command.add_argument("--results", type=Path, default=Path("results"), help="folder of answers and JSON")
    command.add_argument("--docs", type=Path, default=Path("docs"), help="folder of accuracy.md and its plots")
    return command


if __name__ == "__main__":
    raise SystemExit(main())

"""Accuracy of the model on a corpus, and with `--against` its parity with the reference.

    python -m benchmarks.evaluate CORPUS [--against] [--passes given auto translate]

Three passes over the clips: `given` (the true language is named), `auto` (it is detected; clips without speech take
part) and `translate` (to English, where there is a translation). Prints Markdown, writes JSON. Answers are kept in
`results/answers.jsonl`, so that a run that was cut off goes on where it was.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from benchmarks.corpus import SPEECH, Clip, read_corpus
from benchmarks.parity import Difference, timestamps_equal, tokens_of
from benchmarks.report import markdown
from benchmarks.store import Store
from benchmarks.summary import Outcome, summarise
from benchmarks.systems import Ours, Samples, System
from benchmarks.waveform import read_waveform
from model.errors import AudioError
from model.weights import load_weights

if TYPE_CHECKING:
    from benchmarks.judge import Judge

PASSES = ("given", "auto", "translate")


@dataclass(slots=True)
class Evaluation:
    """What one run collects."""

    outcomes: list[Outcome] = field(default_factory=list)
    differences: dict[str, list[Difference]] = field(default_factory=dict)
    undecodable: dict[str, str] = field(default_factory=dict)


def main(arguments: list[str] | None = None) -> int:
    """Run the passes asked for; exit status 0, or 2 where the corpus has nothing to evaluate."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        clips = read_corpus(options.corpus, kinds=options.kind, languages=options.language, limit=options.limit)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    weights = load_weights(options.model)
    unlike = {} if options.guards else {"guards": False}
    ours = Ours(options.model, device=options.device, compute_type=options.compute_type, **unlike)
    systems: list[System] = [ours]
    judge = None
    if options.against:
        # Needs openai-whisper, which an evaluation of ours alone does not.
        from benchmarks.judge import Judge
        from benchmarks.reference import Reference

        reference = Reference(weights, device=options.device, compute_type=options.compute_type)
        judge = Judge(ours, reference, compute_type=options.compute_type)
        systems.append(reference)
    store = Store(options.results / "answers.jsonl", weights=weights.sha256 or weights.name)
    evaluation = Evaluation()
    for name in options.passes:
        _run_pass(name, clips, systems, store, judge, evaluation)
    report = _report(options, evaluation)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(markdown(report))
    return 0


def request(clip: Clip, name: str) -> tuple[str | None, str] | None:
    """Language and task of a clip in a pass, or None where it takes no part."""
    if name == "auto":
        return None, "transcribe"
    if clip.language is None or clip.kind not in SPEECH:
        return None
    if name == "given":
        return clip.language, "transcribe"
    return (clip.language, "translate") if clip.translation and clip.language != "en" else None


def _run_pass(
    name: str, clips: list[Clip], systems: list[System], store: Store, judge: "Judge | None", evaluation: Evaluation
) -> None:
    differences = evaluation.differences.setdefault(name, [])
    for clip in tqdm([clip for clip in clips if request(clip, name)], desc=name, unit="clip"):
        samples = _waveform(clip, evaluation)
        wanted = request(clip, name)
        if samples is None or wanted is None:
            continue
        language, task = wanted
        answers = {system.name: store.transcribe(system, samples, language=language, task=task) for system in systems}
        ours, reference = answers["ours"], answers.get("reference")
        equal = same_times = None
        if judge and reference:
            equal = tokens_of(ours) == tokens_of(reference)
            same_times = timestamps_equal(ours, reference)
            if not equal:
                differences.append(judge.explain(clip.file, samples, language=language, task=task))
        evaluation.outcomes.append(Outcome(name, clip, answers, equal, same_times))


def _waveform(clip: Clip, evaluation: Evaluation) -> Samples | None:
    """The clip as (n,) float32 at 16 kHz, or None (and a note) where the decoder refuses it."""
    try:
        return read_waveform(clip.path)
    except AudioError as error:
        evaluation.undecodable[clip.file] = str(error)
        return None


def _report(options: argparse.Namespace, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "corpus": options.corpus.name,
        "model": options.model,
        "device": options.device,
        "compute_type": options.compute_type,
        "guards": options.guards,
        "torch": torch.__version__,
        "threads": options.threads,
        **summarise(evaluation.outcomes),
        "differences": {name: [asdict(item) for item in items] for name, items in evaluation.differences.items()},
        "undecodable": evaluation.undecodable,
        "clips": [outcome.as_json() for outcome in evaluation.outcomes],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluate", description=__doc__)
    parser.add_argument("corpus", type=Path, help="folder with manifest.jsonl (or .json) and audio")
    parser.add_argument("--against", action="store_true", help="run openai-whisper too, on the same weights")
    parser.add_argument("--model", default="base", help="published name, .pt file or folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compute-type", default="float32", choices=("float32", "int8", "float16", "bfloat16"))
    parser.add_argument("--no-guards", dest="guards", action="store_false", help="as the reference does: for parity")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument("--kind", nargs="+", default=[], help="only these kinds")
    parser.add_argument("--language", nargs="+", default=[], help="only these languages")
    parser.add_argument("--limit", type=int, help="only this many clips")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the kept answers")
    parser.add_argument("--output", type=Path, default=Path("results/evaluation.json"))
    return parser


if __name__ == "__main__":
    raise SystemExit(main())

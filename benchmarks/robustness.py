"""What a system invents where nobody speaks, and what it loses in noise: answers to `benchmarks.noise`, one a line.

    python -m benchmarks.robustness CORPUS OUTPUT.jsonl [--system ours reference] [--no-guards] [--vad] [--seconds 150]

Sounds without speech are transcribed with their language detected, speech in noise with its language named. A run stops
after `--seconds` and goes on where it was, so that it can give way to others. `benchmarks.accuracy` makes tables of it.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks.noise import RATE, Item, speech_in_noise, without_speech
from benchmarks.systems import Ours, System
from model.weights import load_weights


def main(arguments: list[str] | None = None) -> int:
    """Answer what is not answered yet; exit status 0 when all is done, 3 when time was up."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    done = set(answered(options.output))
    system = _system(options)
    started = time.monotonic()
    for item in chain(without_speech(options.corpus), speech_in_noise(options.corpus, limit=options.limit)):
        if item.name in done:
            continue
        if time.monotonic() - started > options.seconds:
            return 3
        with options.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(answer(system, item), ensure_ascii=False) + "\n")
    return 0


def answer(system: System, item: Item) -> dict[str, Any]:
    """What a system makes of a waveform, beside what is said in it."""
    result = system.transcribe(item.samples, language=item.language, task="transcribe")
    return {
        "name": item.name,
        "group": item.group,
        "seconds": len(item.samples) / RATE,
        "language": item.language,
        "said": item.text,
        "text": result.text,
        "skipped": [(one.reason, one.start, one.end) for one in result.warnings],
    }


def answered(path: Path) -> Iterator[str]:
    """Names of the items that a file has answers for."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)["name"]


def _system(options: argparse.Namespace) -> System:
    if options.system == "reference":
        # Needs openai-whisper, which an evaluation of ours alone does not.
        from benchmarks.reference import Reference

        return Reference(load_weights(options.model), device="cpu", compute_type="float32")
    given = {"guards": options.guards, "vad": options.vad}
    return Ours(options.model, device="cpu", compute_type=options.compute_type, **given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robustness", description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("output", type=Path, help="answers, one JSON object a line; those that are there are kept")
    parser.add_argument("--system", choices=("ours", "reference"), default="ours")
    parser.add_argument("--model", default="base")
    parser.add_argument("--compute-type", default="int8", choices=("float32", "int8"))
    parser.add_argument("--no-guards", dest="guards", action="store_false")
    parser.add_argument("--vad", action="store_true")
    parser.add_argument("--limit", type=int, help="only so many clips in noise")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser


if __name__ == "__main__":
    sys.exit(main())

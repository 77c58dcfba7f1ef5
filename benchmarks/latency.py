"""One request at a time, ours and openai-whisper in turn on the same weights, waveform and threads (A B A B ...).

    python -m benchmarks.latency [CLIP ...] [--rounds 7] [--threads 2]

Prints a line per clip for people (medians, ratio with its 95 % bootstrap interval), then one JSON line. Only the ratio
travels between machines: both sides of a round run within seconds of one another, so a busy machine slows both. The
ratio of processor seconds beside it is what remains where others take turns on the same cores.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from benchmarks.accuracy.parity import tokens_of
from benchmarks.accuracy.reference import Reference
from benchmarks.accuracy.systems import Ours, Samples, System
from benchmarks.accuracy.waveform import read_waveform
from benchmarks.ratio import ratio_interval
from model.weights import load_weights

AUDIO = Path(__file__).parents[1] / "tests" / "audio"
CLIPS = (AUDIO / "en-jfk.flac", AUDIO / "en-printing.ogg")
"""11 s (one window) and 60 s (several)."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one run: on the clock, and of processor over all threads."""

    wall: float
    cpu: float


Round = tuple[Timing, Timing]
Side = TypeVar("Side")


def interleave(run: Callable[[Side], Timing], first: Side, second: Side, rounds: int) -> list[Round]:
    """Timings of both in each round, taken in turn; the order within a round alternates."""
    pairs: list[Round] = []
    for index in tqdm(range(rounds), desc="rounds", leave=False):
        if index % 2:
            other = run(second)
            pairs.append((run(first), other))
        else:
            pairs.append((run(first), run(second)))
    return pairs


def measure(ours: System, reference: System, samples: Samples, *, language: str | None, rounds: int) -> dict[str, Any]:
    """Times of both on one waveform, after a first run of each that also tells whether their tokens are equal."""
    answers = [system.transcribe(samples, language=language, task="transcribe") for system in (ours, reference)]

    def run(system: System) -> Timing:
        wall, cpu = time.perf_counter(), time.process_time()
        system.transcribe(samples, language=language, task="transcribe")
        return Timing(time.perf_counter() - wall, time.process_time() - cpu)

    pairs = interleave(run, ours, reference, rounds)
    walls = [(first.wall, second.wall) for first, second in pairs]
    ratio, low, high = ratio_interval(walls)
    return {
        "language": language or "detected",
        "audio_seconds": round(len(samples) / 16000, 2),
        "tokens": len(tokens_of(answers[0])),
        "equal_tokens": tokens_of(answers[0]) == tokens_of(answers[1]),
        "ours_s": round(statistics.median(first for first, _ in walls), 4),
        "reference_s": round(statistics.median(second for _, second in walls), 4),
        "ratio": round(ratio, 3),
        "ratio_95": [round(low, 3), round(high, 3)],
        "cpu_ratio": round(ratio_interval([(first.cpu, second.cpu) for first, second in pairs])[0], 3),
        "rounds": [[round(first, 4), round(second, 4)] for first, second in walls],
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure every clip with the language named and detected."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("clips", nargs="*", type=Path, default=list(CLIPS))
    parser.add_argument("--language", default="en", help="language of the clips, for the runs that name it")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--model", default="base")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compute-type", default="float32", choices=("float32", "int8", "float16", "bfloat16"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    ours = Ours(options.model, device=options.device, compute_type=options.compute_type)
    reference = Reference(load_weights(options.model), device=options.device, compute_type=options.compute_type)
    results = []
    for clip in options.clips:
        samples = read_waveform(clip)
        for language in (options.language, None):
            result = {"clip": clip.name, **measure(ours, reference, samples, language=language, rounds=options.rounds)}
            results.append(result)
            sys.stdout.write(
                f"{clip.name:20} {result['audio_seconds']:6.1f} s, language {result['language']:8}: "
                f"ours {result['ours_s']:.3f} s, reference {result['reference_s']:.3f} s, "
                f"{result['ratio']:.2f} times as fast [{result['ratio_95'][0]:.2f}, {result['ratio_95'][1]:.2f}], "
                f"processor {result['cpu_ratio']:.2f}, "
                f"tokens {'equal' if result['equal_tokens'] else 'DIFFER'}\n"
            )
    settings = {name: getattr(options, name) for name in ("model", "device", "compute_type", "threads")}
    sys.stdout.write(
        json.dumps({"bench": "latency", **settings, "torch": torch.__version__, "results": results}) + "\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

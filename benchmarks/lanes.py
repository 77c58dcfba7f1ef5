"""One long file through the service's engine, sequential and batched, alone and with a short clip sent behind it.

    python -m benchmarks.lanes [LONG SHORT] [--threads 2] [--rounds 1]

Both ways in turn. Prints a line a run for people (seconds from submission, mean rows of a step) and one JSON line.
The engine is driven in this process: no HTTP, no audio decoding.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy.waveform import read_waveform
from model import load
from model.options import LongForm, TranscribeOptions
from model.transcriber import Transcriber
from service.wire.messages import Failed, Finished, SegmentsReady, Transcribe
from service.worker.engine import Engine

AUDIO = Path(__file__).parents[1] / "tests" / "audio"
_RATE = 16_000
_LEAD_SECONDS = 3.0
"""How long the long file runs before the short clip comes."""


def run(transcriber: Transcriber, sounds: dict[str, torch.Tensor], long_form: LongForm, *, rows: int) -> dict[str, Any]:
    """Seconds from submission to the end of each sound, the first at once and the others three seconds later."""
    engine = Engine(transcriber, max_rows=rows, windows_per_encode=1)
    options = TranscribeOptions(language="en", long_form=long_form)
    start = time.perf_counter()
    waiting = {name: (0.0 if number == 0 else _LEAD_SECONDS) for number, name in enumerate(sounds)}
    sent: dict[str, float] = {}
    ends: dict[str, float] = {}
    first: dict[str, float] = {}
    while len(ends) < len(sounds):
        now = time.perf_counter() - start
        for name in [name for name, at in waiting.items() if at <= now]:
            sent[name] = now
            del waiting[name]
            engine.submit(Transcribe(name, "float32", len(sounds[name]), options, None), sounds[name], now)
        for message in engine.iterate(now):
            passed = time.perf_counter() - start - sent[message.request_id] if hasattr(message, "request_id") else 0.0
            if isinstance(message, SegmentsReady):
                first.setdefault(message.request_id, passed)
            elif isinstance(message, Finished | Failed):
                ends[message.request_id] = passed
    steps = engine.batch.steps
    return {
        "long_form": long_form,
        "seconds": {name: round(end, 2) for name, end in ends.items()},
        "first_segment": {name: round(at, 2) for name, at in first.items()},
        "rows": round(sum(rows * count for rows, count in steps.items()) / max(1, steps.total()), 2),
        "windows": engine.stats.encodes,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run both ways, alone and with company."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lanes", description=__doc__)
    parser.add_argument("long", nargs="?", type=Path, default=AUDIO / "en-printing.ogg")
    parser.add_argument("short", nargs="?", type=Path, default=AUDIO / "en-jfk.flac")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=16)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    transcriber = load("base", "cpu", "float32")
    long, short = (torch.from_numpy(read_waveform(path)) for path in (options.long, options.short))
    short = short[: 3 * _RATE]
    results = [{"alone": True, **run(transcriber, {"short": short}, "sequential", rows=options.rows)}]
    for _ in range(options.rounds):
        for sounds in ({"long": long}, {"long": long, "short": short}):
            modes: tuple[LongForm, LongForm] = ("sequential", "batched")
            results += [
                {"alone": len(sounds) == 1, **run(transcriber, sounds, mode, rows=options.rows)} for mode in modes
            ]
    for result in results:
        sys.stdout.write(f"{result}\n")
    card = {"bench": "lanes", "seconds": len(long) / _RATE, "threads": options.threads, "results": results}
    sys.stdout.write(json.dumps(card) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

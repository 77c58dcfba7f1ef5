"""Ours and three others with random weights of one size on one device, in turn: speed, and no texts.

    python -m benchmarks.random_peers --random large-v3 --device cuda [--rows 64] [--tokens 110] [--rounds 3]

Each is given as many windows of 30 s as there are rows, at once, and makes 110 tokens of every one, greedily, in the
device's number format: ours through the service's engine, captured where the device captures; transformers with SDPA
and its static cache, which it compiles on a GPU; openai-whisper by its own batched `decode`; faster-whisper by the
engine that computes in it. Log-Mel is part of it, of one window for the last two (`benchmarks.peer.random_engines`). A
round runs all of them, the next in the opposite order, and ratios are of one round. Who is not installed is named and
left out; what `benchmarks.peers --build` installed in its environments counts. What the texts are worth is
`benchmarks.peers`, with the real weights of base. Prints a table, with shares of the roofline by the device's ceilings
as measured in the same run, and one JSON line.
"""

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.machine.card import TOKENS, CardBounds, measure_card
from benchmarks.machine.device import device_name, wait
from benchmarks.peer.random_engines import FasterWhisper, OpenaiWhisper, Ours, Peer, Transformers
from model.dims import CHUNK_LENGTH

OURS = "ours"
CACHE = Path.home() / ".cache" / "whisper-service" / "peers"
"""Where `benchmarks.peers` keeps its environments."""


def borrow(cache: Path) -> None:
    """Find the packages of the peers' environments too, after everything that is installed here."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for environment in ("transformers", "faster-whisper"):
        folder = cache / environment / "lib" / version / "site-packages"
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.append(str(folder))


def peers(size: str, device: torch.device, rows: int, tokens: int) -> tuple[dict[str, Peer], dict[str, str]]:
    """Those that are installed, ours first; and why the others are not there."""
    ours = Ours(size, device, rows, tokens)
    makers: dict[str, tuple[str, Callable[[], Peer]]] = {
        "transformers": ("transformers", lambda: Transformers(ours.dims, device, tokens)),
        "openai-whisper": ("whisper", lambda: OpenaiWhisper(ours.dims, device, tokens)),
        "faster-whisper": ("ctranslate2", lambda: FasterWhisper(size, device, tokens)),
    }
    found: dict[str, Peer] = {OURS: ours}
    missing: dict[str, str] = {}
    for name, (package, make) in makers.items():
        try:
            importlib.import_module(package)
            found[name] = make()
        except Exception as error:  # not there, or of a version that wants to be asked otherwise
            missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return found, missing


def measure(
    found: dict[str, Peer], missing: dict[str, str], device: torch.device, *, rows: int, tokens: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds of every round; one before them warms up.

    A peer that raises, or does not make the tokens that it should, becomes a missing one, with its reason.
    """
    seconds: dict[str, list[float]] = {name: [] for name in found}
    order = list(found)
    for number in range(rounds + 1):
        for name in list(order):
            wait(device)
            begin = time.perf_counter()
            try:
                made = found[name].decode(rows)
                if made != tokens:
                    raise RuntimeError(f"made {made} tokens of a window, not {tokens}")
            except Exception as error:
                missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                order.remove(name)
                del seconds[name]
                continue
            wait(device)
            if number:
                seconds[name].append(time.perf_counter() - begin)
                # At once: who runs out of time keeps what was measured.
                told = {"bench": "random_peers", "round": number, "name": name, "seconds": seconds[name][-1]}
                sys.stdout.write(json.dumps(told) + "\n")
                sys.stdout.flush()
        order.reverse()
    return seconds


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 2 where the device is not there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.random_peers", description=__doc__)
    parser.add_argument("--random", metavar="SIZE", default="large-v3", help="published size")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=CACHE, help="of benchmarks.peers, for its environments")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.stderr.write("no CUDA device here: nothing was measured (--device cpu tries the path)\n")
        return 2
    borrow(options.cache)
    device = torch.device(options.device)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    card = measure_card(device, dtype)  # before the peers are there, whose threads may spin
    found, missing = peers(options.random, device, options.rows, options.tokens)
    ours = found[OURS]
    assert isinstance(ours, Ours)
    bound = CardBounds(ours.dims, card, dtype.itemsize).speed(options.rows, options.tokens)
    seconds = measure(found, missing, device, rows=options.rows, tokens=options.tokens, rounds=options.rounds)
    if OURS not in seconds:
        sys.stderr.write(f"ours failed: {missing[OURS]}\n")
        return 1
    run = {"bench": "random_peers", "model": options.random, "device": device_name(device), "rows": options.rows}
    run |= {"card": asdict(card), "bound_speed": bound}
    run |= {"tokens": options.tokens, "seconds": seconds, "missing": missing}
    for name, times in seconds.items():
        ratio = statistics.median(their / our for their, our in zip(times, seconds[OURS], strict=True))
        speed = CHUNK_LENGTH * options.rows / statistics.median(times)
        sys.stdout.write(
            f"{name:16} {statistics.median(times):8.2f} s   RTFx {speed:8.1f}   {ratio:6.2f} x our time"
            f"   {100 * speed / bound:5.0f} % of the roofline\n"
        )
    sys.stdout.write("".join(f"not measured, {name}: {reason}\n" for name, reason in missing.items()))
    sys.stdout.write(json.dumps(run) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

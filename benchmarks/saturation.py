"""How much audio a device does in a second when it is never idle, and what one request waits for: the service's engine.

    python -m benchmarks.saturation --random large-v3 --device cuda --cuda-graphs [--rows 64] [--inline]

Windows are whole (30 s of made sound), greedy, without timestamps, and made to have 110 tokens; weights are random,
since the time does not depend on them. Requests go through `service.worker.engine`, all of its scheduling included,
without processes around it: first one after the other, then always more than it takes, not counting those that end
before its rows were full. Each speed stands beside the roofline (`benchmarks.machine.card`) with the card's ceilings as
measured in the same run. `--inline` tells what it gains to encode beside the decode steps: a second engine encodes
between them, and the two take turns. Prints a card for people and one JSON line.

Needs torch, numpy, tiktoken, safetensors and pydantic; no codec and nothing of HTTP.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine.arguments import add_compute_options, compute_options
from benchmarks.machine.card import TOKENS, CardBounds, measure_card
from benchmarks.machine.device import device_name, wait
from benchmarks.machine.random_model import forced_options, made_sound, random_transcriber
from model import Transcriber
from model.dims import CHUNK_LENGTH
from model.gpu.beside import SideStream
from model.native.quantize import cross_kv_name, decoder_name
from service.wire.messages import Failed, Finished, Transcribe
from service.worker.engine import STEPS_BETWEEN_ENCODES, Engine


@dataclass(frozen=True, slots=True)
class Saturated:
    """What came of a queue that was never empty."""

    windows: int
    """Counted."""
    seconds: float
    mean_rows: float
    """Rows of a step."""

    @property
    def speed(self) -> float:
        """Seconds of audio a second (RTFx)."""
        return CHUNK_LENGTH * self.windows / self.seconds


class Saturation:
    """An engine of so many rows, and requests of a whole window."""

    def __init__(
        self,
        transcriber: Transcriber,
        *,
        rows: int,
        windows_per_encode: int,
        tokens: int = TOKENS,
        steps_between_encodes: int = STEPS_BETWEEN_ENCODES,
        overlaps: bool = True,
        beams: int = 1,
    ) -> None:
        """`tokens`: what every window is made to have, its first one included; `beams`: its rows.

        `overlaps`: whether windows are encoded beside the decode steps, where the service does so.
        """
        self._device = transcriber.model.device
        self._at_once = rows // beams
        fast = self._device.type == "cuda" and transcriber.model.captures_steps
        beside = SideStream(self._device) if fast and overlaps else None
        self._engine = Engine(
            transcriber,
            max_rows=rows,
            windows_per_encode=windows_per_encode,
            beside=beside,
            steps_between_encodes=steps_between_encodes,
        )
        # Without timestamps a window is heard to its end whatever the text, so a request is one window.
        forced = forced_options(transcriber.tokenizer, tokens)
        self._options = replace(forced, without_timestamps=True, beam_size=beams if beams > 1 else None)
        self._sound: Tensor = made_sound()
        self._sent, self._open = 0, set[str]()

    def alone(self, repeats: int) -> float:
        """Median seconds of a request that has the device to itself."""
        times = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            self.together(1)
            wait(self._device)
            times.append(time.perf_counter() - begin)
        return statistics.median(times[1:])

    def together(self, windows: int) -> None:
        """Decode so many windows that come at once, to the end of the last."""
        for _ in range(windows):
            self._submit()
        for _ in self._finished():
            pass

    def saturated(self, windows: int) -> Saturated:
        """So many windows, as fast as they go by, once as many as there is room for have ended; more always wait."""
        self._engine.batch.steps.clear()
        for _ in range(2 * self._at_once):
            self._submit()
        done, begin, end = 0, 0.0, 0.0
        for _ in self._finished():
            done, end = done + 1, time.perf_counter()
            if done == self._at_once:
                begin = end
            if done == self._at_once + windows:
                break
            self._submit()
        for request_id in list(self._open):
            self._engine.cancel(request_id)
        steps = self._engine.batch.steps
        mean = sum(rows * count for rows, count in steps.items()) / max(1, steps.total())
        return Saturated(windows, end - begin, mean)

    def _submit(self) -> None:
        request = Transcribe(f"r{self._sent}", "int16", len(self._sound), self._options, None)
        self._sent += 1
        self._open.add(request.request_id)
        for refusal in self._engine.submit(request, self._sound, time.monotonic()):
            raise RuntimeError(f"the engine refused a request: {refusal}")

    def _finished(self) -> Iterator[None]:
        """A pause for each request that ends."""
        while self._engine.busy:
            for message in self._engine.iterate(time.monotonic()):
                if isinstance(message, Failed):
                    raise RuntimeError(f"a request failed: {message.message}")
                if isinstance(message, Finished):
                    self._open.remove(message.request_id)
                    yield


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 2 where the device is not there."""
    options = parser().parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.stderr.write("no CUDA device here: nothing was measured (--device cpu tries the path)\n")
        return 2
    transcriber = random_transcriber(options.random, options.device, compute_options(options))
    model = transcriber.model
    model.fuses_steps &= not options.unfused
    run: dict[str, Any] = {"bench": "saturation", "model": options.random, "device": device_name(model.device)}
    run |= {"torch": torch.__version__, "compute_type": model.compute_type, "decoder": decoder_name(model)}
    run |= {"cross_kv": cross_kv_name(model), "cuda_graphs": model.captures_steps, "fused": model.fuses_steps}
    run |= {"rows": options.rows, "beams": options.beams, "left_out": dict(transcriber.left_out)}
    run |= {"windows_per_encode": options.windows_per_encode, "steps_between_encodes": options.steps_between_encodes}
    sys.stdout.write(", ".join(f"{name} {value}" for name, value in run.items()) + "\n")
    card = measure_card(model.device, model.dtype)
    bounds = CardBounds(transcriber.dims, card, model.dtype.itemsize, model.cross_kv)
    engine = _engine(transcriber, options)
    run |= {"tokens": options.tokens, "card": asdict(card), "alone_s": engine.alone(options.repeats)}
    sys.stdout.write(_alone(run["alone_s"], bounds, options.beams))  # at once: who runs out of time keeps it
    sys.stdout.flush()
    many = engine.saturated(options.windows)
    run |= {"saturated": {**asdict(many), "speed": many.speed}, "bound_speed": _bound(run, bounds)}
    run |= {"bound_alone_s": bounds.window(options.beams, beams=options.beams), "peak_bytes": _peak_bytes(model.device)}
    sys.stdout.write(_card(run, many, bounds))
    sys.stdout.flush()
    if options.inline:
        run["beside_and_inline"] = in_turn(engine, _engine(transcriber, options, overlaps=False), options.windows)
        sys.stdout.write(_gain(run["beside_and_inline"]))
    sys.stdout.write(json.dumps(run) + "\n")
    return 0


def in_turn(one: Saturation, other: Saturation, windows: int) -> list[tuple[float, float]]:
    """Speeds of both with so many windows, in the order one, other, other, one."""
    first = one.saturated(windows).speed, other.saturated(windows).speed
    second = other.saturated(windows).speed, one.saturated(windows).speed
    return [first, (second[1], second[0])]


def _engine(transcriber: Transcriber, options: argparse.Namespace, *, overlaps: bool = True) -> Saturation:
    return Saturation(
        transcriber,
        rows=options.rows,
        windows_per_encode=options.windows_per_encode,
        tokens=options.tokens,
        steps_between_encodes=options.steps_between_encodes,
        overlaps=overlaps,
        beams=options.beams,
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.saturation", description=__doc__)
    command.add_argument("--random", metavar="SIZE", default="base", help="published size, with random weights")
    command.add_argument("--device", default="cuda")
    add_compute_options(command)
    command.add_argument("--unfused", action="store_true", help="of kernels of ours that for attention alone")
    command.add_argument("--inline", action="store_true", help="compare with encoding between the steps")
    command.add_argument("--rows", type=int, default=64)
    command.add_argument("--beams", type=int, default=1, help="rows that search for the text of one window")
    command.add_argument("--windows", type=int, default=256, help="counted, beyond the first rows")
    command.add_argument("--windows-per-encode", type=int, default=8)
    command.add_argument("--steps-between-encodes", type=int, default=STEPS_BETWEEN_ENCODES)
    command.add_argument("--tokens", type=int, default=TOKENS)
    command.add_argument("--repeats", type=int, default=5, help="requests by themselves")
    return command


def _alone(seconds: float, bounds: CardBounds, beams: int) -> str:
    share = 100 * bounds.window(beams, beams=beams) / seconds
    return f"one request of 30 s    {1e3 * seconds:9.1f} ms   {share:5.0f} % of the roofline\n"


def _bound(run: dict[str, Any], bounds: CardBounds) -> float:
    beams = run["beams"]
    return bounds.speed(run["rows"] // beams * beams, run["tokens"], beams)


def _card(run: dict[str, Any], many: Saturated, bounds: CardBounds) -> str:
    """What people read."""
    card, rows, bound = bounds.card, run["rows"], _bound(run, bounds)
    return (
        f"product {card.product_per_s / 1e12:.1f} TFLOP/s, copy {card.copy_bytes_per_s / 1e9:.0f} GB/s\n"
        f"{rows:3} rows, saturated   RTFx {many.speed:8.1f}   {100 * many.speed / bound:5.0f} % of "
        f"{bound:.0f}, {many.mean_rows:.1f} rows a step, {many.windows} windows\n"
        f"memory at most {run['peak_bytes'] / 2**20:.0f} MiB\n"
    )


def _gain(pairs: list[tuple[float, float]]) -> str:
    ratios = [beside / inline for beside, inline in pairs]
    return f"encoded beside the steps {statistics.mean(ratios):5.2f} x the speed of between them, {ratios}\n"


def _peak_bytes(device: torch.device) -> int:
    """Most memory of the device that torch held; 0 on a CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


if __name__ == "__main__":
    raise SystemExit(main())

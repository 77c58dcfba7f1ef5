"""Where the time of a window goes: log-Mel, encoder, cross keys and values, prefill, and a decode step by rows.

    python -m benchmarks.stages [--rows 1 2 4 8 16 32] [--repeats 10]
    python -m benchmarks.stages --device cuda --random large-v3 --cuda-graphs --encode 1 2 4 8 16 --rows 1 8 16 32 64

Medians over real speech, each beside its share of the roofline (`benchmarks.machine.roofline`, of the same run). What a
step of one row takes more than the decoder alone is rules, sampling and Python; `window` is the sum of what a window of
110 tokens takes among so many. Prints a card for people and one JSON line. With `--random` the model is one of its size
with random weights, every window is made to have 110 tokens, and the card ends with whole windows by rows, from samples
to text (RTFx counts each as 30 s).
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine.arguments import add_compute_options, compute_options
from benchmarks.machine.card import CardBounds, measure_card
from benchmarks.machine.device import device_name, wait
from benchmarks.machine.random_model import forced_options, made_sound, random_transcriber
from benchmarks.machine.roofline import Bounds, measure
from model import Transcriber, load
from model.decoding.batch import DecodingBatch, run_to_end
from model.decoding.inference import make_inference
from model.dims import CHUNK_LENGTH, N_FRAMES
from model.mel import MelSpan
from model.native.quantize import cross_kv_name, decoder_name
from model.network.whisper import Whisper
from model.options import TranscribeOptions
from model.window import Window

CLIP = Path(__file__).parents[1] / "tests" / "audio" / "en-printing.ogg"
LANGUAGE = "en"
_SOT = 4
"""Tokens of the start of transcript."""
_CLIP_FRAMES = 500
"""Frames of a clip that leaves most of its window empty."""
_TOKENS = 110
"""Tokens of a window of fast speech."""
_AT_ONCE = 8
"""Steps that a GPU is given before anybody waits for it: the host is ahead of it, as in a service."""


class Stages:
    """A loaded model and one full window of speech."""

    def __init__(self, transcriber: Transcriber, samples: Tensor, *, repeats: int, forced: int | None = None) -> None:
        """`forced`: tokens that every window is made to have; None lets each end where it ends."""
        self._transcriber, self._repeats = transcriber, repeats
        self._model = transcriber.model
        self._at_once = _AT_ONCE if self._model.device.type == "cuda" else 1
        self._options = TranscribeOptions(language=LANGUAGE, temperature=(0.0,))
        if forced is not None:
            self._options = forced_options(transcriber.tokenizer, forced)
        self._span = MelSpan(samples, 0, N_FRAMES, transcriber.log_mel.maximum(samples))
        self._mel = transcriber.log_mel.windows([self._span]).to(self._model.dtype)

    def window_stages(self) -> dict[str, float]:
        """Median seconds of what is done once a window."""
        with torch.inference_mode():
            features = self._model.encode(self._mel)
            short = self._mel.clone()
            short[:, :, _CLIP_FRAMES:] = 0.0
            inference = make_inference(self._model, n_windows=1, n_rows=1)
            stages: dict[str, Callable[[], object]] = {
                "log_mel": lambda: self._transcriber.log_mel.windows([self._span]),
                "encoder": lambda: self._model.encode(self._mel),
                "encoder_5_s": lambda: self._model.encode(short, [_CLIP_FRAMES]),
                "cross_kv": lambda: inference.fill_windows(features, [0]),
            }
            times = {name: self._median(stage) for name, stage in stages.items()}
        times["prefill"] = self._prefill(prompt=())
        times["prefill_223_prompt"] = self._prefill(prompt=(220,) * 223)
        return times

    def encoder(self, windows: int) -> float:
        """Median seconds of an encoder pass over so many windows."""
        mel = self._mel.repeat(windows, 1, 1)
        with torch.inference_mode():
            return self._median(lambda: self._model.encode(mel))

    def decoder(self) -> float:
        """Median seconds of the decoder alone for one row, which `step` takes the rest to."""
        with torch.inference_mode():
            inference = make_inference(self._model, n_windows=1, n_rows=1)
            inference.fill_windows(self._model.encode(self._mel), [0])
            inference.prefill((220,) * 16, row=0, window=0, keep=(0,))
            return self._median(lambda: inference.step([220], lengths=[16], windows=[0]))

    def step(self, rows: int) -> float:
        """Median seconds of a decode step while this many windows, of one recording each, are under way."""
        batch = DecodingBatch(self._model, self._transcriber.tokenizer, max_windows=rows)
        for _ in range(rows):
            (slot,) = batch.encode(self._mel)
            batch.start(slot, Window(0, 0, N_FRAMES, LANGUAGE), self._options)
        times: list[float] = []
        while batch.active_rows == rows and len(times) < 4 * self._repeats:
            seconds = self._seconds(lambda: [batch.step() for _ in range(self._at_once)])
            if not times or batch.active_rows == rows:
                times.append(seconds / self._at_once)
        return statistics.median(times)

    def whole(self, rows: int) -> float:
        """Median seconds from samples to text of this many windows that begin together, heard one by one."""
        batch = DecodingBatch(self._model, self._transcriber.tokenizer, max_windows=rows)

        def decode() -> None:
            for _ in range(rows):
                (slot,) = batch.encode(self._transcriber.log_mel.windows([self._span]))
                batch.start(slot, Window(0, 0, N_FRAMES, LANGUAGE), self._options)
            for _ in run_to_end(batch):
                pass

        return self._median(decode)

    def _prefill(self, prompt: tuple[int, ...]) -> float:
        batch = DecodingBatch(self._model, self._transcriber.tokenizer, max_windows=1)
        times = []
        for _ in range(self._repeats):
            (slot,) = batch.encode(self._mel)
            start = partial(batch.start, slot, Window(0, 0, N_FRAMES, LANGUAGE, prompt), self._options)
            times.append(self._seconds(start))
            batch.drop(slot)
        return statistics.median(times)

    def _median(self, stage: Callable[[], object]) -> float:
        stage()
        return statistics.median(self._seconds(stage) for _ in range(self._repeats))

    def _seconds(self, stage: Callable[[], object]) -> float:
        wait(self._model.device)
        begin = time.perf_counter()
        stage()
        wait(self._model.device)
        return time.perf_counter() - begin


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("--model", default="base")
    parser.add_argument("--random", metavar="SIZE", help="random weights of this size instead of a model")
    parser.add_argument("--device", default="cpu")
    add_compute_options(parser)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--encode", type=int, nargs="*", default=[], metavar="N", help="windows of an encoder pass")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.stderr.write("no CUDA device here: nothing was measured (--device cpu tries the path)\n")
        return 2
    torch.set_num_threads(options.threads)
    transcriber, samples = _loaded(options)
    stages = Stages(transcriber, samples, repeats=options.repeats, forced=_TOKENS if options.random else None)
    settings = {"model": f"{options.random}, random" if options.random else options.model}
    settings |= {"device": device_name(transcriber.model.device), "threads": options.threads}
    settings |= {"cuda_graphs": transcriber.model.captures_steps}
    settings |= {"compute_type": transcriber.model.compute_type, "decoder": decoder_name(transcriber.model)}
    settings |= {"cross_kv": cross_kv_name(transcriber.model), "left_out": dict(transcriber.left_out)}
    sys.stdout.write(", ".join(f"{name} {value}" for name, value in settings.items()) + "\n")
    result = {"bench": "stages", **settings, "dims": asdict(transcriber.dims)}
    result |= _report(transcriber.model, stages, options.rows, whole=bool(options.random))
    if options.encode:
        result |= _encoder(transcriber.model, stages, options.encode)
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def _loaded(options: argparse.Namespace) -> tuple[Transcriber, Tensor]:
    """The model, and what it hears: where weights are random so is the sound, and no codec is needed."""
    if options.random is None:
        from benchmarks.accuracy.waveform import read_waveform

        transcriber = load(options.model, options.device, **asdict(compute_options(options)))
        return transcriber, torch.from_numpy(read_waveform(CLIP))
    return random_transcriber(options.random, options.device, compute_options(options)), made_sound()


def _report(model: Whisper, stages: Stages, rows: list[int], *, whole: bool) -> dict[str, Any]:
    """Print what is measured, as it is measured; all of it."""
    weight = 1 if model.compute_type == "int8" else model.dtype.itemsize
    bounds = Bounds(model.dims, measure(model), weight, weight if model.cross_kv == "auto" else 1)
    least = {
        "encoder": bounds.encoder,
        "cross_kv": bounds.cross_kv,
        "prefill": bounds.step(_SOT, windows=1),
        "prefill_223_prompt": bounds.step(_SOT + 224, windows=1),
    }
    window = stages.window_stages()
    for name, seconds in window.items():
        _write(name, seconds, least.get(name))
    decoder = stages.decoder()
    _write("decoder alone, 1 row", decoder, bounds.step(1))
    steps = {n: stages.step(n) for n in rows}
    for n, seconds in steps.items():
        _write(f"step, {n:2} rows", seconds, bounds.step(n))
    begin = sum(window[name] for name in ("log_mel", "encoder", "cross_kv", "prefill"))
    least_begin = sum(least[name] for name in ("encoder", "cross_kv", "prefill"))
    for n, seconds in steps.items():
        _write(f"window, {n:2} at once", begin + _TOKENS * seconds / n, least_begin + _TOKENS * bounds.step(n) / n)
    result = {
        "ceilings": asdict(bounds.ceilings),
        "window_s": window | {"decoder_1_row": decoder},
        "window_bound_s": least,
        "step_s": steps,
        "step_bound_s": {n: bounds.step(n) for n in steps},
    }
    return result | ({"whole_s": _whole(stages, rows)} if whole else {})


def _encoder(model: Whisper, stages: Stages, windows: list[int]) -> dict[str, Any]:
    """Encoder passes of so many windows, beside what the card's largest product would take."""
    card = measure_card(model.device, model.dtype)
    least = CardBounds(model.dims, card, model.dtype.itemsize).encoder
    seconds = {n: stages.encoder(n) for n in windows}
    for n, value in seconds.items():
        _write(f"encoder, {n:2} windows", value, n * least)
    return {"encoder_s": seconds, "card": asdict(card)}


def _whole(stages: Stages, rows: list[int]) -> dict[int, float]:
    """Whole windows, and the rate at which they go by."""
    seconds = {n: stages.whole(n) for n in rows}
    for n, value in seconds.items():
        sys.stdout.write(f"windows, {n:2} together   {1e3 * value:9.2f} ms   RTFx {CHUNK_LENGTH * n / value:8.1f}\n")
    return seconds


def _write(name: str, seconds: float, least: float | None) -> None:
    share = "" if least is None else f"   {100 * least / seconds:5.0f} % of the roofline"
    sys.stdout.write(f"{name:22} {1e3 * seconds:9.2f} ms{share}\n")


if __name__ == "__main__":
    raise SystemExit(main())

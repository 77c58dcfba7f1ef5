"""Where the time of a window goes: log-Mel, encoder, cross keys and values, prefill, and a decode step by rows.

    python -m benchmarks.stages [--rows 1 2 4 8 16 32] [--repeats 10]
    python -m benchmarks.stages --device cuda --random large-v3 --rows 1 8 16 32 64

Medians over real speech. Prints a card for people and one JSON line; a regression shows which stage it is in. With
`--random` the model is one of that size with random weights, every window is made to have 110 tokens, and the card ends
with whole windows by rows (RTFx counts each as 30 s) and what the device does at most, measured in the same run: a
product of matrices, a copy.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.random_model import random_transcriber
from benchmarks.waveform import read_waveform
from model import Transcriber, load
from model.decode import DecodingBatch, run_to_end
from model.dims import CHUNK_LENGTH, N_FRAMES
from model.inference import make_inference
from model.mel import MelSpan
from model.options import TranscribeOptions
from model.quantize import decoder_name
from model.window import Window

CLIP = Path(__file__).parents[1] / "tests" / "audio" / "en-printing.ogg"
LANGUAGE = "en"
_CLIP_FRAMES = 500
"""Frames of a clip that leaves most of its window empty."""
_TOKENS = 110
"""Tokens of a window of fast speech, where their number is forced."""


class Stages:
    """A loaded model and one full window of speech."""

    def __init__(self, transcriber: Transcriber, samples: Tensor, *, repeats: int, forced: int | None = None) -> None:
        """`forced`: tokens that every window is made to have; None lets each end where it ends."""
        self._transcriber, self._repeats = transcriber, repeats
        self._model = transcriber.model
        self._options = TranscribeOptions(language=LANGUAGE, temperature=(0.0,))
        if forced is not None:
            self._options = replace(
                self._options,
                sample_len=forced,
                suppress_tokens=(-1, transcriber.tokenizer.eot),
                logprob_threshold=None,
                compression_ratio_threshold=None,
                no_speech_threshold=None,
                guards=False,
            )
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

    def step(self, rows: int) -> float:
        """Median seconds of a decode step while this many windows, of one recording each, are under way."""
        batch = DecodingBatch(self._model, self._transcriber.tokenizer, max_windows=rows)
        for _ in range(rows):
            (slot,) = batch.encode(self._mel)
            batch.start(slot, Window(0, 0, N_FRAMES, LANGUAGE), self._options)
        times: list[float] = []
        while batch.active_rows == rows and len(times) < 4 * self._repeats:
            times.append(self._seconds(batch.step))
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

    def ceilings(self) -> dict[str, float]:
        """What the device does at most in the model's format: operations a second of a product, bytes of a copy."""
        device, dtype = self._model.device, self._model.dtype
        size = 8192 if device.type == "cuda" else 1024
        matrix = torch.ones(size, size, device=device, dtype=dtype)
        source = torch.ones(size * size * 8, device=device, dtype=torch.uint8)
        target = torch.empty_like(source)
        product, copy = self._median(lambda: matrix @ matrix), self._median(lambda: target.copy_(source))
        return {"product_per_s": 2 * size**3 / product, "copy_bytes_per_s": 2 * source.nbytes / copy}

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
        self._wait()
        begin = time.perf_counter()
        stage()
        self._wait()
        return time.perf_counter() - begin

    def _wait(self) -> None:
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("--model", default="base")
    parser.add_argument("--random", metavar="SIZE", help="random weights of this size instead of a model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compute-type", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cuda-graphs", action="store_true", help="replay captured steps")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    build = load if options.random is None else random_transcriber
    transcriber = build(options.random or options.model, options.device, options.compute_type)
    transcriber.model.captures_steps = options.cuda_graphs
    samples = torch.from_numpy(read_waveform(CLIP))
    stages = Stages(transcriber, samples, repeats=options.repeats, forced=_TOKENS if options.random else None)
    settings = {"model": f"{options.random}, random" if options.random else options.model}
    settings |= {"device": _device_name(transcriber.model.device), "threads": options.threads}
    settings |= {"cuda_graphs": options.cuda_graphs and transcriber.model.device.type == "cuda"}
    settings |= {"compute_type": transcriber.model.compute_type, "decoder": decoder_name(transcriber.model)}
    sys.stdout.write(", ".join(f"{name} {value}" for name, value in settings.items()) + "\n")
    result = {"bench": "stages", **settings, "dims": asdict(transcriber.dims)}
    result |= _measure(stages, options.rows, whole=bool(options.random))
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def _measure(stages: Stages, rows: list[int], *, whole: bool) -> dict[str, dict[str, float]]:
    """Run all stages and print the card."""
    results = {"window_s": stages.window_stages(), "step_s": {str(n): stages.step(n) for n in rows}}
    for name, seconds in results["window_s"].items():
        sys.stdout.write(f"{name:22} {1e3 * seconds:9.2f} ms\n")
    for n, seconds in results["step_s"].items():
        rate = int(n) / seconds
        sys.stdout.write(f"step, {n:>2} rows          {1e3 * seconds:9.2f} ms   {rate:8.1f} tokens a second\n")
    if whole:
        results |= {"whole_s": {str(n): stages.whole(n) for n in rows}, "ceilings": stages.ceilings()}
        for n, seconds in results["whole_s"].items():
            rate = CHUNK_LENGTH * int(n) / seconds
            sys.stdout.write(f"windows, {n:>2} together    {1e3 * seconds:9.2f} ms   RTFx {rate:8.1f}\n")
        for name, value in results["ceilings"].items():
            sys.stdout.write(f"{name:22} {value:9.3g}\n")
    return results


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


if __name__ == "__main__":
    raise SystemExit(main())

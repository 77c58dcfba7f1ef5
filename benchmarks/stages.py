"""Where the time of a window goes: log-Mel, encoder, cross keys and values, prefill, and a decode step by rows.

    python -m benchmarks.stages [--rows 1 2 4 8 16 32] [--repeats 10]

Medians over real speech. Prints a card for people and one JSON line; a regression shows which stage it is in.
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

import torch
from torch import Tensor

from benchmarks.waveform import read_waveform
from model import Transcriber, load
from model.decode import DecodingBatch
from model.dims import N_FRAMES
from model.inference import make_inference
from model.mel import MelSpan
from model.options import TranscribeOptions
from model.quantize import decoder_name
from model.window import Window

CLIP = Path(__file__).parents[1] / "tests" / "audio" / "en-printing.ogg"
LANGUAGE = "en"
_CLIP_FRAMES = 500
"""Frames of a clip that leaves most of its window empty."""


class Stages:
    """A loaded model and one full window of speech."""

    def __init__(self, transcriber: Transcriber, samples: Tensor, *, repeats: int) -> None:
        self._transcriber, self._repeats = transcriber, repeats
        self._model = transcriber.model
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
        options = TranscribeOptions(language=LANGUAGE, temperature=(0.0,))
        for _ in range(rows):
            (slot,) = batch.encode(self._mel)
            batch.start(slot, Window(0, 0, N_FRAMES, LANGUAGE), options)
        times: list[float] = []
        while batch.active_rows == rows and len(times) < 4 * self._repeats:
            times.append(self._seconds(batch.step))
        return statistics.median(times)

    def _prefill(self, prompt: tuple[int, ...]) -> float:
        batch = DecodingBatch(self._model, self._transcriber.tokenizer, max_windows=1)
        options = TranscribeOptions(language=LANGUAGE, temperature=(0.0,))
        times = []
        for _ in range(self._repeats):
            (slot,) = batch.encode(self._mel)
            start = partial(batch.start, slot, Window(0, 0, N_FRAMES, LANGUAGE, prompt), options)
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
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compute-type", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    transcriber = load(options.model, options.device, options.compute_type)
    samples = torch.from_numpy(read_waveform(CLIP)).to(transcriber.model.device)
    stages = Stages(transcriber, samples, repeats=options.repeats)
    settings = {name: getattr(options, name) for name in ("model", "device", "threads")}
    settings |= {"compute_type": transcriber.model.compute_type, "decoder": decoder_name(transcriber.model)}
    sys.stdout.write(", ".join(f"{name} {value}" for name, value in settings.items()) + "\n")
    window = stages.window_stages()
    for name, seconds in window.items():
        sys.stdout.write(f"{name:22} {1e3 * seconds:9.2f} ms\n")
    steps = {}
    for rows in options.rows:
        steps[str(rows)] = seconds = stages.step(rows)
        sys.stdout.write(
            f"step, {rows:2} rows          {1e3 * seconds:9.2f} ms   {rows / seconds:8.1f} tokens a second\n"
        )
    result = {"bench": "stages", **settings, "dims": asdict(transcriber.dims), "window_s": window, "step_s": steps}
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Every peer that installs beside us: the same recordings, weights, decode settings and threads, in turn in one run.

    python -m benchmarks.peers CORPUS --build
    python -m benchmarks.peers CORPUS [--scenarios short clip minute long streams] [--systems NAME ...] [--device cuda]

The first command makes the peers' environments (pinned in `benchmarks.peer_table`) and their files of the base model's
weights in `--cache`; the second measures. Every system is a warm process; one computes while the others are held. A
round runs all of them once, the next in the opposite order (A B, B A, ...); ratios are of one round.

Scenarios: one request of 3.5, 11 and 60 s; a long recording of the corpus; eight streams of real requests, for which
each peer is first tried in every way that it has to serve several at once, and measured in its fastest. Results are
added to `--output`, so that a run may be split (`--systems`; ours always takes part); each run prints the whole table
and draws it beside the JSON. Decoding of audio files is left out for everybody.

`--device cuda` compares what runs on a GPU, in float16 (not tried on one); `--here` runs everybody in this environment
instead of one each, and whose packages are missing there is named and left out.
"""

import argparse
import contextlib
import random
import subprocess
import sys
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.corpus import Clip, read_corpus
from benchmarks.peer_process import Answer, PeerProcess
from benchmarks.peer_report import Record, merge, read, table, write
from benchmarks.peer_table import (
    CUDA_SYSTEMS,
    ENVIRONMENTS,
    OURS,
    OURS_CUDA,
    SYSTEMS,
    System,
    build_environment,
    build_weights,
    export_openvino,
    interpreter,
)
from benchmarks.scoring import Errors, Scorer
from benchmarks.waveform import read_waveform
from model.weights import load_weights

AUDIO = Path(__file__).parents[1] / "tests" / "audio"
SHIPPED = {"short": "en-stereo.flac", "clip": "en-jfk.flac", "minute": "en-printing.ogg"}
SCENARIOS = (*SHIPPED, "long", "streams")
_LONG = 120.0
_REQUEST = (2.0, 28.0)
"""Seconds of a stream's request: what fits a window, so that every peer may batch it."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is sent at once, as WAV, and what is said in it."""

    name: str
    key: str
    paths: tuple[Path, ...]
    texts: tuple[str, ...]
    seconds: float


def scenarios(corpus: Path, keys: Sequence[str], requests: int, cache: Path) -> list[Scenario]:
    """The recordings of every scenario, written to the cache as 16 kHz WAV; the same ones every time."""
    shipped = {clip.file: clip for clip in read_corpus(AUDIO)}
    english = [clip for clip in read_corpus(corpus, languages=("en",)) if clip.text]
    spoken = [clip for clip in english if clip.kind in ("read", "spontaneous")]
    short = [clip for clip in spoken if _REQUEST[0] <= clip.seconds <= _REQUEST[1]]
    chosen: dict[str, list[Clip]] = {key: [shipped[file]] for key, file in SHIPPED.items()}
    chosen["long"] = [clip for clip in english if clip.kind == "longform" and clip.seconds >= _LONG][:1]
    chosen["streams"] = random.Random(0).sample(short, min(requests, len(short)))
    return [_scenario(key, chosen[key], cache) for key in keys if chosen[key]]


def _scenario(key: str, clips: Sequence[Clip], cache: Path) -> Scenario:
    seconds = sum(clip.seconds for clip in clips)
    name = (
        f"8 streams, {len(clips)} requests of {seconds:.0f} s"
        if key == "streams"
        else f"one request of {seconds:.1f} s"
    )
    paths = tuple(_write_wav(clip.path, cache) for clip in clips)
    return Scenario(name, key, paths, tuple(str(clip.text) for clip in clips), seconds)


def _write_wav(source: Path, cache: Path) -> Path:
    target = cache / "audio" / f"{source.stem}.wav"
    target.parent.mkdir(parents=True, exist_ok=True)
    samples = np.clip(np.rint(read_waveform(source) * 32768), -32768, 32767).astype("<i2")
    with wave.open(str(target), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())
    return target


class Comparison:
    """Warm processes of some systems, and what they are asked."""

    def __init__(
        self, cache: Path, systems: Sequence[System], *, threads: int, rounds: int, here: bool = False
    ) -> None:
        """The first system is ours; `here`: all in this environment."""
        self._cache, self._threads, self._rounds, self._here = cache, threads, rounds, here
        self._systems = {system.name: system for system in systems}
        self._scorer = Scorer()
        self.missing: dict[str, str] = {}
        """Why a system takes no part."""

    def measure(self, scenario: Scenario) -> list[Record]:
        """A record for every system that starts."""
        with contextlib.ExitStack() as stack:
            processes: dict[str, PeerProcess] = {}
            setups: dict[str, tuple[str, dict[str, float]]] = {}
            for name, system in self._systems.items():
                try:
                    best, explored = self._fastest_setup(system, scenario)
                    extra = system.setups[best] if scenario.key == "streams" else {}
                    processes[name] = stack.enter_context(self._start(system, extra))
                    setups[name] = (best if scenario.key == "streams" else "", explored)
                except (RuntimeError, OSError) as error:
                    self.missing[name] = str(error)
            answers = self._rounds_of(scenario, processes)
        ours = [answer.seconds for answer in answers[next(iter(self._systems))]]
        return [self._record(scenario, name, *setups[name], ours, given) for name, given in answers.items()]

    def _fastest_setup(self, system: System, scenario: Scenario) -> tuple[str, dict[str, float]]:
        """The set-up in which eight of the requests take least time, and the time of each."""
        if scenario.key != "streams" or len(system.setups) == 1:
            return next(iter(system.setups)), {}
        explored = {}
        for setup, extra in system.setups.items():
            try:
                with self._start(system, extra) as process:
                    process.one(scenario.paths[0])
                    explored[setup] = round(process.many(scenario.paths[:8]).seconds, 3)
            except RuntimeError as error:
                self.missing[f"{system.name}, {setup}"] = str(error)
        if not explored:
            raise RuntimeError("no set-up of it works")
        return min(explored, key=explored.__getitem__), explored

    def _start(self, system: System, extra: Mapping[str, object]) -> PeerProcess:
        load = {"engine": system.engine, "threads": self._threads, **system.load, **extra}
        if system.weights is not None:
            load["path"] = str(self._cache / "weights" / system.weights)
        python = interpreter(self._cache, None if self._here else system.environment)
        return PeerProcess(python, load, log=self._cache / f"{system.engine}.log")

    def _rounds_of(self, scenario: Scenario, processes: Mapping[str, PeerProcess]) -> dict[str, list[Answer]]:
        """Answers by system: one to warm up, which is not kept, then every round in the opposite order."""
        answers: dict[str, list[Answer]] = {name: [] for name in processes}
        for process in processes.values():
            process.one(scenario.paths[0])
        order = list(processes)
        for _ in tqdm(range(self._rounds), desc=scenario.name, leave=False):
            for name in order:
                process = processes[name]
                many = scenario.key == "streams"
                answers[name].append(process.many(scenario.paths) if many else process.one(scenario.paths[0]))
            order.reverse()
        return answers

    def _record(
        self,
        scenario: Scenario,
        name: str,
        setup: str,
        explored: dict[str, float],
        ours: list[float],
        given: list[Answer],
    ) -> Record:
        pairs = zip(scenario.texts, given[-1].texts, strict=True)
        errors = sum((self._scorer.errors(said, printed, "en") for said, printed in pairs), Errors())
        rounds = tuple((round(first, 4), round(answer.seconds, 4)) for first, answer in zip(ours, given, strict=True))
        peak = max(answer.peak_bytes for answer in given)
        return Record(
            scenario.name, name, setup, round(scenario.seconds, 2), rounds, peak, errors.edits, errors.tokens, explored
        )


def build(cache: Path) -> dict[str, str]:
    """Make every environment and file; the answer says what could not be made, and why."""
    (cache / "weights").mkdir(parents=True, exist_ok=True)
    build_weights(cache / "weights", load_weights("base"))
    failed = {}
    for name in tqdm(ENVIRONMENTS, desc="environments"):
        try:
            build_environment(cache, name)
            if name == "openvino-export":
                export_openvino(cache, cache / "weights")
        except (subprocess.CalledProcessError, OSError) as error:
            failed[name] = str(error)
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Build or measure; 1 where a peer could not be built."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--build", action="store_true", help="make environments and weights, and measure nothing")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "whisper-service" / "peers")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--systems", nargs="+", choices=[system.name for system in (*SYSTEMS, *CUDA_SYSTEMS)])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--here", action="store_true", help="run every peer in this environment")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=16, help="requests of the eight streams together")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("results/peers.json"))
    options = parser.parse_args(arguments)
    if options.build:
        failed = build(options.cache)
        sys.stdout.write("".join(f"{name}: {reason}\n" for name, reason in failed.items()) or "all built\n")
        return int(bool(failed))
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("no CUDA device here: nothing was measured\n")
        return 2
    systems, ours = (CUDA_SYSTEMS, OURS_CUDA) if options.device == "cuda" else (SYSTEMS, OURS)
    chosen = [one for one in systems if options.systems is None or one.name in (ours, *options.systems)]
    comparison = Comparison(options.cache, chosen, threads=options.threads, rounds=options.rounds, here=options.here)
    records = read(options.output)
    for scenario in scenarios(options.corpus, options.scenarios, options.requests, options.cache):
        records = merge(records, comparison.measure(scenario))
        write(options.output, records, options.device, options.threads)
    sys.stdout.write(table(records))
    sys.stdout.write("".join(f"not measured, {name}: {reason}\n" for name, reason in comparison.missing.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Every peer that installs beside us: the same recordings, weights, decode settings and threads, in turn in one run.

    python -m benchmarks.peers CORPUS --build [--device cuda]
    python -m benchmarks.peers CORPUS [--scenarios short clip minute long streams] [--systems NAME ...] [--device cuda]

The first command makes the peers' environments (pinned in `benchmarks.peer.table`) and their files of the base model's
weights in `--cache`; the second measures. Every system is a warm process; one computes while the others are held. A
round runs all of them once, the next in the opposite order (A B, B A, ...); ratios are of one round.

Scenarios: one request of 3.5, 11 and 60 s; a long recording of the corpus; eight streams of real requests, for which
each peer is first tried in every way that it has to serve several at once, and measured in its fastest. Results are
added to `--output`, so that a run may be split (`--systems`; ours always takes part); each run prints the whole table
and draws it beside the JSON. Decoding of audio files is left out for everybody.

Everybody decodes greedily at temperature 0, so that all do the same work. `--defaults` lets everybody decode as it does
for who names nothing but the language: ours searches again and heeds its guards, faster-whisper has five beams.

`--device cuda` compares what runs on a GPU, in float16 (not tried on one). Whose environment is not built runs in this
one, as everybody does with `--here`; whose packages are missing there too is named and left out. Where there are no
codecs CORPUS is a file that `benchmarks.texts take` wrote, where the packages of base's weights are not installed
`--model` names them, and without the scorer's packages no words are counted.
"""

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.peer.process import Answer, PeerProcess
from benchmarks.peer.report import Record, merge, read, table, write
from benchmarks.peer.scenarios import SCENARIOS, Scenario, scenarios
from benchmarks.peer.table import (
    CUDA_SYSTEMS,
    OURS,
    OURS_CUDA,
    SYSTEMS,
    System,
    build_environment,
    build_weights,
    cuda_libraries,
    export_openvino,
    interpreter,
    is_built,
)


class Comparison:
    """Warm processes of some systems, and what they are asked."""

    def __init__(
        self,
        cache: Path,
        systems: Sequence[System],
        *,
        threads: int,
        rounds: int,
        model: str = "base",
        here: bool = False,
        defaults: bool = False,
    ) -> None:
        """The first system is ours, which reads `model`; `here`: all in this environment; `defaults`: of everybody."""
        self._cache, self._threads, self._rounds, self._here = cache, threads, rounds, here
        self._systems = {system.name: system for system in systems}
        self._model, self._defaults = model, defaults
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
        name = next(iter(self._systems))
        if name not in answers:
            raise RuntimeError(f"{name} failed: {self.missing[name]}")
        ours = [answer.seconds for answer in answers[name]]
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
        load = {"engine": system.engine, "threads": self._threads, "model": self._model, "defaults": self._defaults}
        load |= {**system.load, **extra}
        if system.weights is not None:
            load["path"] = str(self._cache / "weights" / system.weights)
        apart = not self._here and is_built(self._cache, system.environment)
        python = interpreter(self._cache, system.environment if apart else None)
        libraries = cuda_libraries() if system.load.get("device") == "cuda" else []
        return PeerProcess(python, load, log=self._cache / f"{system.engine}.log", libraries=libraries)

    def _rounds_of(self, scenario: Scenario, processes: Mapping[str, PeerProcess]) -> dict[str, list[Answer]]:
        """Answers by system: one to warm up, which is not kept, then every round in the opposite order.

        Whose process ends becomes a missing one.
        """
        answers: dict[str, list[Answer]] = {name: [] for name in processes}
        order = list(processes)
        for number in tqdm(range(self._rounds + 1), desc=scenario.name, leave=False):
            for name in list(order):
                process = processes[name]
                many = scenario.key == "streams" and number > 0
                try:
                    answer = process.many(scenario.paths) if many else process.one(scenario.paths[0])
                except (RuntimeError, OSError) as error:
                    self.missing[name] = str(error)
                    order.remove(name)
                    del answers[name]
                    continue
                if number:
                    answers[name].append(answer)
            if number:
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
        edits, words = _errors(scenario.texts, given[-1].texts)
        rounds = tuple((round(first, 4), round(answer.seconds, 4)) for first, answer in zip(ours, given, strict=True))
        peak = max(answer.peak_bytes for answer in given)
        return Record(scenario.name, name, setup, round(scenario.seconds, 2), rounds, peak, edits, words, explored)


def _errors(said: Sequence[str], printed: Sequence[str]) -> tuple[int, int]:
    """Wrong words, and words; none of either where there is no scorer."""
    try:
        from benchmarks.accuracy.scoring import Errors, Scorer
    except ModuleNotFoundError:
        return 0, 0
    scorer = Scorer()
    total = sum((scorer.errors(*pair, "en") for pair in zip(said, printed, strict=True)), Errors())
    return total.edits, total.tokens


def build(cache: Path, systems: Sequence[System], model: Path | None, *, here: bool) -> dict[str, str]:
    """Make every file, and unless it is `here` every environment; what could not be made, and why."""
    (cache / "weights").mkdir(parents=True, exist_ok=True)
    build_weights(cache / "weights", model)
    failed: dict[str, str] = {}
    wanted = [] if here else [system.environment for system in systems if system.environment]
    if "openvino" in wanted:
        wanted.append("openvino-export")
    for name in tqdm(dict.fromkeys(wanted), desc="environments"):
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
    parser.add_argument("corpus", type=Path, help="a folder, or a file of benchmarks.texts take")
    parser.add_argument("--build", action="store_true", help="make environments and weights, and measure nothing")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "whisper-service" / "peers")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--systems", nargs="+", choices=[system.name for system in (*SYSTEMS, *CUDA_SYSTEMS)])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", type=Path, help="base's model.bin, its small files beside it, instead of packages")
    parser.add_argument("--here", action="store_true", help="run every peer in this environment")
    parser.add_argument("--defaults", action="store_true", help="everybody as it decodes if only the language is named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=16, help="requests of the eight streams together")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="results/peers.json, or peers-defaults.json with --defaults")
    options = parser.parse_args(arguments)
    systems, ours = (CUDA_SYSTEMS, OURS_CUDA) if options.device == "cuda" else (SYSTEMS, OURS)
    chosen = [one for one in systems if options.systems is None or one.name in (ours, *options.systems)]
    if options.build:
        failed = build(options.cache, chosen, options.model, here=options.here)
        sys.stdout.write("".join(f"{name}: {reason}\n" for name, reason in failed.items()) or "all built\n")
        return int(bool(failed))
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("no CUDA device here: nothing was measured\n")
        return 2
    comparison = Comparison(
        options.cache, chosen, threads=options.threads, rounds=options.rounds, here=options.here,
        model=str(options.model or "base"), defaults=options.defaults,
    )  # fmt: skip
    output = options.output or Path("results") / ("peers-defaults.json" if options.defaults else "peers.json")
    records = read(output)
    for scenario in scenarios(options.corpus, options.scenarios, options.requests, options.cache):
        records = merge(records, comparison.measure(scenario))
        write(output, records, options.device, options.threads)
    sys.stdout.write(table(records))
    sys.stdout.write("".join(f"not measured, {name}: {reason}\n" for name, reason in comparison.missing.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

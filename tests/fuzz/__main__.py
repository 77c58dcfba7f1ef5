"""`make fuzz`: `python -m tests.fuzz [form] [audio] [api] [--seconds 60]`; exit status 1 after a finding.

- `form` and `audio` feed what atheris makes up, led by coverage, to the reader of multipart bodies (R10) and to the
  decoder (R13), in a process each. A crash of a codec in C ends that process and is told, but is no finding: in the
  service it ends a locked-down child and is answered with 400 (R14). Whatever Python raises is one, and so is an input
  that takes 20 s or 4 GB.
- `api` lets schemathesis make requests out of `/openapi.json`, against the real HTTP process on fake pools (R20).

Inputs with a finding are kept in `results/fuzz/`.
"""

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from service.http.openai_audio import ALIAS
from tests.fakes import BASE_MODEL
from tests.fuzz import audio, form
from tests.serving import ServiceProcess, service

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "results" / "fuzz"
TARGETS = {"form": form, "audio": audio}
LIMITS = ("-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def fuzz_target(name: str, seconds: float) -> bool:
    """Whether nothing was found."""
    end, crashes = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as work:
        corpus, log = Path(work, "corpus"), Path(work, "log")
        corpus.mkdir()
        for number, seed in enumerate(TARGETS[name].seeds()):
            (corpus / str(number)).write_bytes(seed)
        while (left := round(end - time.monotonic())) > 0:
            command = [sys.executable, "-m", "tests.fuzz.target", name, corpus, *LIMITS]
            command += [f"-max_total_time={left}", f"-max_len={TARGETS[name].MAX_BYTES}"]
            command += [f"-artifact_prefix={work}/found-"]
            with log.open("w") as output:
                run = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False)
            said, found = log.read_text(errors="replace"), sorted(Path(work).glob("found-*"))
            if run.returncode == 0:
                tries = [line for line in said.splitlines() if "number_of_executed_units" in line]
                print(f"fuzz: {name}: nothing found; {' '.join(tries[-1:])}", flush=True)
                return True
            kept = " ".join(keep(file, f"{name}-{file.name.removeprefix('found-')}") for file in found)
            if name != "audio" or not is_codecs_own(said):
                print(said[-6_000:], f"fuzz: {name}: FOUND; again: python -m tests.fuzz.target {name} {kept}", sep="\n")
                return False
            crashes += 1
            print(f"fuzz: {name}: a codec crashed, which costs the service a child: {kept}", flush=True)
    print(f"fuzz: {name}: nothing found, {crashes} crashes of codecs", flush=True)
    return True


def keep(file: Path, name: str) -> str:
    """Put an input where it stays; its path from here."""
    KEPT.mkdir(parents=True, exist_ok=True)
    return str(Path(shutil.move(file, KEPT / name)).relative_to(ROOT))


def is_codecs_own(said: str) -> bool:
    """Whether a target's process was ended by a signal, and not by what Python raised or by a limit."""
    return "deadly signal" in said and "Uncaught Python exception" not in said


def fuzz_api(seconds: float) -> bool:
    """Whether nothing was found."""
    with service() as server, tempfile.TemporaryDirectory() as work:
        document = Path(work, "openapi.json")
        document.write_text(json.dumps(described(server)))
        command = [str(Path(sys.executable).with_name("schemathesis")), "--no-color", "fuzz", str(document)]
        command += ["--url", server.url, "--max-time", str(max(1, round(seconds))), "--checks", CHECKS]
        command += ["--generation-database", "none", "--warnings", "off", "--continue-on-failure"]
        run = subprocess.run(command, cwd=work, stdin=subprocess.DEVNULL, check=False)
        return run.returncode == 0 and is_well(server)


def described(server: ServiceProcess) -> dict[str, Any]:
    """`/openapi.json` with a model's names that are some: any other is 404, whatever else is asked."""
    document: dict[str, Any] = server.get("/openapi.json").json()
    for path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]
        content["schema"]["properties"]["model"]["enum"] = [ALIAS, BASE_MODEL.name]
    return document


def is_well(server: ServiceProcess) -> bool:
    """Whether it lives, holds nothing, and has noted no error of ours."""
    try:
        server.assert_idle()
    except (AssertionError, httpx.HTTPError):
        print("fuzz: api: FOUND: the service is gone, or holds what nobody asks for any more", flush=True)
        return False
    log = server.log()
    ours = [line for line in log if line["event"] == "internal_error"]
    answers = Counter((line["endpoint"], line["status"]) for line in log if line["event"] == "request")
    print(*ours, f"fuzz: api: {dict(sorted(answers.items()))}", sep="\n", flush=True)
    return not ours


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, "api", []], help="all of them by default")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each")
    options = parser.parse_args()
    failed = []
    for name in options.targets or [*TARGETS, "api"]:
        needed = "schemathesis" if name == "api" else "atheris"
        if importlib.util.find_spec(needed) is None:
            print(f"fuzz: {name}: LEFT OUT: {needed} is not there for this Python and machine", flush=True)
        elif not (fuzz_api(options.seconds) if name == "api" else fuzz_target(name, options.seconds)):
            failed.append(name)
    print(f"fuzz: findings in {', '.join(failed)}" if failed else "fuzz: no findings", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

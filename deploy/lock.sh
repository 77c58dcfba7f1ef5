#!/usr/bin/env bash
# Write requirements/*.txt anew from pyproject.toml: every version pinned, every file hashed.
# They hold for Linux and macOS and every Python from 3.11 on. Needs uv, Python 3.11 and the network; keeps the versions
# that are locked unless called with --upgrade.
#
# torch stands apart: its CPU and CUDA builds are different files of nearly one version, and its own requirements would
# bring gigabytes of CUDA libraries to a machine without a GPU. torch-cuda.txt is the registry's build with all that it
# requires; torch-cpu.txt is written by hand, because the CPU builds are published in an index of their own.
set -euo pipefail
cd "$(dirname "$0")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
upgrade="${1:-}"

python3 - "$work" <<'PYTHON'
import pathlib, sys, tomllib

project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
parts = {"base": project["dependencies"], **project["optional-dependencies"]}
for name, requirements in parts.items():
    pathlib.Path(sys.argv[1], f"{name}.in").write_text("\n".join(requirements) + "\n")
PYTHON
# What torch needs beside itself on a CPU, where it is installed without its requirements.
printf '%s\n' filelock fsspec jinja2 networkx sympy typing-extensions setuptools >>"$work/base.in"
sed -n 's/^\(torch==[0-9.]*\)+cpu.*/\1/p' requirements/torch-cpu.txt >"$work/torch-cuda.in"
printf '%s\n' torch triton >"$work/excluded.in"
printf '%s\n' uv >"$work/uv.in"

compile() { # compile OUTPUT ARGUMENTS...
    local output="$1"
    shift
    uv pip compile --quiet --no-config --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
        --no-emit-index-url --no-annotate --custom-compile-command "make lock" --output-file "$output" "$@" >"$work/log"
}

# One resolution of everything settles the versions; each file is then a part of it, so parts always fit together.
if [ -z "$upgrade" ]; then
    cat requirements/{base,weights,tracing,test,fuzz,lint,uv}.txt >"$work/all.txt"
fi
compile "$work/all.txt" --excludes "$work/excluded.in" "$work"/{base,weights,tracing,test,bench,fuzz,lint,uv}.in

part() { # part NAME ARGUMENTS...
    local output="requirements/$1.txt"
    shift
    compile "$output" --constraints "$work/all.txt" $upgrade "$@"
}
part base --excludes "$work/excluded.in" "$work/base.in"
part weights "$work/weights.in"
part tracing "$work/tracing.in"
part test --excludes "$work/excluded.in" "$work"/{tracing,test,bench}.in
part fuzz "$work/fuzz.in"
part lint "$work/lint.in"
part uv "$work/uv.in"
part torch-cuda "$work/torch-cuda.in"

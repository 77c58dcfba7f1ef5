#!/usr/bin/env bash
# Everything that is to be seen on a GPU, in parts that can be had one at a time: tests, speed, stages, peers, texts.
#
#   benchmarks/gpu.sh [PART...]         default: all of them, in that order; what matters most comes first in each
#
# Writes FOLDER/log.txt (what people read) and FOLDER/results.jsonl (a line a run), which grow from call to call. What
# fails, or takes longer than EACH seconds, is told and passed over; after BUDGET seconds everything has ended.
#
# Needs torch with CUDA, Triton and a C compiler; numpy, tiktoken, safetensors, tqdm, httpx, pydantic, pytest, hypothesis;
# transformers, openai-whisper and ctranslate2 where they are to be compared. No network, but `real` makes the peers'
# environments where there is one. Settings, all optional:
#   FOLDER=results/gpu   BUDGET=3600   EACH=240 (peers, real 560)   SIZES="large-v3 large-v3-turbo base small"   ROWS=64   WINDOWS=512
#   WHEELS=dir           wheels that this Python lacks, peers' too: used from a folder of their own, installed nowhere
#   CLIPS=clips.npz      for real, texts: what `benchmarks.texts take` wrote; ANSWERS=dir keeps what was heard, for `compare`
#   CORPUS=dir           for real, where there are codecs: a corpus in the place of CLIPS
#   MODEL=file           for real, texts: base's weights (a .pt for texts, or base/model.bin of CTranslate2 with its small
#                        files beside it), or FILE.* which are its pieces; else the packages of the weights
set -uo pipefail
cd "$(dirname "$0")/.."
folder="${FOLDER:-results/gpu}"
budget="${BUDGET:-3600}"
each="${EACH:-240}"
sizes="${SIZES:-large-v3 large-v3-turbo base small}"
rows="${ROWS:-64}"
windows="${WINDOWS:-512}"
export PYTHONUNBUFFERED=1
failed=0
mkdir -p "$folder"

run() { # run NAME COMMAND...: within EACH seconds, and within what is left of the budget; partial output is kept
    local name="$1" output status limit="$((budget - SECONDS))"
    shift
    if [ "$limit" -gt "$each" ]; then limit="$each"; fi
    if [ "$limit" -le 0 ]; then
        echo "== $name: not begun, the budget of $budget s is used up" | tee -a "$folder/log.txt"
        failed=1
        return
    fi
    echo "== $name after $SECONDS s: $*" | tee -a "$folder/log.txt"
    output="$(mktemp)"
    timeout --kill-after=5 "$limit" "$@" >"$output" 2>&1
    status=$?
    if [ "$status" -ne 0 ]; then
        echo "$name: failed with status $status (124: it took more than $limit s)" >>"$output"
        failed=1
    fi
    grep '^{' "$output" >>"$folder/results.jsonl" || true
    tail -n 60 "$output" | cut -c -400 >>"$folder/log.txt"
    tail -n 12 "$output" | cut -c -160
    rm -f "$output"
}

# Warnings of versions that were never tried are no failures here.
tests() {
    local pytest=(env PYTEST_ADDOPTS="-W default" python3 -m pytest -q -p no:cacheprovider -m cuda)
    run tests-steps "${pytest[@]}" tests/model/decoding/test_step_check.py tests/model/gpu/test_cuda.py tests/model/test_mel.py
    run tests-kernel "${pytest[@]}" tests/model/gpu/test_split_attention.py
}

measure() { # measure NAME SIZE OPTION...: a size's speed
    local name="$1" size="$2"
    shift 2
    run "$name" python3 -m benchmarks.saturation --random "$size" --device cuda --rows "$rows" --windows "$windows" "$@"
}

speed() {
    for size in $sizes; do measure "speed-$size" "$size" --cuda-graphs; done
    for size in $sizes; do
        measure "speed-$size-int8" "$size" --cuda-graphs --cross-kv int8
        measure "speed-$size-unfused" "$size" --cuda-graphs --unfused
        measure "speed-$size-torch" "$size" --cuda-graphs --cross-attention torch
    done
    for size in $sizes; do
        measure "speed-$size-fp8" "$size" --cuda-graphs --cross-kv fp8
        measure "speed-$size-plain" "$size"
        measure "speed-$size-inline" "$size" --cuda-graphs --inline
        measure "speed-$size-beams" "$size" --cuda-graphs --beams 5
        measure "speed-$size-8-steps" "$size" --cuda-graphs --steps-between-encodes 8
    done
}

stages() {
    for size in $sizes; do
        run "stages-$size" python3 -m benchmarks.stages --random "$size" --device cuda --cuda-graphs --encode 1 2 4 8 16 \
            --rows 1 2 8 32 64 --repeats 3
    done
}

peers() {
    local each="${EACH:-560}" # four systems are made, and some compiled
    for size in $sizes; do
        run "peers-$size" python3 -m benchmarks.random_peers --random "$size" --device cuda --rows "$rows" --rounds 2
    done
}

# Real weights: a run for each peer, so that none takes more than its time. Who cannot be had is named in each.
real() {
    local each="${EACH:-560}" before="$failed" source="${CORPUS:-${CLIPS:-}}" peer scenario options
    if [ -z "$source" ]; then
        echo "real: neither CORPUS nor CLIPS names recordings" | tee -a "$folder/log.txt"
        return
    fi
    options=("$source" --device cuda --cache "${PEERS:-$folder/peers}" --output "$folder/peers.json")
    if [ -n "${MODEL:-}" ]; then
        join "$MODEL"
        options+=(--model "$MODEL")
    fi
    run real-build env PIP_RETRIES=0 PIP_TIMEOUT=15 python3 -m benchmarks.peers "${options[@]}" --build
    if [ "$failed" -ne "$before" ]; then
        echo "real: not all of it can be made here; who is installed all the same is compared" | tee -a "$folder/log.txt"
        failed="$before"
    fi
    for scenario in clip streams; do
        for peer in "faster-whisper float16" "faster-whisper float16, batched" "transformers float16" \
            "openai-whisper float16" "ours float16, 8-bit audio"; do
            run "real-$scenario-$peer" python3 -m benchmarks.peers "${options[@]}" --scenarios "$scenario" \
                --systems "$peer" --rounds 3
        done
    done
}

join() { # join FILE: put it together from its pieces FILE.*, where it is not there
    if [ ! -e "$1" ] && ls "$1".* >/dev/null 2>&1; then cat "$1".* >"$1"; fi
}

texts() {
    local model="${MODEL:-base}" answers="${ANSWERS:-$folder}"
    if [ -z "${CLIPS:-}" ]; then
        echo "texts: CLIPS names no file; benchmarks.texts take writes one" | tee -a "$folder/log.txt"
        return
    fi
    join "$model"
    hear=(python3 -m benchmarks.texts hear "$CLIPS")
    run texts-float16 "${hear[@]}" "$answers/float16.json" --model "$model" --device cuda
    run texts-int8 "${hear[@]}" "$answers/int8.json" --model "$model" --device cuda --cross-kv int8
    run texts-plain "${hear[@]}" "$answers/plain.json" --model "$model" --device cuda --cuda-graphs false \
        --cross-attention torch
    run texts-float32 "${hear[@]}" "$answers/float32.json" --model "$model" --device cpu --compute-type float32
}

for part in "$@"; do
    case "$part" in
        tests | speed | stages | peers | real | texts) ;;
        *) echo "gpu.sh: unknown part '$part'; tests, speed, stages, peers, real or texts" >&2; exit 2 ;;
    esac
done
nvidia-smi >>"$folder/log.txt" 2>&1 || { echo "no GPU here: nothing was measured"; exit 2; }
if [ -n "${WHEELS:-}" ]; then
    site="$(mktemp -d)"
    python3 -m pip install --quiet --no-index --no-deps --target "$site" "$WHEELS"/*.whl || exit 1
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
[ $# -gt 0 ] || set -- tests speed stages peers real texts
for part in "$@"; do "$part"; done
exit "$failed"

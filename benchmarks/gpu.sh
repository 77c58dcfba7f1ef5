#!/usr/bin/env bash
# Everything that is to be seen on a GPU, in one go: tests marked `cuda`, a card's ceilings, stages, saturation, peers.
#
#   benchmarks/gpu.sh [FOLDER]          results as text and JSON lines; default results/gpu
#
# Needs torch with CUDA, Triton and a C compiler, numpy, tiktoken, safetensors, pydantic, pytest and hypothesis; transformers
# and openai-whisper where they are to be compared. Nothing is fetched; what fails is told and passed over. SIZES="base"
# WINDOWS=64 is a short run.
set -uo pipefail
cd "$(dirname "$0")/.."
folder="${1:-results/gpu}"
sizes="${SIZES:-base small large-v3-turbo large-v3}"
rows="${ROWS:-64}"
windows="${WINDOWS:-512}"
failed=0
mkdir -p "$folder"

run() { # run NAME COMMAND...
    local name="$1"
    shift
    echo "== $name: $*"
    "$@" >"$folder/$name.txt" 2>&1 || { echo "failed, see $folder/$name.txt"; failed=1; }
    tail -n 30 "$folder/$name.txt" | cut -c -160
    grep '^{' "$folder/$name.txt" >>"$folder/results.jsonl" || true
}

nvidia-smi >"$folder/card.txt" 2>&1 || { echo "no GPU here: nothing was measured"; exit 2; }
run tests python3 -m pytest -q -p no:cacheprovider -m cuda tests/model/test_cuda.py tests/model/test_mel.py \
    tests/model/test_split_attention.py
for size in $sizes; do
    common=(--random "$size" --device cuda)
    for attention in torch triton; do
        run "stages-$size-$attention" python3 -m benchmarks.stages "${common[@]}" --cross-attention "$attention" \
            --encode 1 2 4 8 16 --rows 1 8 32 64 --repeats 5
        run "stages-$size-$attention-graphs" python3 -m benchmarks.stages "${common[@]}" --cross-attention "$attention" \
            --cuda-graphs --rows 1 2 4 8 16 32 64 --repeats 5
        run "saturation-$size-$attention-graphs" python3 -m benchmarks.saturation "${common[@]}" --cuda-graphs \
            --cross-attention "$attention" --rows "$rows" --windows "$windows"
    done
    for kept in int8 fp8; do
        run "saturation-$size-$kept-graphs" python3 -m benchmarks.saturation "${common[@]}" --cuda-graphs \
            --cross-kv "$kept" --rows "$rows" --windows "$windows"
    done
    run "saturation-$size-no-graphs" python3 -m benchmarks.saturation "${common[@]}" --rows "$rows" --windows "$windows"
    run "peers-$size" python3 -m benchmarks.random_peers "${common[@]}" --rows "$rows"
done
exit "$failed"

"""The kernel in Triton's interpreter, compiled for cards that are not here, and on one that is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is part of torch's CUDA build, or pip install --no-deps triton==3.7.1")

ROOT = Path(__file__).parents[3]
CASES = "tests/model/gpu/split_cases.py"


def _run_cases(**environment: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", CASES]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout


def test_in_tritons_interpreter_it_gives_what_torch_gives() -> None:
    _run_cases(TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_it_gives_what_torch_gives() -> None:
    _run_cases(TRITON_INTERPRET="0")


@pytest.mark.parametrize(
    ("programs", "blocks", "processors"), [(20, 24, 132), (1, 24, 132), (1280, 24, 132), (8, 7, 5)]
)
def test_parts_fill_the_card_and_none_is_empty(programs, blocks, processors) -> None:
    from model.gpu.split_attention import parts_of

    parts = parts_of(programs, blocks, processors)
    each = -(-blocks // parts)
    assert (parts - 1) * each < blocks <= parts * each
    assert parts == blocks or parts * programs >= processors
    assert parts_of(1280, 24, 132) == 1


@pytest.mark.parametrize(
    ("capability", "number", "kept"),
    [(80, "fp16", "fp16"), (90, "bf16", "i8"), (90, "fp16", "fp8e4nv")],
)
def test_it_compiles_for_cards_that_are_not_here(
    capability: int, number: str, kept: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    code = compile_for(capability, number, kept)
    assert "mma.sync" in code, "the card's matrix units are not used"
    assert "cp.async" in code, "memory is not read ahead"


def compile_for(capability: int, number: str, kept: str) -> str:
    """PTX of the kernel for heads of 64, as a step of greedy rows calls it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from model.gpu.split_attention import _attend_part

    scaled = kept == "i8"
    constants = {"WIDTH": 16, "SIZE": 64, "BLOCK": 64 if kept == number else 128, "SCALED": scaled}
    if not scaled:
        constants |= {"key_scales": None, "value_scales": None}
    pointers = {"query": number, "keys": kept, "values": kept, "key_scales": "bf16", "value_scales": "bf16"}
    pointers |= dict.fromkeys(("slots", "lengths", "members"), "i64") | dict.fromkeys(("found", "tops", "sums"), "fp32")
    names = _attend_part.arg_names
    types = {name: f"*{pointers[name]}" if name in pointers else "i32" for name in names}
    types |= {"scale": "fp32"} | dict.fromkeys(constants, "constexpr")
    even = {"query_stride", "slot_stride", "head_stride", "positions_each", *pointers} - set(constants)
    attributes = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name in even}
    source = ASTSource(_attend_part, types, constants, attributes)
    return str(triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["ptx"])


def test_a_step_reads_nothing_back_and_stays_on_its_device() -> None:
    """See `tests.model.gpu.test_graphs`: the views' own operators, on tensors without data; the kernel is left out."""
    from model.gpu import split_step
    from model.gpu.shapes import AskedShape
    from model.gpu.split_step import SplitStepView
    from model.network.cache import KVCache
    from model.network.whisper import TextDecoder
    from tests import tiny

    device = torch.device("meta")
    shape = AskedShape(8, 4, 2)
    cache = KVCache(tiny.DIMS, n_windows=16, n_rows=18, device=device, dtype=torch.float16, cross_kv="int8")
    with device:
        decoder = TextDecoder(tiny.DIMS).to(torch.float16)
        inputs = torch.zeros(4 * 8 + 4 * 4, dtype=torch.long)
    asked = []

    def without_kernel(query, memory, asked_of, *, processors):
        asked.append((tuple(memory.keys.shape), memory.key_scales is not None, tuple(asked_of.members.shape)))
        return torch.empty_like(query)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split_step, "attend", without_kernel)
        view = SplitStepView(cache, shape, inputs)
        assert decoder.logits(decoder(view.tokens, view.positions, view)).shape == (8, 51_865)
    assert asked == [((18, 2, 448, 16), False, (8, 1)), ((16, 2, 1500, 16), True, (4, 2))] * 2

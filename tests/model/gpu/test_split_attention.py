"""The kernels in Triton's interpreter, compiled for cards that are not here, and on one that is."""

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
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=600, check=False
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
    ("capability", "number", "kept", "whole"),
    [(80, "fp16", "fp16", True), (90, "bf16", "i8", True), (90, "fp16", "fp8e4nv", False)],
)
def test_it_compiles_for_cards_that_are_not_here(
    capability: int, number: str, kept: str, whole: bool, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    code = compile_for(capability, number, kept, whole=whole)
    assert "mma.sync" in code, "the card's matrix units are not used"
    assert "cp.async" in code, "memory is not read ahead"


def compile_for(capability: int, number: str, kept: str, *, whole: bool) -> str:
    """PTX of the kernel for heads of 64, as a step of greedy rows calls it."""
    from model.gpu.split_attention import _attend_part

    scaled = kept == "i8"
    constants = {"WIDTH": 16, "SIZE": 64, "BLOCK": 64 if kept == number else 128, "SCALED": scaled, "WHOLE": whole}
    if not scaled:
        constants |= {"key_scales": None, "value_scales": None}
    pointers = {"query": number, "keys": kept, "values": kept, "key_scales": "bf16", "value_scales": "bf16"}
    pointers |= dict.fromkeys(("slots", "lengths", "members"), "i64") | dict.fromkeys(("found", "tops", "sums"), "fp32")
    pointers |= {"found": number} if whole else {}
    even = {"query_stride", "slot_stride", "head_stride", "positions_each"}
    return _ptx(_attend_part, capability, pointers, constants, even, {"scale": "fp32"})


@pytest.mark.parametrize(("capability", "number", "normed"), [(80, "bf16", False), (90, "fp16", True)])
def test_products_of_few_rows_compile_for_cards_that_are_not_here(
    capability: int, number: str, normed: bool, tmp_path: Path, monkeypatch
) -> None:
    from model.gpu.few_rows import _project

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"SIZE": 1280, "WIDTH": 5120, "ROWS": 16, "BLOCK": 16, "DEEP": 256}
    constants |= {"NORMED": normed, "GELU": normed, "ADDED": not normed}
    constants |= {} if normed else {"scale": None, "shift": None}
    pointers = dict.fromkeys(("x", "weight", "bias", "scale", "shift", "answer"), number)
    code = _ptx(_project, capability, pointers, constants, {"stride"}, {"eps": "fp32"}, num_stages=4)
    assert "mma.sync" in code, "the card's matrix units are not used"
    assert "cp.async" in code, "memory is not read ahead"


def test_the_choice_of_tokens_compiles_for_cards_that_are_not_here(tmp_path: Path, monkeypatch) -> None:
    from model.gpu.greedy_choice import _settle, _survey

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    pointers = dict.fromkeys(("rows", "said", "last_times"), "i64") | {
        "settings": "fp32",
        "found": "fp32",
        "places": "i32",
    }
    for kernel, own, constants in (
        (_survey, {"logits": "fp32", "suppressed": "i1"}, {"BLOCK": 2048}),
        (_settle, {"chosen": "fp32"}, {"BLOCKS": 32}),
    ):
        assert "ld.global" in _ptx(kernel, 90, pointers | own, constants, set(), {})


def _ptx(kernel, capability: int, pointers: dict, constants: dict, even: set, others: dict, **options: int) -> str:
    """Of whole numbers those that are `even` are multiples of 16, as all pointers are."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    types = {name: f"*{pointers[name]}" if name in pointers else "i32" for name in names}
    types |= others | dict.fromkeys(constants, "constexpr")
    even = {*even, *pointers} - set(constants)
    attributes = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name in even}
    source = ASTSource(kernel, types, constants, attributes)
    return str(triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"])


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

    def without_writing(key, value, memory, slots, positions):
        assert {one.device for one in (key, value, memory.keys, slots, positions)} == {device}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split_step, "attend", without_kernel)
        patch.setattr(split_step, "remember", without_writing)
        view = SplitStepView(cache, shape, inputs)
        assert decoder.logits(decoder(view.tokens, view.positions, view)).shape == (8, 51_865)
    assert asked == [((18, 2, 448, 16), False, (8, 1)), ((16, 2, 1500, 16), True, (4, 2))] * 2

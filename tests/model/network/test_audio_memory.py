import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.compute_options import ComputeOptions
from model.decoding.inference import PyTorchInference, make_inference
from model.native.quantize import cross_kv_name, quantise
from model.network.audio_memory import AudioMemory
from model.network.whisper import TextDecoder
from model.transcriber import Transcriber
from model.transfer import send
from model.weights import Weights
from tests import tiny

CPU = torch.device("cpu")
HEADS, SIZE = tiny.DIMS.n_text_head, tiny.DIMS.n_text_state // tiny.DIMS.n_text_head


def _heads(n_ctx: int, batch: int = 1, scale: float = 1.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(batch, HEADS, n_ctx, SIZE, generator=torch.Generator().manual_seed(seed))


def _memory(cross_kv: str, dtype: torch.dtype = torch.float32) -> AudioMemory:
    return AudioMemory(tiny.DIMS, 4, device=CPU, dtype=dtype, cross_kv=cross_kv)


@given(scale=st.sampled_from([1e-6, 1e-2, 1.0, 40.0, 1e4]), seed=st.integers(0, 99))
def test_int8_is_off_by_half_a_step_of_its_own_scale(scale, seed) -> None:
    heads, memory = _heads(7, scale=scale, seed=seed), _memory("int8")
    memory.write(1, send([2], CPU), heads)
    error = (memory.read(1, 2, 7) - heads[0]).abs()
    # Half a step, and a scale that was rounded down cuts the largest number off by as much.
    assert (error <= heads[0].abs().amax(-1, keepdim=True) / 127 * 0.51).all()


@given(scale=st.sampled_from([1.0, 40.0]), seed=st.integers(0, 99))
def test_fp8_is_off_by_a_sixteenth_of_the_number(scale, seed) -> None:
    heads, memory = _heads(7, scale=scale, seed=seed), _memory("fp8")
    memory.write(0, send([3], CPU), heads)
    assert ((memory.read(0, 3, 7) - heads[0]).abs() <= heads[0].abs() / 16 + 2**-10).all()


def test_what_fp8_cannot_hold_is_cut_off_and_stays_a_number() -> None:
    memory = _memory("fp8")
    memory.write(0, send([0], CPU), torch.full((1, HEADS, 2, SIZE), -1e6))
    assert (memory.read(0, 0, 2) == -448.0).all()


@pytest.mark.parametrize("cross_kv", ["auto", "int8", "fp8"])
def test_a_batch_fills_slots_in_any_order_and_leaves_the_others(cross_kv) -> None:
    memory, heads = _memory(cross_kv), _heads(1500, batch=3)
    memory.write(1, send([3, 0, 2], CPU), heads)
    both = memory.read(1, slice(0, 4))
    for i, slot in enumerate([3, 0, 2]):
        torch.testing.assert_close(both[slot], heads[i], atol=0.2, rtol=1 / 16)
        assert torch.equal(both[slot], memory.read(1, slot))
    assert not both[1].any()
    assert not memory.read(0, slice(0, 4)).any()


def test_zeros_stay_zeros_and_a_short_window_leaves_the_rest() -> None:
    memory = _memory("int8")
    memory.write(0, send([1], CPU), _heads(1500))
    before = memory.read(0, 1).clone()
    memory.write(0, send([1], CPU), torch.zeros(1, HEADS, 700, SIZE))
    assert not memory.read(0, 1, 700).any()
    assert torch.equal(memory.read(0, 1)[:, 700:], before[:, 700:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_read_has_the_models_format(dtype) -> None:
    for cross_kv in ("auto", "int8", "fp8"):
        memory = _memory(cross_kv, dtype)
        memory.write(0, send([1], CPU), _heads(9).to(dtype))
        assert memory.read(0, 1, 9).dtype == dtype
        torch.testing.assert_close(memory.read(0, 1, 9).float(), _heads(9)[0], atol=0.05, rtol=0.08)


def test_8_bits_are_8_bits() -> None:
    assert _memory("auto").data.nbytes == 4 * _memory("fp8").nbytes
    assert _memory("int8").nbytes == _memory("fp8").nbytes * (SIZE + 2) // SIZE


@pytest.mark.parametrize(("cross_kv", "most"), [("int8", 0.02), ("fp8", 0.3)])
def test_a_model_with_8_bits_of_audio_says_nearly_the_same(cross_kv, most) -> None:
    weights = Weights(tiny.DIMS, tiny.tensors(), "tiny-random", None)
    features = torch.randn(1, 1500, tiny.DIMS.n_audio_state, generator=torch.Generator().manual_seed(3))
    logits = []
    for kept in ("auto", cross_kv):
        model = Transcriber.from_weights(weights, CPU, ComputeOptions("float32", "full", kept)).model
        assert cross_kv_name(model) == ("float32" if kept == "auto" else cross_kv)
        inference = make_inference(model, n_windows=2, n_rows=2)
        assert isinstance(inference, PyTorchInference)
        with torch.inference_mode():
            inference.fill_windows(features, [1])
            logits.append(inference.prefill((1, 2, 3), row=0, window=1, keep=(2,)))
    difference = (logits[0] - logits[1]).abs().max()
    assert 0 < difference < most * logits[0].std()


def test_int8_says_what_its_decoder_keeps() -> None:
    model = tiny.transcriber().model
    quantise(model)
    assert cross_kv_name(model) == ("float32" if isinstance(model.decoder, TextDecoder) else "int8")

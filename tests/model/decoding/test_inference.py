"""The decoder over its memory: short windows, rows that take over other rows."""

import pytest
import torch

from model.decoding import inference as inference_module
from model.decoding.inference import PyTorchInference, make_inference
from tests import tiny
from tests.graphs import Again

MODEL = tiny.transcriber().model
FEATURES = torch.randn(2, 1500, tiny.DIMS.n_audio_state, generator=torch.Generator().manual_seed(3))


def _inference() -> PyTorchInference:
    return PyTorchInference(MODEL, n_windows=2, n_rows=4)


@torch.inference_mode()
def test_a_short_window_is_heard_to_its_end_and_no_further() -> None:
    inference = _inference()
    inference.fill_windows(FEATURES[:1], [1])
    inference.fill_windows(FEATURES[1:, :700], [1])
    alone = _inference()
    alone.fill_windows(FEATURES[1:, :700], [0])
    for ours, theirs in zip(inference._cache.cross(0, 1), alone._cache.cross(0, 0), strict=True):
        assert ours.shape == (2, 700, 16)
        assert torch.equal(ours, theirs)
    ours = inference.prefill((1, 2, 3), row=0, window=1, keep=(2,))
    assert torch.equal(ours, alone.prefill((1, 2, 3), row=0, window=0, keep=(2,)))
    whole = _inference()
    whole.fill_windows(FEATURES[1:], [0])
    assert not torch.allclose(ours, whole.prefill((1, 2, 3), row=0, window=0, keep=(2,)))


@torch.inference_mode()
def test_rows_exchange_their_past_as_if_all_were_read_first() -> None:
    inference = _inference()
    inference.fill_windows(FEATURES[:1], [0])
    prompts = [(10, 11, 12), (20, 21, 22), (30, 31, 32)]
    for row, prompt in enumerate(prompts):
        inference.prefill(prompt, row=row, window=0, keep=(2,))
    before = inference.step((5, 5, 5), lengths=(3, 3, 3), windows=(0, 0, 0))
    inference.copy_rows([1, 2, 0], [0, 1, 2], 3)
    after = inference.step((5, 5, 5), lengths=(3, 3, 3), windows=(0, 0, 0))
    assert torch.allclose(after, before[[1, 2, 0]], atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-2)


@torch.inference_mode()
def test_rows_take_over_what_they_do_not_have_in_common() -> None:
    inference = _inference()
    inference.fill_windows(FEATURES[:1], [0])
    for row, last in enumerate((12, 22)):
        inference.prefill((10, 11, last), row=row, window=0, keep=(2,))
    before = inference.step((5, 5), lengths=(3, 3), windows=(0, 0))
    inference.copy_rows([1], [0], 3, start=2)
    after = inference.step((5, 5), lengths=(3, 3), windows=(0, 0))
    assert torch.allclose(after, before[[1, 1]], atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-2)


@torch.inference_mode()
def test_a_row_that_becomes_another_keeps_no_nonsense() -> None:
    inference = _inference()
    inference.fill_windows(FEATURES[:1], [0])
    inference.prefill((10, 11, 12), row=0, window=0, keep=(2,))
    inference._cache.keys[:, 1:3] = torch.nan
    inference.replace_rows(0, [2, 1], 3)
    logits = inference.step((5, 5, 5), lengths=(3, 3, 3), windows=(0, 0, 0))
    assert torch.allclose(logits, logits[[0, 0, 0]], atol=1e-5)


@pytest.mark.parametrize("cross_kv", ["auto", "int8", "fp8"])
@torch.inference_mode()
def test_prompts_that_hear_whole_windows_are_read_together_as_each_is_alone(cross_kv, monkeypatch) -> None:
    monkeypatch.setattr(MODEL, "cross_kv", cross_kv)
    together, alone = _inference(), _inference()
    for inference in (together, alone):
        inference.fill_windows(FEATURES, [1, 0])
    prompts, windows, keep = [(1, 2, 3), (4, 5, 6), (7, 8, 9)], [1, 0, 1], [(0, 2), (1, 2), (0, 2)]
    logits = together.prefill_many(prompts, row=1, windows=windows, keep=keep)
    for i, (prompt, window, kept) in enumerate(zip(prompts, windows, keep, strict=True)):
        wanted = alone.prefill(prompt, row=1 + i, window=window, keep=kept)
        assert torch.allclose(logits[i], wanted, atol=1e-5)


@torch.inference_mode()
def test_prompts_of_one_length_are_read_together_as_each_is_alone() -> None:
    together, alone = _inference(), _inference()
    for inference in (together, alone):
        inference.fill_windows(FEATURES[:1], [0])
        inference.fill_windows(FEATURES[1:, :700], [1])
    prompts, windows, keep = [(1, 2, 3), (4, 5, 6), (7, 8, 9)], [1, 0, 1], [(0, 2), (1, 2), (0, 2)]
    logits = together.prefill_many(prompts, row=1, windows=windows, keep=keep)
    assert logits.shape == (3, 2, tiny.DIMS.n_vocab)
    for i, (prompt, window, kept) in enumerate(zip(prompts, windows, keep, strict=True)):
        wanted = alone.prefill(prompt, row=1 + i, window=window, keep=kept)
        assert torch.allclose(logits[i], wanted, atol=1e-5)
    assert torch.allclose(together._cache.keys, alone._cache.keys, atol=1e-5)
    assert torch.equal(
        alone.prefill_many([(1, 2, 3)], row=0, windows=[1], keep=[(0, 2)])[0],
        alone.prefill((1, 2, 3), row=0, window=1, keep=(0, 2)),
    )


@pytest.mark.parametrize(("device", "captures"), [("cpu", True), ("cuda", True), ("cuda", False)])
def test_steps_are_captured_on_a_gpu_unless_that_is_off(monkeypatch, device, captures) -> None:
    model = tiny.transcriber().model
    monkeypatch.setattr(inference_module, "CudaBackend", lambda device: Again())
    monkeypatch.setattr(inference_module, "PyTorchInference", lambda model, **options: options["backend"])
    monkeypatch.setattr(type(model), "device", torch.device(device))
    model.captures_steps = captures
    backend = make_inference(model, n_windows=1, n_rows=1)
    assert isinstance(backend, Again) == (device == "cuda" and captures)

"""The names and shapes that a model must have are the reference's."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from model.dims import DIMENSIONS, ModelDimensions
from model.errors import WeightsError
from model.weights.checks import ENCODER_POSITIONS, Entry, assemble, check_dims, expected_shapes, sinusoids
from tests.model.weights.writers import DIMS, random_state

FILE = Path("some.file")
PLAN = [Entry(name, (name,)) for name in expected_shapes(DIMS)]


@pytest.mark.oracle
@pytest.mark.parametrize("name", DIMENSIONS)
def test_every_published_decoder_has_the_tensors_of_the_reference(name: str) -> None:
    model = pytest.importorskip("whisper.model")
    dims = DIMENSIONS[name]
    # Shapes without memory, which the encoder's sinusoids do not allow.
    with torch.device("meta"):
        decoder = model.TextDecoder(
            dims.n_vocab, dims.n_text_ctx, dims.n_text_state, dims.n_text_head, dims.n_text_layer
        )
    ours = {key: shape for key, shape in expected_shapes(dims).items() if key.startswith("decoder.")}
    assert ours == {key: tuple(tensor.shape) for key, tensor in decoder.state_dict(prefix="decoder.").items()}


@pytest.mark.oracle
@pytest.mark.parametrize("dims", [DIMS, DIMENSIONS["tiny"], DIMENSIONS["tiny.en"]], ids=["small", "tiny", "tiny.en"])
def test_a_whole_model_has_the_tensors_of_the_reference(dims: ModelDimensions) -> None:
    model = pytest.importorskip("whisper.model")
    state = model.Whisper(model.ModelDimensions(**asdict(dims))).state_dict()
    assert expected_shapes(dims) == {key: tuple(tensor.shape) for key, tensor in state.items()}


@pytest.mark.oracle
@pytest.mark.parametrize(("length", "channels"), [(6, 8), (1500, 384), (1500, 1280)])
def test_sinusoids_are_the_reference_s(length: int, channels: int) -> None:
    model = pytest.importorskip("whisper.model")
    assert torch.equal(sinusoids(length, channels), model.sinusoids(length, channels))


def test_missing_encoder_positions_are_computed() -> None:
    state = random_state()
    del state[ENCODER_POSITIONS]
    tensors = assemble(FILE, DIMS, PLAN, state.keys(), state.__getitem__).tensors
    assert torch.equal(tensors[ENCODER_POSITIONS], sinusoids(6, 8))
    assert list(tensors) == list(expected_shapes(DIMS))


def test_bfloat16_becomes_float32_without_loss() -> None:
    state = random_state(torch.bfloat16)
    tensors = assemble(FILE, DIMS, PLAN, state.keys(), state.__getitem__).tensors
    for name, tensor in tensors.items():
        assert tensor.dtype is torch.float32
        assert torch.equal(tensor.bfloat16(), state[name])


def test_a_strided_tensor_becomes_contiguous() -> None:
    state = random_state()
    name = "encoder.blocks.0.mlp.0.weight"
    state[name] = state[name].t().contiguous().t()
    tensors = assemble(FILE, DIMS, PLAN, state.keys(), state.__getitem__).tensors
    assert tensors[name].is_contiguous()
    assert torch.equal(tensors[name], state[name])


@pytest.mark.parametrize("bad", [torch.int8, torch.float64, torch.complex64])
def test_another_element_type_is_refused(bad: torch.dtype) -> None:
    state = random_state()
    state["decoder.ln.bias"] = state["decoder.ln.bias"].to(bad)
    with pytest.raises(WeightsError, match=rf"some\.file: tensor 'decoder\.ln\.bias' is {bad}"):
        assemble(FILE, DIMS, PLAN, state.keys(), state.__getitem__)


def test_a_sparse_tensor_is_refused() -> None:
    state = random_state()
    state["decoder.ln.bias"] = state["decoder.ln.bias"].to_sparse()
    with pytest.raises(WeightsError, match=r"'decoder\.ln\.bias' is not a dense tensor"):
        assemble(FILE, DIMS, PLAN, state.keys(), state.__getitem__)


@pytest.mark.parametrize("name", asdict(DIMS))
@pytest.mark.parametrize("bad", [0, -1, 1 << 40, 1.5, True, "8", None], ids=repr)
def test_a_dimension_that_no_model_has_is_named(name: str, bad: object) -> None:
    with pytest.raises(WeightsError, match=rf"some\.file: dimension '{name}'"):
        check_dims(FILE, {**asdict(DIMS), name: bad})


def test_an_unknown_dimension_is_named() -> None:
    with pytest.raises(WeightsError, match="unknown dimension 'n_future'"):
        check_dims(FILE, {**asdict(DIMS), "n_future": 1})


@pytest.mark.parametrize(
    "change",
    [{"n_audio_head": 3}, {"n_text_head": 3}, {"n_text_state": 16}, {"n_audio_state": 2, "n_text_state": 2}],
    ids=["audio-heads", "text-heads", "widths-differ", "too-narrow"],
)
def test_widths_that_do_not_fit_each_other_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(WeightsError, match=r"some\.file: "):
        check_dims(FILE, {**asdict(DIMS), **change})


@pytest.mark.parametrize("name", DIMENSIONS)
def test_published_dimensions_pass(name: str) -> None:
    assert check_dims(FILE, asdict(DIMENSIONS[name])) == DIMENSIONS[name]

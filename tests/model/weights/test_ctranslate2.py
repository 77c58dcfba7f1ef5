"""CTranslate2's `model.bin`: stacked attention, aliases, int8, and what is refused."""

import itertools
import struct
from pathlib import Path

import pytest
import torch

from model.errors import WeightsError
from model.weights.blob import open_blob
from model.weights.checks import ENCODER_POSITIONS, Checkpoint, sinusoids
from model.weights.ctranslate2 import read_ctranslate2
from tests.model.weights.writers import (
    ALIASES,
    DIMS,
    State,
    ctranslate2_bytes,
    ctranslate2_variables,
    quantise,
    random_state,
)

CONV = "encoder/conv1/weight"
FFN = "decoder/layer_1/ffn/linear_0/weight"


def read(tmp_path: Path, *parts: bytes) -> Checkpoint:
    paths = [tmp_path / f"model.bin.part{i}" for i in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    with open_blob(paths) as blob:
        return read_ctranslate2(blob)


def variables() -> State:
    return ctranslate2_variables(random_state())


@pytest.mark.parametrize("cuts", [[1000], [0], [1, 2, 3000, 3000], [-1]], ids=repr)
def test_parts_are_read_as_one(tmp_path: Path, cuts: list[int]) -> None:
    state = random_state()
    data = ctranslate2_bytes(ctranslate2_variables(state))
    edges = [0, *(cut % (len(data) + 1) for cut in cuts), len(data)]
    checkpoint = read(tmp_path, *(data[a:b] for a, b in itertools.pairwise(edges)))
    assert checkpoint.dims == DIMS
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in state.items())


def test_an_alias_of_any_tensor_is_followed(tmp_path: Path) -> None:
    state = random_state()
    state["decoder.blocks.1.mlp_ln.bias"] = state["decoder.blocks.0.mlp_ln.bias"]
    content = ctranslate2_variables(state)
    del content["decoder/layer_1/ffn/layer_norm/beta"]
    aliases = ALIASES | {"decoder/layer_1/ffn/layer_norm/beta": "decoder/layer_0/ffn/layer_norm/beta"}
    tensors = read(tmp_path, ctranslate2_bytes(content, aliases)).tensors
    assert torch.equal(tensors["decoder.blocks.1.mlp_ln.bias"], state["decoder.blocks.0.mlp_ln.bias"])


def test_int8_is_multiplied_out_by_row(tmp_path: Path) -> None:
    state = random_state(torch.float32)
    tensors = read(tmp_path, ctranslate2_bytes(quantise(ctranslate2_variables(state)))).tensors
    for name, tensor in state.items():
        assert tensors[name].dtype is torch.float32
        # Rounding to 1/127 of a row's maximum is off by half a step at most.
        rows = tensor.view(tensor.shape[0], -1)
        step = rows.abs().amax(dim=1) / 127 if name.endswith("weight") and tensor.dim() == 2 else torch.zeros(1)
        error = (tensors[name] - tensor).view(rows.shape).abs().amax(dim=1)
        assert bool((error <= step * 0.5001).all()), name
    assert not torch.equal(tensors["decoder.token_embedding.weight"], state["decoder.token_embedding.weight"])


def test_an_alias_of_an_int8_tensor_has_its_scale(tmp_path: Path) -> None:
    state = random_state(torch.float32)
    content = quantise(ctranslate2_variables(state))
    del content[FFN], content[f"{FFN}_scale"]
    aliases = ALIASES | {FFN: FFN.replace("layer_1", "layer_0")}
    tensors = read(tmp_path, ctranslate2_bytes(content, aliases)).tensors
    assert torch.equal(tensors["decoder.blocks.1.mlp.0.weight"], tensors["decoder.blocks.0.mlp.0.weight"])


def test_int8_convolutions_are_multiplied_out(tmp_path: Path) -> None:
    content = variables()
    weight = content[CONV].float()
    scale = 127.0 / weight.flatten(1).abs().amax(dim=1)
    content[CONV] = (weight * scale.view(-1, 1, 1)).round().to(torch.int8)
    content[f"{CONV}_scale"] = scale
    tensors = read(tmp_path, ctranslate2_bytes(content)).tensors
    assert torch.allclose(tensors["encoder.conv1.weight"], weight, atol=float(0.5001 / scale.min()))


def test_an_int8_tensor_without_its_scale_is_refused(tmp_path: Path) -> None:
    content = quantise(variables())
    del content[f"{FFN}_scale"]
    with pytest.raises(WeightsError, match=f"'{FFN}_scale' is missing"):
        read(tmp_path, ctranslate2_bytes(content))


@pytest.mark.parametrize(
    "scale",
    [torch.ones(3), torch.zeros(32), torch.full((32,), float("nan")), torch.ones(32, dtype=torch.int32)],
    ids=["rows", "zero", "nan", "type"],
)
def test_a_scale_that_does_not_fit_is_refused(tmp_path: Path, scale: torch.Tensor) -> None:
    content = quantise(variables()) | {f"{FFN}_scale": scale}
    with pytest.raises(WeightsError, match=f"'{FFN}_scale' must hold a positive scale"):
        read(tmp_path, ctranslate2_bytes(content))


def test_int16_is_refused_by_name(tmp_path: Path) -> None:
    content = variables()
    content[FFN] = content[FFN].to(torch.int16)
    content[f"{FFN}_scale"] = torch.tensor(1024.0)
    with pytest.raises(WeightsError, match=rf"'{FFN}' is torch\.int16"):
        read(tmp_path, ctranslate2_bytes(content))


def test_encoder_positions_may_be_left_out(tmp_path: Path) -> None:
    content = variables()
    del content["encoder/position_encodings/encodings"]
    checkpoint = read(tmp_path, ctranslate2_bytes(content))
    assert checkpoint.dims.n_audio_ctx == 1500
    assert torch.equal(checkpoint.tensors[ENCODER_POSITIONS], sinusoids(1500, 8))


def test_an_equal_projection_is_ignored(tmp_path: Path) -> None:
    content = variables()
    content["decoder/projection/weight"] = content["decoder/embeddings/weight"].clone()
    assert read(tmp_path, ctranslate2_bytes(content, {})).dims == DIMS


@pytest.mark.parametrize("shape", [(11, 8), (3,)])
def test_another_projection_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    content = variables() | {"decoder/projection/weight": torch.ones(shape)}
    with pytest.raises(WeightsError, match="'decoder/projection/weight' differs"):
        read(tmp_path, ctranslate2_bytes(content, {}))


def test_a_bias_of_the_key_is_refused(tmp_path: Path) -> None:
    content = variables()
    name = "encoder/layer_1/self_attention/linear_0/bias"
    content[name][8] = 1.0
    with pytest.raises(WeightsError, match=f"'{name}' gives the key projection a bias"):
        read(tmp_path, ctranslate2_bytes(content))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("decoder/activation", 0),
        ("decoder/alibi", 1),
        ("decoder/pre_norm", 0),
        ("decoder/scale_embeddings", 1),
        ("decoder/start_from_zero_embedding", 1),
    ],
)
def test_another_arithmetic_is_refused(tmp_path: Path, name: str, value: int) -> None:
    content = variables() | {name: torch.tensor(value, dtype=torch.int8)}
    with pytest.raises(WeightsError, match=f"'{name}' must be"):
        read(tmp_path, ctranslate2_bytes(content))


@pytest.mark.parametrize("name", ["encoder/num_heads", "decoder/num_heads"])
def test_the_number_of_heads_must_be_there(tmp_path: Path, name: str) -> None:
    content = variables()
    del content[name]
    with pytest.raises(WeightsError, match=f"'{name}' is missing"):
        read(tmp_path, ctranslate2_bytes(content))


def test_a_variable_that_gives_a_dimension_must_have_its_axes(tmp_path: Path) -> None:
    content = variables()
    content[CONV] = content[CONV].flatten(1)
    with pytest.raises(WeightsError, match=rf"'{CONV}' has shape \(8, 12\), expected 3 axes"):
        read(tmp_path, ctranslate2_bytes(content))


def damaged(old: bytes, new: bytes) -> bytes:
    data = ctranslate2_bytes(variables())
    assert data.count(old) == 1
    return data.replace(old, new)


HEADER = b"encoder/conv1/bias\0" + struct.pack("<BI", 1, 8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: ctranslate2_bytes(variables(), version=5), "binary version 5 is not read"),
        (lambda: ctranslate2_bytes(variables(), spec="TransformerSpec"), "holds 'TransformerSpec' revision 3"),
        (lambda: ctranslate2_bytes(variables(), revision=2), "revision 2"),
        (lambda: ctranslate2_bytes(variables()) + b"\0", "1 bytes follow the end"),
        (lambda: ctranslate2_bytes(variables(), {"a": "b"}), "'a' stands for 'b', which is missing"),
        (lambda: ctranslate2_bytes(variables(), {CONV: FFN}), f"'{CONV}' stands there twice"),
        (lambda: damaged(HEADER, HEADER[:-4] + struct.pack("<I", 9)), "16 bytes, which does not fit its shape"),
        (lambda: damaged(HEADER, HEADER[:-5] + b"\xff" + HEADER[-4:]), "has 255 axes"),
        (lambda: damaged(HEADER + b"\x04", HEADER + b"\x06"), "unknown element type 6"),
        (lambda: damaged(HEADER, b"encoder/conv1/bias!" + HEADER[-5:]), "no string ends"),
        (lambda: damaged(HEADER, b"encoder/conv1/bia\xff\0" + HEADER[-5:]), "no text before"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_container_is_refused(tmp_path: Path, data: object, message: str) -> None:
    assert callable(data)
    with pytest.raises(WeightsError, match=message):
        read(tmp_path, data())


def test_a_forged_size_allocates_nothing(tmp_path: Path) -> None:
    # 2^20 x 2^10 halves are 2 GiB: the size fits the shape, the file does not hold it.
    forged = b"encoder/conv1/bias\0" + struct.pack("<BIIBI", 2, 1 << 20, 1 << 10, 4, 1 << 31)
    with pytest.raises(WeightsError, match="truncated inside variable 'encoder/conv1/bias'"):
        read(tmp_path, damaged(HEADER + struct.pack("<BI", 4, 16), forged))


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(ctranslate2_bytes(variables()))
    with open_blob([path]) as blob:
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(WeightsError, match=r"model\.bin: became shorter"):
            read_ctranslate2(blob)

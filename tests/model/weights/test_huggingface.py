"""A transformers folder: single and sharded, with and without the prefix, and what is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import WeightsError
from model.weights import load_weights
from model.weights.checks import ENCODER_POSITIONS, sinusoids
from model.weights.huggingface import read_huggingface
from tests.model.weights.writers import CONFIG, DIMS, huggingface_state, random_state, write_huggingface


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_names_are_mapped(tmp_path: Path, prefix: str, shards: int) -> None:
    state = random_state()
    folder = write_huggingface(tmp_path / "hf", huggingface_state(state, prefix), shards=shards)
    checkpoint = read_huggingface(folder)
    assert checkpoint.dims == DIMS
    assert checkpoint.tensors.keys() == state.keys()
    assert all(torch.equal(checkpoint.tensors[key], tensor) for key, tensor in state.items())


def test_a_sharded_model_s_hash_is_over_its_shards(tmp_path: Path) -> None:
    folder = write_huggingface(tmp_path / "hf", huggingface_state(random_state()), shards=3)
    joined = b"".join(path.read_bytes() for path in sorted(folder.glob("*.safetensors")))
    assert load_weights(str(folder)).sha256 == hashlib.sha256(joined).hexdigest()
    index = folder / "model.safetensors.index.json"
    assert load_weights(str(index)).sha256 == hashlib.sha256(joined).hexdigest()


def test_a_tied_projection_is_ignored(tmp_path: Path) -> None:
    state = huggingface_state(random_state())
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"].clone()
    assert "proj_out.weight" not in read_huggingface(write_huggingface(tmp_path / "hf", state)).tensors


def test_an_untied_projection_is_refused(tmp_path: Path) -> None:
    state = huggingface_state(random_state())
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"] + 1
    with pytest.raises(WeightsError, match=r"model\.safetensors: tensor 'proj_out\.weight' differs"):
        read_huggingface(write_huggingface(tmp_path / "hf", state))


def test_encoder_positions_may_be_left_out(tmp_path: Path) -> None:
    state = huggingface_state(random_state())
    del state["model.encoder.embed_positions.weight"]
    tensors = read_huggingface(write_huggingface(tmp_path / "hf", state)).tensors
    assert torch.equal(tensors[ENCODER_POSITIONS], sinusoids(6, 8))


def test_config_need_not_say_what_every_whisper_shares(tmp_path: Path) -> None:
    config = {k: v for k, v in CONFIG.items() if k not in ("model_type", "activation_function", "scale_embedding")}
    folder = write_huggingface(tmp_path / "hf", huggingface_state(random_state()), config=config)
    assert read_huggingface(folder).dims == DIMS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bart"}, "key 'model_type' is 'bart', expected 'whisper'"),
        ({"activation_function": "relu"}, "key 'activation_function'"),
        ({"scale_embedding": True}, "key 'scale_embedding'"),
        ({"d_model": "8"}, "dimension 'n_audio_state'"),
        ({"encoder_layers": 10**9}, "dimension 'n_audio_layer'"),
    ],
)
def test_config_of_another_model_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = write_huggingface(tmp_path / "hf", huggingface_state(random_state()), config=CONFIG | change)
    with pytest.raises(WeightsError, match=rf"config\.json: {message}"):
        read_huggingface(folder)


@pytest.mark.parametrize("key", [key for key in CONFIG if isinstance(CONFIG[key], int) and key != "scale_embedding"])
def test_a_missing_key_of_the_config_is_named(tmp_path: Path, key: str) -> None:
    config = {name: value for name, value in CONFIG.items() if name != key}
    folder = write_huggingface(tmp_path / "hf", huggingface_state(random_state()), config=config)
    with pytest.raises(WeightsError, match=rf"config\.json: key '{key}' is missing"):
        read_huggingface(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\xff"], ids=["empty", "cut", "list", "deep", "bytes"])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    folder = write_huggingface(tmp_path / "hf", huggingface_state(random_state()))
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(WeightsError, match=r"config\.json: is no JSON"):
        read_huggingface(folder)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    folder = write_huggingface(tmp_path / "hf", huggingface_state(random_state()))
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"config\.json: cannot be read"):
        read_huggingface(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_huggingface(tmp_path / "hf", huggingface_state(random_state()), shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors: shard is missing"):
        load_weights(str(folder))


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/hostname", "", 3, None, ["x"]], ids=repr)
def test_a_shard_outside_the_folder_is_refused(tmp_path: Path, shard: object) -> None:
    folder = write_huggingface(tmp_path / "hf", huggingface_state(random_state()), shards=2)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(WeightsError, match=r"index\.json: "):
        load_weights(str(folder))


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": [1]}])
def test_an_index_without_shards_is_refused(tmp_path: Path, index: object) -> None:
    folder = write_huggingface(tmp_path / "hf", huggingface_state(random_state()), shards=2)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="key 'weight_map'"):
        load_weights(str(folder))


def test_a_name_with_and_without_the_prefix_is_refused(tmp_path: Path) -> None:
    state = huggingface_state(random_state())
    state["encoder.conv1.bias"] = state["model.encoder.conv1.bias"].clone()
    with pytest.raises(WeightsError, match=r"conv1\.bias' stands there twice"):
        read_huggingface(write_huggingface(tmp_path / "hf", state))


@pytest.mark.parametrize("key", ["model.encoder.conv1.bias", "proj_out.weight"])
@pytest.mark.parametrize(("dtype", "bits"), [("F4", 4), ("F6_E2M3", 6), ("F8_E4M3", 8), ("U16", 16), ("BOOL", 8)])
def test_an_element_type_of_another_kind_is_refused(tmp_path: Path, key: str, dtype: str, bits: int) -> None:
    state = huggingface_state(random_state())
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"].clone()
    # 24 values of 16 bits hold a whole number of elements of each width.
    state[key] = torch.zeros(24, dtype=torch.float16)
    path = write_huggingface(tmp_path / "hf", state) / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header[key] |= {"dtype": dtype, "shape": [24 * 16 // bits]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(WeightsError, match=r"model\.safetensors: tensor '(encoder.conv1.bias|model.*bias|proj_out.*)'"):
        read_huggingface(path.parent)

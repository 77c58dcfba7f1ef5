"""Reads a folder in Hugging Face form (`config.json` beside safetensors) into the reference's names.

Gives a `Checkpoint`. The weights are one `model.safetensors` or shards under `model.safetensors.index.json`; names are
those of transformers' `WhisperForConditionalGeneration`, with or without the leading `model.`. The tied `proj_out` is
ignored, once it is seen to equal the embedding. Nothing here is a pickle, so nothing can run.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.dims import ModelDimensions
from model.errors import WeightsError
from model.weights.checks import ENCODER_POSITIONS, Checkpoint, Entry, assemble, check_dims, expected_shapes, is_copy

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

DIMENSIONS = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}
"""The config's name of each size."""
SETTINGS = {"model_type": "whisper", "activation_function": "gelu", "scale_embedding": False}
"""What a Whisper model's config says, if it says it at all."""

_TOP = {
    ENCODER_POSITIONS: "encoder.embed_positions.weight",
    "decoder.positional_embedding": "decoder.embed_positions.weight",
    "decoder.token_embedding.weight": "decoder.embed_tokens.weight",
}
_PARTS = {
    "attn": "self_attn",
    "cross_attn": "encoder_attn",
    "attn_ln": "self_attn_layer_norm",
    "cross_attn_ln": "encoder_attn_layer_norm",
    "mlp_ln": "final_layer_norm",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "out": "out_proj",
    "ln_post": "layer_norm",
    "ln": "layer_norm",
    "blocks": "layers",
}
_EMBEDDING, _PROJECTION = _TOP["decoder.token_embedding.weight"], "proj_out.weight"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, in the order of their names; WeightsError if a shard is missing."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    index = folder / INDEX
    shards = _json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise WeightsError(f"{index}: key 'weight_map' is missing or empty")
    names = set()
    for name in shards.values():
        # A shard is a file of this folder, never a path to somewhere else.
        if not isinstance(name, str) or not name or Path(name).name != name:
            raise WeightsError(f"{index}: shard {name!r} is no plain file name")
        names.add(name)
    for name in sorted(names):
        if not (folder / name).is_file():
            raise WeightsError(f"{folder / name}: shard is missing")
    return [folder / name for name in sorted(names)]


def read_huggingface(folder: Path) -> Checkpoint:
    """The model in this folder; WeightsError names the file and the key that is wrong."""
    dims = _dims(folder / CONFIG)
    files = weight_files(folder)
    # Messages name the file that was read, or the index where there are several.
    where = files[0] if len(files) == 1 else folder / INDEX
    with contextlib.ExitStack() as stack:
        tensors = _open(stack, files)
        _check_projection(where, tensors)
        keys = tensors.keys() - {_PROJECTION}
        return assemble(where, dims, plan(dims), keys, lambda key: _read(tensors, key))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: is no JSON ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: is no JSON object")
    return content


def _dims(config: Path) -> ModelDimensions:
    values = _json(config)
    for key, expected in SETTINGS.items():
        if key in values and values[key] != expected:
            raise WeightsError(f"{config}: key '{key}' is {values[key]!r}, expected {expected!r}")
    if missing := [key for key in DIMENSIONS.values() if key not in values]:
        raise WeightsError(f"{config}: key '{missing[0]}' is missing")
    return check_dims(config, {name: values[key] for name, key in DIMENSIONS.items()})


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one tensor stands: the open file, and the tensor's name there."""

    file: Path
    handle: safe_open
    key: str


def _open(stack: contextlib.ExitStack, files: list[Path]) -> dict[str, _Place]:
    """Where to read each tensor: name without the leading `model.` -> where it stands."""
    places: dict[str, _Place] = {}
    for file in files:
        try:
            handle = stack.enter_context(safe_open(file, framework="pt", device="cpu"))
            keys = list(handle.keys())
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(f"{file}: no readable safetensors file ({error})") from error
        for key in keys:
            name = key.removeprefix("model.")
            if name in places:
                raise WeightsError(f"{file}: tensor '{key}' stands there twice")
            places[name] = _Place(file, handle, key)
    return places


def _read(places: dict[str, _Place], name: str) -> Tensor:
    place = places[name]
    try:
        tensor: Tensor = place.handle.get_tensor(place.key)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise WeightsError(f"{place.file}: tensor '{place.key}' cannot be read ({error})") from error
    return tensor


def _check_projection(where: Path, places: dict[str, _Place]) -> None:
    """The output projection is the embedding itself: left out, or an equal copy."""
    if _PROJECTION not in places or _EMBEDDING not in places:
        return
    if not is_copy(_read(places, _PROJECTION), _read(places, _EMBEDDING)):
        raise WeightsError(f"{where}: tensor '{_PROJECTION}' differs from the embedding that Whisper shares")


def plan(dims: ModelDimensions) -> Iterator[Entry]:
    """Every tensor of a model of this size, under the folder's name and the reference's."""
    for name in expected_shapes(dims):
        words = name.replace("mlp.0", "fc1").replace("mlp.2", "fc2").split(".")
        yield Entry(_TOP.get(name) or ".".join(_PARTS.get(word, word) for word in words), (name,))

"""Reads a CTranslate2 Whisper model (`model.bin`) into the reference's names.

Gets a `Blob` whose hash the caller has checked, gives a `Checkpoint`. Query, key and value stand stacked in one
variable, and so do cross-attention's key and value, with a bias whose key part is zero. Tensors keep the type of the
file; int8 weights are multiplied out to float32 with the scale of their row. Dimensions come from the shapes.
Layout: CTranslate2 4.8, python/ctranslate2/specs/whisper_spec.py and converters/transformers.py.
"""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from model.dims import N_FRAMES, ModelDimensions
from model.errors import WeightsError
from model.weights.blob import Blob
from model.weights.checks import ENCODER_POSITIONS, Checkpoint, Entry, assemble, check_dims, is_copy
from model.weights.model_bin import Variable, read_index, read_variable

SWITCHES = {
    "decoder/activation": 3,  # GELU, not its approximation
    "decoder/alibi": 0,
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
}
"""Scalars that would change the arithmetic, with the value that Whisper has."""
_WITHOUT_EFFECT = {
    "decoder/alibi_use_positive_positions",
    "decoder/alignment_heads",
    "decoder/alignment_layer",
    "decoder/scale_alibi",
}
_HEADS = {"encoder/num_heads", "decoder/num_heads"}
EMBEDDING, PROJECTION = "decoder/embeddings/weight", "decoder/projection/weight"
_POSITIONS = "position_encodings/encodings"


def read_ctranslate2(blob: Blob) -> Checkpoint:
    """The model in this file; WeightsError names the file and the variable that is wrong."""
    index = read_index(blob)
    for name, value in SWITCHES.items():
        if name in index and _scalar(blob, index, name) != value:
            raise WeightsError(f"{blob.path}: variable {name!r} must be {value} in a Whisper model")
    dims = _dims(blob, index)
    _check_projection(blob, index)
    quantised = {name for name, variable in index.items() if variable.dtype in (torch.int8, torch.int16)}
    skipped = {f"{name}_scale" for name in quantised} | SWITCHES.keys() | _WITHOUT_EFFECT | _HEADS | {PROJECTION}
    keys = index.keys() - skipped
    return assemble(blob.path, dims, plan(dims), keys, lambda key: _tensor(blob, index, key))


def _variable(blob: Blob, index: dict[str, Variable], name: str, rank: int) -> Variable:
    if name not in index:
        raise WeightsError(f"{blob.path}: variable {name!r} is missing")
    if len(index[name].shape) != rank:
        raise WeightsError(f"{blob.path}: variable {name!r} has shape {index[name].shape}, expected {rank} axes")
    return index[name]


def _scalar(blob: Blob, index: dict[str, Variable], name: str) -> int:
    return int(read_variable(blob, _variable(blob, index, name, rank=0)).item())


def _dims(blob: Blob, index: dict[str, Variable]) -> ModelDimensions:
    conv = _variable(blob, index, "encoder/conv1/weight", rank=3)
    embedding = _variable(blob, index, EMBEDDING, rank=2)
    positions = _variable(blob, index, f"decoder/{_POSITIONS}", rank=2)
    # Positions that the file leaves out are computed for 30 s of sound, as `assemble` does.
    audio_ctx = index[f"encoder/{_POSITIONS}"].shape[:1] if f"encoder/{_POSITIONS}" in index else (N_FRAMES // 2,)
    values: dict[str, object] = {
        "n_mels": conv.shape[1],
        "n_audio_ctx": audio_ctx[0] if audio_ctx else 0,
        "n_audio_state": conv.shape[0],
        "n_audio_head": _scalar(blob, index, "encoder/num_heads"),
        "n_audio_layer": _layers(index, "encoder"),
        "n_vocab": embedding.shape[0],
        "n_text_ctx": positions.shape[0],
        # One width for both parts: an embedding of another width is then named as mis-shaped.
        "n_text_state": conv.shape[0],
        "n_text_head": _scalar(blob, index, "decoder/num_heads"),
        "n_text_layer": _layers(index, "decoder"),
    }
    return check_dims(blob.path, values)


def _layers(index: dict[str, Variable], part: str) -> int:
    """Layers that the names speak of: one more than the highest number."""
    numbers = [int(found[1]) for name in index if (found := re.match(rf"{part}/layer_([0-9]{{1,6}})/", name))]
    return max(numbers, default=-1) + 1


def _check_projection(blob: Blob, index: dict[str, Variable]) -> None:
    """The output projection is the embedding itself: an alias of it, or an equal copy."""
    projection = index.get(PROJECTION)
    if projection in (None, index[EMBEDDING]):
        return
    if not is_copy(_tensor(blob, index, PROJECTION), _tensor(blob, index, EMBEDDING)):
        raise WeightsError(f"{blob.path}: variable {PROJECTION!r} differs from the embedding that Whisper shares")


def _tensor(blob: Blob, index: dict[str, Variable], key: str) -> Tensor:
    tensor = read_variable(blob, index[key])
    if tensor.dtype is not torch.int8 or not tensor.dim():
        return tensor
    name = f"{key}_scale"
    if name not in index:
        raise WeightsError(f"{blob.path}: variable {name!r} is missing: {key!r} cannot be multiplied out")
    scale = read_variable(blob, index[name])
    if scale.shape != tensor.shape[:1] or not scale.dtype.is_floating_point or not bool((scale > 0).all()):
        raise WeightsError(f"{blob.path}: variable {name!r} must hold a positive scale for each row of {key!r}")
    return tensor.float() / scale.float().view(-1, *[1] * (tensor.dim() - 1))


def plan(dims: ModelDimensions) -> Iterator[Entry]:
    """Every tensor of a model of this size, under the file's name and the reference's."""
    for conv in ("conv1", "conv2"):
        yield from _pair(f"encoder/{conv}", "weight", "bias", f"encoder.{conv}")
    yield Entry(f"encoder/{_POSITIONS}", (ENCODER_POSITIONS,))
    yield from _norm("encoder/layer_norm", "encoder.ln_post")
    yield Entry(EMBEDDING, ("decoder.token_embedding.weight",))
    yield Entry(f"decoder/{_POSITIONS}", ("decoder.positional_embedding",))
    yield from _norm("decoder/layer_norm", "decoder.ln")
    for layer in range(dims.n_audio_layer):
        yield from _block(f"encoder/layer_{layer}", f"encoder.blocks.{layer}")
    for layer in range(dims.n_text_layer):
        yield from _block(f"decoder/layer_{layer}", f"decoder.blocks.{layer}")
        yield from _cross_attention(f"decoder/layer_{layer}/attention", f"decoder.blocks.{layer}")


def _block(layer: str, block: str) -> Iterator[Entry]:
    attention = f"{block}.attn"
    yield from _norm(f"{layer}/self_attention/layer_norm", f"{block}.attn_ln")
    yield from _linear(f"{layer}/self_attention/linear_0", attention, "query", "key", "value")
    yield from _linear(f"{layer}/self_attention/linear_1", attention, "out")
    yield from _norm(f"{layer}/ffn/layer_norm", f"{block}.mlp_ln")
    yield from _linear(f"{layer}/ffn/linear_0", f"{block}.mlp", "0")
    yield from _linear(f"{layer}/ffn/linear_1", f"{block}.mlp", "2")


def _cross_attention(layer: str, block: str) -> Iterator[Entry]:
    attention = f"{block}.cross_attn"
    yield from _norm(f"{layer}/layer_norm", f"{block}.cross_attn_ln")
    yield from _linear(f"{layer}/linear_0", attention, "query")
    yield from _linear(f"{layer}/linear_1", attention, "key", "value")
    yield from _linear(f"{layer}/linear_2", attention, "out")


def _linear(key: str, module: str, *parts: str) -> Iterator[Entry]:
    yield Entry(f"{key}/weight", tuple(f"{module}.{part}.weight" for part in parts))
    yield Entry(f"{key}/bias", tuple(None if part == "key" else f"{module}.{part}.bias" for part in parts))


def _norm(key: str, module: str) -> Iterator[Entry]:
    yield from _pair(key, "gamma", "beta", module)


def _pair(key: str, weight: str, bias: str, module: str) -> Iterator[Entry]:
    yield Entry(f"{key}/{weight}", (f"{module}.weight",))
    yield Entry(f"{key}/{bias}", (f"{module}.bias",))

"""What every reader's result must pass: one tensor for each name of the reference, in the right shape and type.

A reader gives the dimensions and a plan: which tensors of its file hold which tensors of the model. `assemble` asks the
file for each of them, compares shapes, and refuses what is missing, extra or mis-shaped before the engine sees it
(failure contract R41). The names are those of the published checkpoints' `model_state_dict`
(openai/whisper 20250625, whisper/model.py). Nothing is widened but bfloat16 -> float32, which loses nothing.
"""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from model.dims import ModelDimensions
from model.errors import WeightsError

ENCODER_POSITIONS = "encoder.positional_embedding"
"""Sinusoids: some conversions leave them out, since they can be computed."""

_FLOATS = (torch.float16, torch.float32)
_LIMITS = {"layer": 256, "ctx": 1 << 16}
_MAX_SIZE = 1 << 20
"""Far above every Whisper: a forged dimension costs no memory."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a file holds: the dimensions and a complete set of tensors under the reference's names."""

    dims: ModelDimensions
    tensors: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file, `key`, which holds the model's `targets` stacked along its first axis.

    A target of None is a part that the model does not have (the bias of a key projection): it must be zero.
    """

    key: str
    targets: tuple[str | None, ...]


def check_dims(file: Path, values: dict[str, object]) -> ModelDimensions:
    """The dimensions among `values` (name -> number); refuses what no Whisper model can have."""
    names = [field.name for field in fields(ModelDimensions)]
    for name in names:
        value = values.get(name)
        limit = _LIMITS.get(name.rsplit("_", 1)[1], _MAX_SIZE)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
            raise WeightsError(f"{file}: dimension '{name}' must be a whole number from 1 to {limit}, not {value!r}")
    if extra := sorted(set(values) - set(names)):
        raise WeightsError(f"{file}: unknown dimension {extra[0]!r}")
    dims = ModelDimensions(**{name: values[name] for name in names})  # type: ignore[arg-type]
    if dims.n_audio_state != dims.n_text_state:
        raise WeightsError(
            f"{file}: n_audio_state {dims.n_audio_state} and n_text_state {dims.n_text_state} must be equal"
        )
    for state, head in ((dims.n_audio_state, dims.n_audio_head), (dims.n_text_state, dims.n_text_head)):
        if state % head or state % 2 or state < 4:
            raise WeightsError(f"{file}: a width of {state} does not divide into {head} attention heads and sinusoids")
    return dims


def expected_shapes(dims: ModelDimensions) -> dict[str, tuple[int, ...]]:
    """Every tensor of a model of these dimensions, by the reference's name, with its shape."""
    audio, text = dims.n_audio_state, dims.n_text_state
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.conv1.weight": (audio, dims.n_mels, 3),
        "encoder.conv1.bias": (audio,),
        "encoder.conv2.weight": (audio, audio, 3),
        "encoder.conv2.bias": (audio,),
        ENCODER_POSITIONS: (dims.n_audio_ctx, audio),
        "encoder.ln_post.weight": (audio,),
        "encoder.ln_post.bias": (audio,),
        "decoder.token_embedding.weight": (dims.n_vocab, text),
        "decoder.positional_embedding": (dims.n_text_ctx, text),
        "decoder.ln.weight": (text,),
        "decoder.ln.bias": (text,),
    }
    for layer in range(dims.n_audio_layer):
        shapes |= _block_shapes(f"encoder.blocks.{layer}", audio, ("attn",))
    for layer in range(dims.n_text_layer):
        shapes |= _block_shapes(f"decoder.blocks.{layer}", text, ("attn", "cross_attn"))
    return shapes


def _block_shapes(block: str, state: int, attentions: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for attention in attentions:
        for projection in ("query", "key", "value", "out"):
            shapes[f"{block}.{attention}.{projection}.weight"] = (state, state)
            if projection != "key":
                shapes[f"{block}.{attention}.{projection}.bias"] = (state,)
    for norm in (*(f"{attention}_ln" for attention in attentions), "mlp_ln"):
        shapes |= {f"{block}.{norm}.weight": (state,), f"{block}.{norm}.bias": (state,)}
    shapes |= {f"{block}.mlp.0.weight": (4 * state, state), f"{block}.mlp.0.bias": (4 * state,)}
    shapes |= {f"{block}.mlp.2.weight": (state, 4 * state), f"{block}.mlp.2.bias": (state,)}
    return shapes


def assemble(
    file: Path,
    dims: ModelDimensions,
    plan: Iterable[Entry],
    keys: Collection[str],
    read: Callable[[str], Tensor],
) -> Checkpoint:
    """Read every entry of the plan from a file that holds `keys`; `WeightsError` names the first key that is wrong.

    `plan` covers every tensor of `expected_shapes(dims)` once. `read(key)` gives a tensor on the CPU. Encoder
    positions that the file lacks are computed.
    """
    shapes = expected_shapes(dims)
    entries = list(plan)
    optional = {entry.key for entry in entries if entry.targets == (ENCODER_POSITIONS,)}
    wanted = {entry.key for entry in entries}
    if missing := [entry.key for entry in entries if entry.key not in keys and entry.key not in optional]:
        raise WeightsError(f"{file}: tensor '{missing[0]}' is missing ({len(missing)} missing in all)")
    if extra := sorted(key for key in keys if key not in wanted):
        raise WeightsError(f"{file}: tensor '{extra[0]}' has no place in the model ({len(extra)} such in all)")
    tensors: dict[str, Tensor] = {}
    for entry in entries:
        if entry.key in keys:
            tensors |= _take(file, entry, read(entry.key), shapes)
    if ENCODER_POSITIONS not in tensors:
        tensors[ENCODER_POSITIONS] = sinusoids(dims.n_audio_ctx, dims.n_audio_state)
    return Checkpoint(dims, {name: tensors[name] for name in shapes})


def _take(file: Path, entry: Entry, tensor: Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Split one tensor of the file into the model's, by name."""
    # A part that the model lacks (None) has the shape of its siblings.
    part = next(shapes[target] for target in entry.targets if target is not None)
    expected = (part[0] * len(entry.targets), *part[1:])
    if tuple(tensor.shape) != expected:
        raise WeightsError(f"{file}: tensor '{entry.key}' has shape {tuple(tensor.shape)}, expected {expected}")
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise WeightsError(f"{file}: tensor '{entry.key}' is not a dense tensor in memory")
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()
    if tensor.dtype not in _FLOATS:
        raise WeightsError(f"{file}: tensor '{entry.key}' is {tensor.dtype}, expected float16, bfloat16 or float32")
    # A plain, contiguous tensor, whatever subclass or stride the file asked for.
    pieces = zip(
        entry.targets, tensor.detach().contiguous().split_with_sizes([part[0]] * len(entry.targets)), strict=True
    )
    taken = {}
    for target, piece in pieces:
        if target is not None:
            taken[target] = piece
        elif piece.any():
            raise WeightsError(f"{file}: tensor '{entry.key}' gives the key projection a bias, which Whisper has not")
    return taken


def is_copy(tensor: Tensor, other: Tensor) -> bool:
    """Whether both hold the same floating-point values; for tensors straight from a file, of any type and shape."""
    types = {tensor.dtype, other.dtype}
    return len(types) == 1 and types <= {*_FLOATS, torch.bfloat16} and torch.equal(tensor, other)


def sinusoids(length: int, channels: int) -> Tensor:
    """The encoder's fixed positions, (length, channels) float32: sines, then cosines, of geometric time scales.

    Vaswani et al. 2017, section 3.5, laid out as in `whisper/model.py: sinusoids` (timescales from 1 to 10,000).
    """
    half = channels // 2
    rates = torch.exp(torch.arange(half) * (-math.log(10_000.0) / (half - 1)))
    angles = torch.arange(length).unsqueeze(1) * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)

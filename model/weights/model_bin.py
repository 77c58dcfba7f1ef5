"""The container of a CTranslate2 model: which variables a `model.bin` holds and where their bytes stand.

Gets a `Blob`, gives `ctranslate2.py` an index by name. Every length is checked against the bytes that are there before
it is believed, so that a damaged file of any kind ends in a `WeightsError` and no allocation follows a forged size.
Format: CTranslate2 4.8, python/ctranslate2/specs/model_spec.py (`_serialize`), little endian, binary version 6.
"""

import struct
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from model.errors import WeightsError
from model.weights.blob import Blob

_VERSION = 6
_SPEC = "WhisperSpec"
_REVISION = 3
_MAX_RANK = 8

_TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
"""Element types by their number in the file."""


@dataclass(frozen=True, slots=True)
class Variable:
    """Where one variable's bytes stand, and what they are."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    size: int


def looks_like_model_bin(blob: Blob) -> bool:
    """Whether the file begins as a CTranslate2 Whisper model does."""
    name = _SPEC.encode() + b"\0"
    head = struct.pack("<IH", _VERSION, len(name)) + name
    return blob.size >= len(head) and blob.read(0, len(head)) == head


def read_index(blob: Blob) -> dict[str, Variable]:
    """Every variable by name; an alias is a second name of the same variable (and of its scale)."""
    cursor = _Cursor(blob)
    version = cursor.take("I")
    if version != _VERSION:
        raise WeightsError(f"{blob.path}: CTranslate2 binary version {version} is not read, only {_VERSION}")
    spec, revision = cursor.string(), cursor.take("I")
    if (spec, revision) != (_SPEC, _REVISION):
        raise WeightsError(f"{blob.path}: holds {spec!r} revision {revision}, expected {_SPEC!r} revision {_REVISION}")
    index: dict[str, Variable] = {}
    for _ in range(cursor.take("I")):
        name = cursor.string()
        _add(blob, index, name, cursor.variable(name))
    for _ in range(cursor.take("I")):
        alias, name = cursor.string(), cursor.string()
        if name not in index:
            raise WeightsError(f"{blob.path}: {alias!r} stands for {name!r}, which is missing")
        _add(blob, index, alias, index[name])
        if f"{name}_scale" in index:
            index.setdefault(f"{alias}_scale", index[f"{name}_scale"])
    if cursor.offset != blob.size:
        raise WeightsError(f"{blob.path}: {blob.size - cursor.offset} bytes follow the end of the model")
    return index


def read_variable(blob: Blob, variable: Variable) -> Tensor:
    """One variable as a tensor in memory of its own (variables stand unaligned in the file)."""
    tensor = torch.empty(variable.shape, dtype=variable.dtype)
    blob.read_into(variable.offset, tensor.view(-1).view(torch.uint8).numpy().data)
    return tensor


def _add(blob: Blob, index: dict[str, Variable], name: str, variable: Variable) -> None:
    if name in index:
        raise WeightsError(f"{blob.path}: variable {name!r} stands there twice")
    index[name] = variable


class _Cursor:
    """A position in the file that moves as values are taken; never past the end."""

    def __init__(self, blob: Blob) -> None:
        self.blob = blob
        self.offset = 0

    def take(self, layout: str) -> int:
        form = struct.Struct("<" + layout)
        value: int = form.unpack(self._bytes(form.size))[0]
        return value

    def string(self) -> str:
        data = self._bytes(self.take("H"))
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise WeightsError(f"{self.blob.path}: damaged: no text before byte {self.offset}") from None
        if not text.endswith("\0"):
            raise WeightsError(f"{self.blob.path}: damaged: no string ends at byte {self.offset}")
        return text[:-1]

    def variable(self, name: str) -> Variable:
        path = self.blob.path
        rank = self.take("B")
        if rank > _MAX_RANK:
            raise WeightsError(f"{path}: variable {name!r} has {rank} axes")
        shape = tuple(self.take("I") for _ in range(rank))
        number, size = self.take("B"), self.take("I")
        if number >= len(_TYPES):
            raise WeightsError(f"{path}: variable {name!r} has the unknown element type {number}")
        dtype = _TYPES[number]
        if size != prod(shape) * dtype.itemsize:
            raise WeightsError(f"{path}: variable {name!r} has {size} bytes, which does not fit its shape {shape}")
        if self.offset + size > self.blob.size:
            raise WeightsError(f"{path}: truncated inside variable {name!r}")
        variable = Variable(shape, dtype, self.offset, size)
        self.offset += size
        return variable

    def _bytes(self, size: int) -> bytes:
        data = self.blob.read(self.offset, size)
        self.offset += size
        return data

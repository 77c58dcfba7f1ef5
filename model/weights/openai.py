"""Reads a checkpoint in the publisher's own form: a `.pt` with `dims` and `model_state_dict`.

The file is a pickle inside, so it is opened with `weights_only=True`: a payload is refused, not run. Tensors stay
mapped from the file where its form allows it (the zip form, PyTorch's own since 1.6): workers share the pages.
"""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import WeightsError
from model.weights.checks import Checkpoint, Entry, assemble, check_dims, expected_shapes


def read_openai(path: Path) -> Checkpoint:
    """The model in this file; WeightsError names the file and the key that is wrong."""
    content = _load(path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, expected 'dims' and 'model_state_dict'")
    values = _section(path, content, "dims")
    state = _section(path, content, "model_state_dict")
    dims = check_dims(path, values)
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise WeightsError(f"{path}: '{key}' of 'model_state_dict' is no tensor")
    plan = [Entry(name, (name,)) for name in expected_shapes(dims)]
    return assemble(path, dims, plan, state.keys(), state.__getitem__)


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        # A damaged or hostile pickle may end in any exception: all of them mean that the file is refused.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{path}: no readable PyTorch checkpoint of plain tensors ({reason})") from error


def _section(path: Path, content: dict[Any, Any], key: str) -> dict[str, Any]:
    section = content.get(key)
    if not isinstance(section, dict) or not all(isinstance(name, str) for name in section):
        raise WeightsError(f"{path}: key '{key}' is missing or is no dictionary of names")
    return section

"""Where the model runs and in which number format: the choice behind `device` and `compute_type`."""

import torch

from model.errors import OptionError

COMPUTE_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(device: str | None) -> torch.device:
    """`auto` or None: the first CUDA device where there is one, else the CPU. `OptionError` for one that is absent."""
    if device is None or device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise OptionError("device", f"device {device!r} is not a device name; try 'cpu' or 'cuda:0'") from error
    if chosen.type not in ("cpu", "cuda"):
        raise OptionError("device", f"device {device!r} is not supported; use 'cpu' or 'cuda:N'")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise OptionError("device", f"device {device!r} is not there: {torch.cuda.device_count()} CUDA device(s) found")
    return chosen


def choose_dtype(compute_type: str, device: torch.device) -> torch.dtype:
    """`auto` is float32 on a CPU and float16 on a GPU. `OptionError` for what this device cannot do."""
    if compute_type == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if compute_type not in COMPUTE_TYPES:
        known = ", ".join(["auto", *COMPUTE_TYPES])
        raise OptionError("compute_type", f"compute type {compute_type!r} is not supported; use one of {known}")
    if compute_type == "float16" and device.type == "cpu":
        raise OptionError("compute_type", "float16 needs a GPU; on a CPU use float32 or bfloat16")
    return COMPUTE_TYPES[compute_type]

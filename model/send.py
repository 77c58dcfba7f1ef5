"""Numbers on their way from the host to a device, for which nobody waits: the counterpart of `model.fetch`.

A copy to a GPU out of ordinary memory makes the host wait until the device has done everything that it was given
before, and so does an index that is a Python list. In the midst of decode steps that costs the step that was launched
ahead. From pinned memory the copy is one more thing that the device does in its turn; torch uses that memory for
nothing else before it has ended.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def pinned(values: Tensor, device: torch.device) -> Tensor:
    """The same values in memory from which a copy to this device makes nobody wait."""
    return values.pin_memory() if device.type == "cuda" and values.device.type == "cpu" else values


def send(values: Tensor | Sequence[int], device: torch.device) -> Tensor:
    """Values on a device, in their own format."""
    host = values if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.long)
    return pinned(host, device).to(device, non_blocking=True)

"""Numbers on their way between the host and a device, for which nobody waits before they are wanted.

A copy to a GPU out of ordinary memory makes the host wait until the device has done everything that it was given
before, and so does an index that is a Python list. In the midst of decode steps that costs the step that was launched
ahead. From pinned memory the copy is one more thing that the device does in its turn; torch uses that memory for
nothing else before it has ended. The way back is the same: the copy goes into pinned memory behind the work that makes
the numbers, and an event says when it is there, so whoever reads waits for that event and not for what was begun later.
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


class Fetched:
    """What a tensor holds now, whatever becomes of its memory."""

    def __init__(self, tensor: Tensor) -> None:
        """Begin to copy."""
        self._event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(tensor.device))
        else:
            self._host = tensor.clone()

    def read(self) -> Tensor:
        """The numbers, on the host, once they are there."""
        if self._event is not None:
            self._event.synchronize()
            self._event = None
        return self._host

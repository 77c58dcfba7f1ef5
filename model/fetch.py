"""Numbers on their way from a device to the host, which need not wait for them at once.

Used by `model.opening`, `model.device_choice` and `model.vad`. On a GPU the copy goes into pinned memory behind the
work that makes the numbers, and an event says when it is there: whoever reads waits for that event, and not for what
was begun later.
"""

import torch
from torch import Tensor


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

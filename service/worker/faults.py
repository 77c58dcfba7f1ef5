"""What an exception inside the model means: a request's own fault, nobody's where memory ran out, or the device's end.

Used by `service.worker.engine`, which finds out whose fault it was where several were at work.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from model.errors import DeviceLostError
from model.gpu.cuda import is_lost

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is kept of an exception, whose frames hold memory."""

    reason: str
    """What the client reads of it: its type, never its text, which may quote the request."""
    exhausted: bool
    """Whether the device's memory ran out: a smaller batch may do what this one could not."""


def fault_of(error: Exception, device: torch.device) -> Fault:
    """What happened; `DeviceLostError` where it is no request's: nothing of this process will succeed any more."""
    exhausted = isinstance(error, torch.OutOfMemoryError)
    if not exhausted and is_lost(device):
        raise DeviceLostError("the device does not answer any more") from error
    return Fault(f"The request failed inside the model ({type(error).__name__}).", exhausted)


def twice(work: Callable[[], Result]) -> Result:
    """What it gives, the second time if memory ran out in the first: with what torch keeps for later given back.

    For what is done for one request alone, and takes so little that a smaller batch would be no help.
    """
    try:
        return work()
    except torch.OutOfMemoryError:
        pass  # and not here, where the error's frames hold the memory
    torch.cuda.empty_cache()
    return work()

"""What an exception inside the model means: a request's own fault, nobody's where memory ran out, or the device's end.

Used by `service.worker.engine`, which finds out whose fault it was where several were at work.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from model.errors import DeviceLostError
from model.gpu.cuda import is_lost
from service import logs
from service.wire.messages import Failed

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is kept of an exception, whose frames hold memory."""

    exception: str
    """Its type, and never its text, which may quote the request."""
    where: str
    """The places in our packages that it passed."""
    exhausted: bool
    """Whether the device's memory ran out: a smaller batch may do what this one could not."""


def fault_of(error: Exception, device: torch.device) -> Fault:
    """What happened; `DeviceLostError` where it is no request's: nothing of this process will succeed any more."""
    exhausted = isinstance(error, torch.OutOfMemoryError)
    if not exhausted and is_lost(device):
        raise DeviceLostError("the device does not answer any more") from error
    return Fault(type(error).__name__, logs.places(error.__traceback__), exhausted)


def failed(request_id: str, fault: Fault) -> Failed:
    """The end of a request whose own fault it was: its client reads the type, the log says where as well."""
    logs.event(
        "internal_error", level=logging.ERROR, request_id=request_id.rpartition(".")[0], stage="inference",
        exception=fault.exception, where=fault.where,
    )  # fmt: skip
    return Failed(request_id, "internal_error", f"The request failed inside the model ({fault.exception}).")


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

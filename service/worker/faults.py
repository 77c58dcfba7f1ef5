"""What an exception inside the model means: a request's own fault, nobody's where memory ran out, or the device's end.

Used by `service.worker.engine`, which finds out whose fault it was where several were at work.
"""

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from model.errors import DeviceLostError
from model.gpu.cuda import is_lost
from service import logs
from service.wire.messages import Failed

Result = TypeVar("Result")
_NO_MEMORY = ("can't allocate memory", "bad_alloc", "could not create a primitive", "out of memory", "ALLOC_FAILED")
"""What torch on a CPU, C++ and oneDNN say, then CUDA's driver and its libraries. oneDNN says it of other reasons too,
which the warm-up would have met."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is kept of an exception, whose frames hold memory."""

    exception: str
    """Its type, and never its text, which may quote the request."""
    where: str
    """The places in our packages that it passed."""
    exhausted: bool
    """Whether memory ran out: a smaller batch may do what this one could not."""


def fault_of(error: Exception, device: torch.device) -> Fault:
    """What happened; `DeviceLostError` where it is no request's: nothing of this process will succeed any more."""
    exhausted = is_exhausted(error)
    if not exhausted and is_lost(device):
        raise DeviceLostError("the device does not answer any more") from error
    return Fault(type(error).__name__, logs.places(error.__traceback__), exhausted)


def is_exhausted(error: Exception) -> bool:
    """Whether it says that memory ran out, the device's or the machine's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def failed(request_id: str, fault: Fault) -> Failed:
    """The end of a request whose own fault it was, or for which there is no memory even alone.

    Its client reads the type, the log says where as well.
    """
    event, reason = ("out_of_resources", os.strerror(errno.ENOMEM)) if fault.exhausted else ("internal_error", None)
    logs.event(
        event, level=logging.ERROR, request_id=request_id.rpartition(".")[0], stage="inference",
        exception=fault.exception, where=fault.where, reason=reason,
    )  # fmt: skip
    if fault.exhausted:
        return Failed(request_id, "no_memory", "The server is out of memory for the request.")
    return Failed(request_id, "internal_error", f"The request failed inside the model ({fault.exception}).")


def twice(work: Callable[[], Result]) -> Result:
    """What it gives, the second time if memory ran out in the first: with what torch keeps for later given back.

    For what is done for one request alone, and takes so little that a smaller batch would be no help.
    """
    try:
        return work()
    except Exception as error:
        if not is_exhausted(error):
            raise
    torch.cuda.empty_cache()  # and not above, where the error's frames hold the memory
    return work()

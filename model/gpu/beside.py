"""Work that goes on beside the decode steps: the seam through which a GPU encodes while it decodes.

Used by `service.worker.intake`. `Inline` does the work at once, as a CPU must. `SideStream` launches it on a stream of
its own, so that a decode step need not wait for an encoder pass, and an event says when it is done. **Never run on a
GPU so far.**

- The work begins after everything that was launched before it: the slots that it fills are read by nobody any more. A
  captured step reads them all the same where they lie below others that are in use; what it makes of them no row asks.
- What the work allocates and frees, it uses on its own stream only. What it leaves behind lies in memory that is never
  freed (`model.network.cache`), and what it reads of a request (`MaximumSearch.found`) the caller keeps until it has
  joined. So no tensor needs to be recorded for a second stream.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

Result = TypeVar("Result")


class Ticket(Protocol):
    """Work that was begun."""

    @property
    def done(self) -> bool:
        """Whether it is finished; nobody waits for the answer."""
        ...

    def join(self) -> None:
        """What is launched from now on finds it finished."""
        ...


class Beside(Protocol):
    """Where such work is done."""

    def run(self, work: Callable[[], Result]) -> tuple[Result, Ticket]:
        """Begin it; what it returns, and the ticket. Raises what it raises."""
        ...


class Inline:
    """At once, and everybody waits; its own ticket."""

    done = True

    def run(self, work: Callable[[], Result]) -> tuple[Result, Ticket]:
        """See `Beside`."""
        return work(), self

    def join(self) -> None:
        """See `Ticket`."""


class SideStream:
    """On a second stream of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def run(self, work: Callable[[], Result]) -> tuple[Result, Ticket]:
        """See `Beside`."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        try:
            with torch.cuda.stream(self._stream):
                result = work()
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(self._stream)
        except BaseException:
            # What was launched before it raised still reads what the caller is about to free.
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
            raise
        return result, _Recorded(event, self._device)


class _Recorded:
    def __init__(self, event: torch.cuda.Event, device: torch.device) -> None:
        self._event, self._device = event, device

    @property
    def done(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def join(self) -> None:
        torch.cuda.current_stream(self._device).wait_event(self._event)

"""How many windows may share a device: half as many once its memory was used up, slowly more again. Pure.

Used by `service.worker.recovery`. What a window takes is allocated at the start; what can run out is the memory of a
step or an encoder pass, on a card that somebody else uses too.
"""


class Room:
    """A limit on windows that learns from failures."""

    def __init__(self, max_windows: int, *, steps_to_grow: int = 256) -> None:
        """`steps_to_grow`: steps that must succeed before one window more is tried."""
        self._max_windows, self._steps_to_grow = max_windows, steps_to_grow
        self._steps = 0
        self.windows = max_windows
        """Windows that may be in the batch at once, at least 1."""
        self.shrinks = 0
        """How often memory ran out."""

    def shrink(self, windows: int) -> None:
        """Memory ran out with so many windows in the batch."""
        self.windows = max(1, min(self.windows, windows // 2))
        self.shrinks += 1
        self._steps = 0

    def stepped(self) -> None:
        """A step of the batch went well."""
        if self.windows < self._max_windows:
            self._steps += 1
            if self._steps == self._steps_to_grow:
                self.windows += 1
                self._steps = 0

"""When windows were worked on: notes of `service.worker.engine`, by slot of the batch, for the trace of a request.

The engine has no clock; it is told the time once a turn. So a window counts as encoded at the turn after the one that
took it up, and times are true to about a decode step.
"""

from dataclasses import dataclass

from service.wire.messages import WindowTimes

MAX_WINDOWS = 100
"""Windows of a request whose times are kept."""


@dataclass(slots=True)
class _Slot:
    taken: float
    encoded: float | None = None
    steps: int = 0
    begun: bool = False


class SlotTimes:
    """The windows that are in the batch now."""

    def __init__(self) -> None:
        self._slots: dict[int, _Slot] = {}

    def take(self, slot: int, now: float) -> None:
        """A window enters the slot."""
        self._slots[slot] = _Slot(now)

    def begin(self, slot: int) -> None:
        """It is encoded, and makes its first step in this turn."""
        self._slots[slot].begun, self._slots[slot].steps = True, 1

    def turn(self, now: float) -> None:
        """A turn begins, in which every window that has begun makes a step."""
        for slot in (slot for slot in self._slots.values() if slot.begun):
            slot.encoded = now if slot.encoded is None else slot.encoded
            slot.steps += 1

    def leave(self, slot: int, now: float) -> WindowTimes | None:
        """A window left the slot; None where there was none."""
        times = self._slots.pop(slot, None)
        if times is None:
            return None
        return WindowTimes(times.taken, now if times.encoded is None else times.encoded, now, times.steps)

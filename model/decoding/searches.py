"""Which windows may be searched again now, and which wait for it (`model.guards.doubt.needs_search`).

Used by `model.decoding.batch`. Beams take several rows, and a window is let in as if it took one: so a few windows at a
time have row slots for them besides those of the batch, and the others wait in line, without a row, until one of those
is done. A step stays short for everybody else, however many texts are unsure, and what a window says does not depend on
how long it waited.
"""

from collections import deque

from model.decoding.inference import Inference
from model.decoding.ladder import SEARCH
from model.decoding.row import Decoding
from model.decoding.rows import Rows


class Searches:
    """First come, first served."""

    def __init__(self, rows: Rows, inference: Inference, *, most: int) -> None:
        """`most`: windows that may be searched at once."""
        self._rows, self._inference, self._most = rows, inference, most
        self._active: set[Decoding] = set()
        self._line: deque[Decoding] = deque()

    @property
    def waiting(self) -> int:
        """Windows in the line."""
        return len(self._line)

    def admits(self, decoding: Decoding) -> bool:
        """Whether a window may be searched at once; else it gives up its rows, and `next` will give it one again."""
        if len(self._active) < self._most and not self._line:
            self._active.add(decoding)
            return True
        self._rows.keep(decoding, 0)
        self._line.append(decoding)
        return False

    def next(self) -> Decoding | None:
        """A window whose turn has come, in a row that has read all before the search; None where it is nobody's."""
        if not self._line or len(self._active) >= self._most:
            return None
        decoding = self._line.popleft()
        self._active.add(decoding)
        self._rows.add(decoding)
        (row,) = decoding.rows
        self._inference.clear_row(row.index)
        text = decoding.read_before(SEARCH)
        self._inference.prefill(text, row=row.index, window=decoding.slot, keep=[len(text) - 1])
        return decoding

    def leave(self, decoding: Decoding) -> None:
        """A window is not searched any more, nor does it wait, if it ever did."""
        self._active.discard(decoding)
        if decoding in self._line:
            self._line.remove(decoding)

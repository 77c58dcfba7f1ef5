"""Fixed shapes for a decode step, so that it can be captured once and replayed: buckets and places. Pure.

Used by `model.graphs`. A step of any number of rows is padded to the next of a few sizes. Its cross-attention goes over
the window slots 0 .. `windows` - 1 as they lie in memory, each with `width` places for the queries of its rows: queries
are sent to their window and answers fetched from it, so that no key or value of the audio is ever copied, and rows of
one window read it once. Slots that nobody asks anything are read all the same, so callers hand out the lowest first.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
_SIZE_STEP = 32
"""Beyond the largest of them: its multiples."""


def bucket(count: int, most: int) -> int:
    """The size, at most `most`, to which so many are padded; ValueError unless 1 <= count <= most."""
    if not 1 <= count <= most:
        raise ValueError(f"{count} is not between 1 and {most}")
    fitting = (size for size in _SIZES if size >= count)
    return min(next(fitting, -(-count // _SIZE_STEP) * _SIZE_STEP), most)


@dataclass(frozen=True, slots=True)
class StepShape:
    """All sizes of a padded step. Steps of equal shape differ in the content of their inputs only."""

    rows: int
    """Rows, padding included."""
    windows: int
    """Window slots that are read: 0 .. windows - 1."""
    width: int
    """Rows that one window may have."""

    @classmethod
    def of(cls, windows: Sequence[int], *, max_windows: int, max_rows: int) -> "StepShape":
        """The shape for rows that hear these window slots.

        Where every window has one row, as without beams, one size serves for both, so that there are few shapes.
        """
        width = bucket(max(Counter(windows).values()), max_rows)
        n_windows = bucket(max(windows) + 1, max_windows)
        rows = min(n_windows, max_rows) if width == 1 else bucket(len(windows), max_rows)
        return cls(rows, n_windows, width)

    @property
    def n_places(self) -> int:
        """Places for queries; the number itself stands for no place, where padding belongs."""
        return self.windows * self.width

    def places(self, windows: Sequence[int]) -> list[int]:
        """The place of each row's query, all different: those of window w begin at w * width."""
        taken: Counter[int] = Counter()
        places = []
        for window in windows:
            places.append(window * self.width + taken[window])
            taken[window] += 1
        return places

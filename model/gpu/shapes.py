"""Fixed shapes for a decode step, so that it can be captured once and replayed: buckets and places. Pure.

Used by `model.gpu.graphs`. A step of any number of rows is padded to the next of a few sizes. Its cross-attention goes
over the window slots 0 .. `windows` - 1 as they lie in memory, each with `width` places for the queries of its rows:
queries are sent to their window and answers fetched from it, so that no key or value of the audio is ever copied, and
rows of one window read it once. Slots that nobody asks anything are read all the same, so callers hand out the lowest
first.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
"""To which a number of rows, or of windows, is padded."""
_SIZE_STEP = 32
"""Beyond the largest of them: its multiples."""


def bucket(count: int, most: int) -> int:
    """The size, at most `most`, to which so many are padded; ValueError unless 1 <= count <= most."""
    if not 1 <= count <= most:
        raise ValueError(f"{count} is not between 1 and {most}")
    fitting = (size for size in _SIZES if size >= count)
    return min(next(fitting, -(-count // _SIZE_STEP) * _SIZE_STEP), most)


def sizes(most: int) -> list[int]:
    """Every size that `bucket` can give for up to so many."""
    return sorted({bucket(count, most) for count in range(1, most + 1)})


class Shape(Protocol):
    """All sizes of a padded step, and who asks which window."""

    @property
    def rows(self) -> int:
        """Rows, padding included."""
        ...

    def table(self, windows: Sequence[int], filled: Sequence[int]) -> list[int]:
        """What the step must know of its windows, in an order and of a length that only the shape tells.

        `windows`: the slot that each row hears; `filled`: how many positions each slot holds.
        """
        ...


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

    def table(self, windows: Sequence[int], filled: Sequence[int]) -> list[int]:  # noqa: ARG002  all are whole
        """The place of every row, padding included; see `Shape`."""
        return [*self.places(windows), *[self.n_places] * (self.rows - len(windows))]


@dataclass(frozen=True, slots=True)
class AskedShape:
    """All sizes of a padded step whose windows are listed."""

    rows: int
    """Rows, padding included."""
    groups: int
    """Windows that are asked, padding included."""
    width: int
    """Rows that one window may have."""

    @classmethod
    def of(cls, windows: Sequence[int], *, max_windows: int, max_rows: int) -> "AskedShape":
        """The shape for rows that hear these window slots; without beams one size serves for both."""
        width = bucket(max(Counter(windows).values()), max_rows)
        rows = bucket(len(windows), max_rows)
        groups = min(rows, max_windows) if width == 1 else bucket(len(set(windows)), max_windows)
        return cls(rows, groups, width)

    def table(self, windows: Sequence[int], filled: Sequence[int]) -> list[int]:
        """Slot and length of each group, its rows, and where each row stands among them; -1 is nobody. See `Shape`."""
        if self.width == 1:  # nobody shares a window, as in most steps: rows are groups, and none need be sought
            own, nobody = range(len(windows)), [-1] * (self.groups - len(windows))
            lengths = [*(filled[window] for window in windows), *[0] * len(nobody)]
            return [*windows, *nobody, *lengths, *own, *nobody, *own, *[-1] * (self.rows - len(windows))]
        groups: dict[int, list[int]] = {}
        firsts: dict[int, int] = {}
        places = []
        for row, window in enumerate(windows):
            members = groups.setdefault(window, [])
            places.append(firsts.setdefault(window, len(firsts) * self.width) + len(members))
            members.append(row)
        padding = self.groups - len(groups)
        slots = [*groups, *[-1] * padding]
        lengths = [*(filled[window] for window in groups), *[0] * padding]
        rows = [row for members in groups.values() for row in [*members, *[-1] * (self.width - len(members))]]
        rows += [-1] * (padding * self.width)
        return [*slots, *lengths, *rows, *places, *[-1] * (self.rows - len(windows))]

"""The rows of the batch, dense from 0 on, so that a step is told how many there are and not which.

Used by `model.decoding.batch`. Where one leaves, the last one moves into its place, and its memory with it.
"""

from model.decoding.choice import Choice
from model.decoding.inference import Inference
from model.decoding.row import Decoding, Row


class Rows:
    """Which row has which place."""

    def __init__(self, inference: Inference, choice: Choice) -> None:
        self._inference, self._choice = inference, choice
        self.all: list[Row] = []

    def __len__(self) -> int:
        return len(self.all)

    def add(self, decoding: Decoding, count: int = 1) -> None:
        """Give a window so many rows more."""
        for _ in range(count):
            row = Row(decoding, len(self.all))
            self.all.append(row)
            decoding.rows.append(row)

    def add_shadow(self, shadow: Row) -> None:
        """Take in a window's shadow, made for the next place."""
        self.all.append(shadow)

    def keep(self, decoding: Decoding, count: int) -> None:
        """Take all but a window's first rows from it, and with the last one its shadow."""
        for row in decoding.rows[count:]:
            self.remove(row)
        if not count and decoding.shadow is not None:
            self.remove(decoding.shadow)

    def remove(self, row: Row) -> None:
        """Take a row out and move the last one into its place."""
        if row.is_shadow:
            row.decoding.shadow = None
        else:
            row.decoding.rows.remove(row)
        self._choice.leave(row)
        last = self.all.pop()
        if last is not row:
            self._inference.replace_rows(last.index, [row.index], max(last.length, last.decoding.n_prompt))
            self.all[row.index] = last
            last.index = row.index

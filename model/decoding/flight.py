"""What a device has chosen and the host has not read yet, in the order of the steps.

Used by `model.decoding.device_choice`. A row that leaves meanwhile is struck out: what it said there is nobody's.
"""

from collections.abc import Sequence

from torch import Tensor

from model.decoding.row import Decoding, Row
from model.transfer import Fetched


class Tokens:
    """The tokens of rows without beams."""

    def __init__(self, rows: Sequence[Row], chosen: Tensor) -> None:
        """`chosen`: (2, rows), as `model.search.selection` gives it."""
        self._rows: list[Row | None] = list(rows)
        self._chosen = Fetched(chosen)
        for row in rows:
            row.in_flight += 1

    def land(self) -> None:
        """Read them; every row that is still there says its own."""
        tokens, logprobs = self._chosen.read().tolist()
        for row, token, logprob in zip(self._rows, tokens, logprobs, strict=True):
            if row is not None:
                row.in_flight -= 1
                row.push(int(token), logprob)

    def strike(self, row: Row) -> None:
        """A row has left."""
        self._rows = [None if flown is row else flown for flown in self._rows]


class Candidates:
    """What the beams of some windows might say next, all of one width."""

    def __init__(self, decodings: Sequence[Decoding], candidates: Tensor) -> None:
        """`candidates`: (2, rows, width + 1), as `model.search.beam_selection` gives it, window after window."""
        self._decodings: list[Decoding | None] = list(decodings)
        self._candidates = Fetched(candidates)
        for decoding in decodings:
            for row in decoding.rows:
                row.in_flight += 1

    def land(self) -> None:
        """Read them; the beams of every window that is still there go on."""
        tokens, sums = self._candidates.read()
        width = len(tokens) // len(self._decodings)
        for number, decoding in enumerate(self._decodings):
            if decoding is None or decoding.beams is None:
                continue
            own = slice(number * width, (number + 1) * width)
            for row in decoding.rows:
                row.in_flight -= 1
            texts = [row.tokens for row in decoding.rows]
            decoding.adopt(decoding.beams.extend(texts, tokens[own].long().tolist(), sums[own].tolist()))

    def strike(self, row: Row) -> None:
        """A row has left, and with it all beams of its window."""
        self._decodings = [None if flown is row.decoding else flown for flown in self._decodings]


class Flight:
    """All that one step has chosen."""

    def __init__(self, parts: Sequence[Tokens | Candidates]) -> None:
        self._parts = parts

    def land(self) -> None:
        """Read it; the host waits for this step, and for no later one."""
        for part in self._parts:
            part.land()

    def strike(self, row: Row) -> None:
        """A row has left."""
        for part in self._parts:
            part.strike(row)

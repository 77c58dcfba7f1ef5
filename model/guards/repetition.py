"""Text that says the same again, where nobody did. Pure.

Gets the tokens of a window that the model itself doubts from `model.guards.doubt`, and gives them back without what is
repeated: `cut_loop` ends a text that goes round and round after its first round, `cut_repeats` leaves out phrases that
the window has said before. Timestamps do not count for what is the same, and stay but for those of a segment of which
nothing is left.
"""

from collections.abc import Sequence

from model.guards.cuts import leave_out, place_of
from model.window import Place

_ROUNDS = 3
"""So often a text says the same before it counts as a loop."""
_LEAST_LOOP = 12
"""Tokens that a loop has at least: "no, no, no" is none."""
PHRASE = 7
"""Tokens from which on the same again is a repeated phrase (benchmarks/LOG.md)."""


def cut_loop(tokens: Sequence[int], timestamp_begin: int) -> tuple[int, ...] | None:
    """The tokens up to the end of the first round of the loop in which they end, or None where they end in none.

    The next timestamp after the cut is kept: it ends the segment.
    """
    places = [i for i, token in enumerate(tokens) if token < timestamp_begin]
    text = [tokens[i] for i in places]
    best: int | None = None
    for period in range(1, len(text) // _ROUNDS + 1):
        start = len(text) - period
        while start > 0 and text[start - 1] == text[start - 1 + period]:
            start -= 1
        if len(text) - start >= max(_ROUNDS * period, _LEAST_LOOP):
            end = start + period
            best = end if best is None else min(best, end)
    if best is None:
        return None
    stop = places[best - 1] + 1
    after = next((token for token in tokens[stop:] if token >= timestamp_begin), None)
    return (*tokens[:stop], *(() if after is None else (after,)))


def cut_repeats(tokens: Sequence[int], timestamp_begin: int) -> tuple[tuple[int, ...], tuple[Place, ...]]:
    """The tokens without the phrases that stand earlier in what is kept, and where those stood."""
    texts = [i for i, token in enumerate(tokens) if token < timestamp_begin]
    said: list[int] = []
    cut: set[int] = set()
    places: list[Place] = []
    while texts:
        length = _repeated([tokens[i] for i in texts], said)
        if length < PHRASE:
            said.append(tokens[texts.pop(0)])
            continue
        phrase, texts = texts[:length], texts[length:]
        cut.update(phrase)
        places.append(place_of(tokens, phrase[0], phrase[-1], timestamp_begin))
    return leave_out(tokens, cut, timestamp_begin), tuple(places)


def _repeated(text: Sequence[int], said: Sequence[int]) -> int:
    """How many tokens `text` begins with that stand in `said`, in one piece."""
    return max((_common(text, said[start:]) for start in range(len(said))), default=0)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    length = min(len(one), len(other))
    return next((i for i in range(length) if one[i] != other[i]), length)

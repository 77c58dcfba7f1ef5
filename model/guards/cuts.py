"""Words taken out of a window's text, and where in the recording they stood. Pure.

Gets positions of tokens from who doubts them (`model.guards.repetition`, `model.guards.consensus`), and gives the
tokens without them and the timestamps around each gap, from which `model.guards.doubt` says what was left out.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise

from model.window import Place


def leave_out(tokens: Sequence[int], cut: Collection[int], timestamp_begin: int) -> tuple[int, ...]:
    """The tokens without those at the positions `cut`, and without timestamps around which nothing is left."""
    gone = set(cut)
    times = [i for i, token in enumerate(tokens) if token >= timestamp_begin]
    for first, last in pairwise([*times, len(tokens)]):
        if first + 1 < last and gone.issuperset(range(first + 1, last)):
            gone |= {first, last}
    return tuple(token for i, token in enumerate(tokens) if i not in gone)


def place_of(tokens: Sequence[int], first: int, last: int, timestamp_begin: int) -> Place:
    """The timestamps around the text from position `first` to `last`."""
    before = [token for token in tokens[:first] if token >= timestamp_begin]
    after = [token for token in tokens[last:] if token >= timestamp_begin]
    return before[-1] if before else timestamp_begin, after[0] if after else None

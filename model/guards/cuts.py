"""Words taken out of a window's text, and where in the recording they stood. Pure.

Gets positions of tokens from who doubts them (`model.guards.repetition`, `model.guards.consensus`), and gives the
tokens without them and the timestamps around each gap, from which `model.guards.doubt` says what was left out.

A cut never makes a window go on further than the whole text did: what that leaves unfinished is heard again.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise

from model.window import Place, finished_tokens


def leave_out(tokens: Sequence[int], cut: Collection[int], timestamp_begin: int) -> tuple[int, ...]:
    """The tokens without those at the positions `cut`, and without timestamps around which nothing is left.

    An unfinished rest behind the last pair of timestamps becomes no text and stays as it is, with the pair: the next
    window begins there, or where the text before it ends now.
    """
    end = len(finished_tokens(tokens, timestamp_begin))
    gone = {i for i in cut if i < end}
    times = [i for i in range(end) if tokens[i] >= timestamp_begin]
    for first, last in pairwise([*times, end]):
        if first + 1 < last and gone.issuperset(range(first + 1, last)):
            gone |= {first, last}
    if end < len(tokens) and gone.issuperset(range(end)):
        gone.remove(end - 1)
    return tuple(token for i, token in enumerate(tokens) if i not in gone)


def place_of(tokens: Sequence[int], first: int, last: int, timestamp_begin: int) -> Place:
    """The timestamps around the text from position `first` to `last`."""
    before = [token for token in tokens[:first] if token >= timestamp_begin]
    after = [token for token in tokens[last:] if token >= timestamp_begin]
    return before[-1] if before else timestamp_begin, after[0] if after else None

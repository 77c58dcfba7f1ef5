"""Text that says the same again, where nobody did. Pure.

Gets the tokens of a window that the model itself doubts from `model.guards.doubt`, and gives them back without what is
repeated: `cut_loop` ends a text that goes round and round after its first round, `cut_repeats` leaves out phrases that
the window has said before. Timestamps do not count for what is the same, and stay but for those of a segment of which
nothing is left.

People say the same again too. Once a text repeats itself every token of it is probable; what tells the two apart is the
first time: of a sentence that was heard the model was sure then, of one that was made up it was not
(benchmarks/LOG.md). So both take the log-probability of every token, where it is known, and leave what was sure. A
sentence that was heard once may be a loop all the same: `comes_back` tells by where the decoder looked.
"""

from collections.abc import Collection, Iterator, Sequence
from statistics import median

from model.guards.cuts import leave_out, place_of
from model.window import SURE_LOGPROB, Place, finished_tokens

_ROUNDS = 3
"""So often a text says the same before it counts as a loop."""
_LEAST_LOOP = 12
"""Tokens that a loop has at least: "no, no, no" is none."""
PHRASE = 7
"""Tokens from which on the same again is a repeated phrase (benchmarks/LOG.md)."""
_LATER_SECONDS = 0.5
"""So much later, at least, lies what is heard a second time (benchmarks/LOG.md)."""


def cut_loop(
    tokens: Sequence[int],
    timestamp_begin: int,
    logprobs: Sequence[float] = (),
    inner: Collection[int] = (),
) -> tuple[int, ...] | None:
    """The tokens up to the end of the first round of the loop in which they end, or None where they end in none.

    Nor where `logprobs`, of each token, say that the model was sure of the first round. `inner`: positions of tokens
    that go on with the word before them; the word in which the round ends stays whole. The next timestamp after the cut
    is kept: it ends the segment.
    """
    places, best = _loop(tokens, timestamp_begin)
    if best is None or _is_sure(places[slice(*best)], logprobs):
        return None
    start, end = best
    whole = (i for i in range(end, 2 * end - start) if places[i] not in inner)  # a loop may be a part of one word
    stop = places[next(whole, end) - 1] + 1
    after = next((token for token in tokens[stop:] if token >= timestamp_begin), None)
    return (*tokens[:stop], *(() if after is None else (after,)))


def cut_repeats(
    tokens: Sequence[int],
    timestamp_begin: int,
    logprobs: Sequence[float] = (),
    inner: Collection[int] = (),
) -> tuple[tuple[int, ...], tuple[Place, ...]]:
    """The tokens without the phrases that stand earlier in what is kept, and where those stood.

    Those stay that the model was sure of the first time, by the `logprobs` of each token. A phrase is of whole words:
    `inner` as in `cut_loop`. An unfinished rest is heard again in any case, and stays.
    """
    cut: set[int] = set()
    places: list[Place] = []
    for said, phrase in _phrases(tokens, timestamp_begin, inner):
        if not _is_sure(said, logprobs):
            cut.update(phrase)
            places.append(place_of(tokens, phrase[0], phrase[-1], timestamp_begin))
    return leave_out(tokens, cut, timestamp_begin), tuple(places)


def comes_back(
    tokens: Sequence[int], timestamp_begin: int, seconds: Sequence[float], inner: Collection[int] = ()
) -> bool:
    """Whether something is said again of the same moment of the audio, or of one before: a loop, whatever is sure.

    `seconds`: where in the audio the decoder looked when it wrote each token of text. `inner` as in `cut_loop`.
    """
    text = (i for i, token in enumerate(tokens) if token < timestamp_begin)
    heard = dict(zip(text, seconds, strict=True))
    places, loop = _loop(tokens, timestamp_begin)
    pairs = list(_phrases(tokens, timestamp_begin, inner))
    if loop is not None:
        start, end = loop
        pairs.append((places[start:end], places[end : 2 * end - start]))
    return any(
        median(heard[i] for i in again) < median(heard[i] for i in said) + _LATER_SECONDS for said, again in pairs
    )


def _loop(tokens: Sequence[int], timestamp_begin: int) -> tuple[list[int], tuple[int, int] | None]:
    """Positions of the text, and which of them are the first round of the loop in which it ends, if it does."""
    places = [i for i, token in enumerate(tokens) if token < timestamp_begin]
    text = [tokens[i] for i in places]
    best: tuple[int, int] | None = None
    for period in range(1, len(text) // _ROUNDS + 1):
        start = len(text) - period
        while start > 0 and text[start - 1] == text[start - 1 + period]:
            start -= 1
        if len(text) - start >= max(_ROUNDS * period, _LEAST_LOOP) and (best is None or start + period < best[1]):
            best = start, start + period
    return places, best


def _phrases(
    tokens: Sequence[int], timestamp_begin: int, inner: Collection[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Positions of what is said for the first time, and of the phrase that says it again; in order of the phrases."""
    texts = [i for i, token in enumerate(finished_tokens(tokens, timestamp_begin)) if token < timestamp_begin]
    first: list[int] = []
    """Positions of what is said for the first time."""
    while texts:
        start, length = _repeated([tokens[i] for i in texts], [tokens[i] for i in first])
        while length < len(texts) and length > 0 and texts[length] in inner:
            length -= 1
        if length < PHRASE or texts[0] in inner:
            first.append(texts.pop(0))
            continue
        yield first[start : start + length], texts[:length]
        texts = texts[length:]


def _is_sure(positions: Sequence[int], logprobs: Sequence[float]) -> bool:
    """Whether the tokens at these positions were as probable as those of a text that nobody doubts."""
    return bool(logprobs) and sum(logprobs[i] for i in positions) >= SURE_LOGPROB * len(positions)


def _repeated(text: Sequence[int], said: Sequence[int]) -> tuple[int, int]:
    """Where in `said` the most tokens stand in one piece that `text` begins with, and how many they are."""
    lengths = {start: _common(text, said[start:]) for start, token in enumerate(said) if token == text[0]}
    start = max(lengths, key=lambda start: lengths[start], default=0)
    return start, lengths.get(start, 0)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    length = min(len(one), len(other))
    return next((i for i in range(length) if one[i] != other[i]), length)

"""What several attempts at a window have in common: the one that the others agree with, less what they leave out. Pure.

Gets the attempts of a doubtful window from `model.guards.doubt`. Laid beside a text in the way that needs least
changes, each attempt confirms a word, has another one in its place, or has none there. `most_agreed` is the text from
which the others are least far. What is heard comes again in some form; of what is made up the attempts have more or
less. So a word stays unless enough of the others have nothing in its place (`without_unconfirmed`). Every word is one
of a whole text that was decoded; wrong ones are not put right one by one, and nothing is added.

Source: the null votes of J. Fiscus, "A post-processing system to yield reduced word error rates: ROVER" (1997).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from model.guards.cuts import leave_out, place_of
from model.tokenizer import Tokenizer, is_spaceless
from model.window import DecodingResult, Place, finished_tokens

_Table = NDArray[np.int64]
_UNIT = 1 << 20
"""What it costs that a word has nothing in its place; whole numbers, so that equal ways to align are equal."""
_LEAST_SHARE, _CERTAIN_SHARE = 0.15, 0.3
"""Share of the witnesses that must miss a word of probability 0, and what is added to it up to one of 1."""


@dataclass(frozen=True, slots=True)
class _Word:
    key: str
    """Letters and digits alone, case folded: what is compared."""
    positions: tuple[int, ...]
    """Of its tokens among those of the window, with the marks beside it."""


class Consensus:
    """Attempts at one window beside one another: each is parted into words once, each two are compared once."""

    def __init__(self, attempts: Sequence[DecodingResult], tokenizer: Tokenizer) -> None:
        self._attempts, self._begin = attempts, tokenizer.timestamp_begin
        self._words = [_words(one, tokenizer) for one in attempts]
        self._keys = [[word.key for word in words] for words in self._words]
        numbers = {key: number for number, key in enumerate(sorted({key for keys in self._keys for key in keys}))}
        self._numbers = [np.array([numbers[key] for key in keys], np.intp) for keys in self._keys]
        self._costs = _costs(list(numbers))
        self._tables: dict[tuple[int, int], _Table] = {}

    def most_agreed(self) -> int:
        """Which attempt takes the fewest changes to become the others: the first of those that do.

        Source: S. Kumar and W. Byrne, "Minimum Bayes-Risk Decoding for Statistical Machine Translation" (2004).
        """
        changes = [0] * len(self._keys)
        for one, other in combinations(range(len(self._keys)), 2):
            between = int(self._table(one, other)[-1, -1])
            changes[one] += between
            changes[other] += between
        return changes.index(min(changes))

    def confirmed(self, number: int) -> int:
        """How many words of an attempt most of the others have too, somewhere."""
        heard = [set(self._keys[other]) for other in self._others(number)]
        return sum(2 * sum(word in keys for keys in heard) > len(heard) for word in self._keys[number] if word)

    def without_unconfirmed(self, number: int) -> tuple[tuple[int, ...], tuple[Place, ...]]:
        """The tokens of an attempt without the words that too many of the others leave out, and where those stood.

        The less probable a word is, the fewer are needed: more than 0.15 of them, or 0.45 for one that is certain. An
        unfinished rest stays: it becomes no text, and is heard again.
        """
        attempt, words, others = self._attempts[number], self._words[number], self._others(number)
        end = len(finished_tokens(attempt.tokens, self._begin))
        missing = Counter(position for other in others for position in self.left_out(number, other))
        unconfirmed = [
            word
            for position, word in enumerate(words)
            if word.positions[0] < end
            and missing[position] > (_LEAST_SHARE + _CERTAIN_SHARE * _probability(word, attempt)) * len(others)
        ]
        places = {place_of(attempt.tokens, *_ends(word), self._begin): None for word in unconfirmed}
        cut = [position for word in unconfirmed for position in word.positions]
        return leave_out(attempt.tokens, cut, self._begin), tuple(places)

    def left_out(self, number: int, other: int) -> list[int]:
        """Which words of an attempt have nothing in their place in another, by a cheapest alignment; in order.

        Words that look alike are rather in each other's place than others: a replacement costs between a half and one.
        """
        table, costs = self._table(number, other), self._between(number, other)
        i, j = costs.shape
        gone = []
        while i > 0:
            if j > 0 and table[i, j] == table[i - 1, j - 1] + costs[i - 1, j - 1]:
                i, j = i - 1, j - 1
            elif j > 0 and table[i, j] == table[i, j - 1] + _UNIT:
                j -= 1
            else:
                i -= 1
                gone.append(i)
        return gone[::-1]

    def _others(self, number: int) -> list[int]:
        return [other for other in range(len(self._attempts)) if other != number]

    def _between(self, one: int, other: int) -> _Table:
        """What it costs to have each word of another attempt in the place of each word of one: (words, words)."""
        return self._costs[np.ix_(self._numbers[one], self._numbers[other])]

    def _table(self, one: int, other: int) -> _Table:
        """Cost of the cheapest changes that make the first i words of one the first j of the other, at [i, j]."""
        if (one, other) not in self._tables:
            table = _changes(self._between(one, other))
            self._tables[one, other], self._tables[other, one] = table, table.T
        return self._tables[one, other]


def is_same_text(one: DecodingResult, other: DecodingResult, tokenizer: Tokenizer) -> bool:
    """Whether two results have the same words, whatever their marks and times."""
    first, second = ([word.key for word in _words(result, tokenizer)] for result in (one, other))
    return first == second


def _probability(word: _Word, result: DecodingResult) -> float:
    """Mean of a word's tokens, or of the whole text where those are not known."""
    if not result.logprobs:
        return math.exp(result.avg_logprob)
    return math.exp(sum(result.logprobs[i] for i in word.positions) / len(word.positions))


def _ends(word: _Word) -> tuple[int, int]:
    return word.positions[0], word.positions[-1]


def _changes(costs: _Table) -> _Table:
    """See `Consensus._table`; `costs`: of replacements, (i, j)."""
    n, m = costs.shape
    along = _UNIT * np.arange(m + 1)
    table = np.empty((n + 1, m + 1), np.int64)
    table[0] = along
    for i, replaced in enumerate(costs):
        line = np.append(_UNIT * (i + 1), np.minimum(table[i, :-1] + replaced, table[i, 1:] + _UNIT))
        table[i + 1] = (
            np.minimum.accumulate(line - along) + along
        )  # then words are put in, from wherever it is cheapest
    return table


def _costs(words: Sequence[str]) -> _Table:
    """What it costs to have one of these words in another's place: 0 for itself, 1 if they share no pair of letters."""
    pairs = [set(pairwise(f" {word} ")) for word in words]
    numbers = {pair: number for number, pair in enumerate(sorted(set().union(*pairs)))}
    has = np.zeros((len(words), len(numbers)), np.float32)
    for row, own in zip(has, pairs, strict=True):
        row[[numbers[pair] for pair in own]] = 1.0
    sizes = has.sum(1)
    costs: _Table = np.rint(_UNIT * (1.0 - has @ has.T / (sizes[:, None] + sizes))).astype(np.int64)
    np.fill_diagonal(costs, 0)
    return costs


def _words(result: DecodingResult, tokenizer: Tokenizer) -> list[_Word]:
    """The words of a window's text, from blank to blank; without blanks, characters.

    Marks are with the word before them, or with the first one.
    """
    tokens, language = result.tokens, result.language
    positions = [i for i, token in enumerate(tokens) if token < tokenizer.eot]
    texts, ids = tokenizer.split_to_word_tokens([tokens[i] for i in positions], language)
    words: list[_Word] = []
    start = 0
    for text, part in zip(texts, ids, strict=True):
        place = tuple(positions[start : start + len(part)])
        start += len(part)
        key = "".join(char for char in text.casefold() if char.isalnum())
        parted = text.startswith(" ") or is_spaceless(language)
        if words and (not key or not words[-1].key or not parted):
            words[-1] = _Word(words[-1].key + key, words[-1].positions + place)
        else:
            words.append(_Word(key, place))
    return words

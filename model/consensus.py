"""What several attempts at a window have in common: the one that the others agree with, less what they leave out. Pure.

Gets the attempts of a doubtful window from `model.doubt`. Laid beside a text in the way that needs least changes, each
attempt confirms a word, has another one in its place, or has none there. `most_agreed` is the text from which the
others are least far. What is heard comes again in some form; of what is made up the attempts have more or less. So a
word stays unless enough of the others have nothing in its place (`without_unconfirmed`). Every word is one of a whole
text that was decoded; wrong ones are not put right one by one, and nothing is added.

Source: the null votes of J. Fiscus, "A post-processing system to yield reduced word error rates: ROVER" (1997).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from model.cuts import Place, leave_out, place_of
from model.tokenizer import Tokenizer, is_spaceless
from model.window import DecodingResult

_LEAST_SHARE, _CERTAIN_SHARE = 0.3, 0.5
"""Share of the witnesses that must miss a word of probability 0, and what is added to it up to one of 1."""


@dataclass(frozen=True, slots=True)
class _Word:
    key: str
    """Letters and digits alone, case folded: what is compared."""
    positions: tuple[int, ...]
    """Of its tokens among those of the window, with the marks behind it."""


class Consensus:
    """Attempts at one window beside one another: each is parted into words once, each two are compared once."""

    def __init__(self, attempts: Sequence[DecodingResult], tokenizer: Tokenizer) -> None:
        self._attempts, self._begin = attempts, tokenizer.timestamp_begin
        self._words = [_words(one, tokenizer) for one in attempts]
        self._keys = [[word.key for word in words] for words in self._words]
        self._costs = _Costs()
        self._tables: dict[tuple[int, int], _Table] = {}

    def most_agreed(self) -> int:
        """Which attempt takes the fewest changes to become the others: the first of those that do.

        Source: S. Kumar and W. Byrne, "Minimum Bayes-Risk Decoding for Statistical Machine Translation" (2004).
        """
        changes = [0.0] * len(self._keys)
        for one, other in combinations(range(len(self._keys)), 2):
            between = self._table(one, other)[-1][-1]
            changes[one] += between
            changes[other] += between
        return changes.index(min(changes))

    def confirmed(self, number: int) -> int:
        """How many words of an attempt most of the others have too, somewhere."""
        heard = [set(self._keys[other]) for other in self._others(number)]
        return sum(2 * sum(word in keys for keys in heard) > len(heard) for word in self._keys[number] if word)

    def without_unconfirmed(self, number: int) -> tuple[tuple[int, ...], tuple[Place, ...]]:
        """The tokens of an attempt without the words that too many of the others leave out, and where those stood.

        The less probable a word is, the fewer are needed: more than 0.3 of them, or 0.8 for one that is certain.
        """
        attempt, words, others = self._attempts[number], self._words[number], self._others(number)
        missing = Counter(position for other in others for position in self.left_out(number, other))
        unconfirmed = [
            word
            for position, word in enumerate(words)
            if missing[position] > (_LEAST_SHARE + _CERTAIN_SHARE * _probability(word, attempt)) * len(others)
        ]
        places = {place_of(attempt.tokens, *_ends(word), self._begin): None for word in unconfirmed}
        cut = [position for word in unconfirmed for position in word.positions]
        return leave_out(attempt.tokens, cut, self._begin), tuple(places)

    def left_out(self, number: int, other: int) -> list[int]:
        """Which words of an attempt have nothing in their place in another, by a cheapest alignment; in order.

        Words that look alike are rather in each other's place than others: a replacement costs between a half and one.
        """
        words, others, table = self._keys[number], self._keys[other], self._table(number, other)
        i, j, gone = len(words), len(others), []
        while i > 0:
            if j > 0 and table[i][j] == table[i - 1][j - 1] + self._costs[words[i - 1], others[j - 1]]:
                i, j = i - 1, j - 1
            elif j > 0 and table[i][j] == table[i][j - 1] + 1.0:
                j -= 1
            else:
                i -= 1
                gone.append(i)
        return gone[::-1]

    def _others(self, number: int) -> list[int]:
        return [other for other in range(len(self._attempts)) if other != number]

    def _table(self, one: int, other: int) -> "_Table":
        """Cost of the cheapest changes that make the first i words of one the first j of the other, at [i][j]."""
        if (one, other) not in self._tables:
            table = _changes(self._keys[one], self._keys[other], self._costs)
            self._tables[one, other] = table
            self._tables[other, one] = [list(column) for column in zip(*table, strict=True)]
        return self._tables[one, other]


def is_same_text(one: DecodingResult, other: DecodingResult, tokenizer: Tokenizer) -> bool:
    """Whether two results have the same words, whatever their marks and times."""
    first, second = ([word.key for word in _words(result, tokenizer)] for result in (one, other))
    return first == second


_Table = list[list[float]]


def _probability(word: _Word, result: DecodingResult) -> float:
    """Mean of a word's tokens, or of the whole text where those are not known."""
    if not result.logprobs:
        return math.exp(result.avg_logprob)
    return math.exp(sum(result.logprobs[i] for i in word.positions) / len(word.positions))


def _ends(word: _Word) -> tuple[int, int]:
    return word.positions[0], word.positions[-1]


class _Costs(dict[tuple[str, str], float]):
    """`_cost` of pairs of words, each worked out once: texts have most of their words in common."""

    def __missing__(self, pair: tuple[str, str]) -> float:
        cost = self[pair] = _cost(*pair)
        return cost


def _changes(words: Sequence[str], others: Sequence[str], costs: _Costs) -> _Table:
    """See `Consensus._table`."""
    table = [[float(j) for j in range(len(others) + 1)]]
    for i, word in enumerate(words, start=1):
        above, line = table[-1], [float(i)]
        for j, other in enumerate(others):
            line.append(min(above[j] + costs[word, other], above[j + 1] + 1.0, line[j] + 1.0))
        table.append(line)
    return table


def _cost(word: str, other: str) -> float:
    """0 for the same word, 1 for one that shares no pair of letters with it."""
    if word == other:
        return 0.0
    pairs, others = (set(pairwise(f" {text} ")) for text in (word, other))
    return 1.0 - len(pairs & others) / (len(pairs) + len(others))


def _words(result: DecodingResult, tokenizer: Tokenizer) -> list[_Word]:
    """The words of a window's text, from blank to blank; without blanks, characters, and marks with the one before."""
    tokens, language = result.tokens, result.language
    positions = [i for i, token in enumerate(tokens) if token < tokenizer.eot]
    texts, ids = tokenizer.split_to_word_tokens([tokens[i] for i in positions], language)
    words: list[_Word] = []
    start = 0
    for text, part in zip(texts, ids, strict=True):
        place = tuple(positions[start : start + len(part)])
        start += len(part)
        key = "".join(char for char in text.casefold() if char.isalnum())
        if words and (not key or not (text.startswith(" ") or is_spaceless(language))):
            words[-1] = _Word(words[-1].key + key, words[-1].positions + place)
        else:
            words.append(_Word(key, place))
    return words

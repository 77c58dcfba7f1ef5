"""What several attempts at a window have in common: the one that the others agree with, less what they leave out. Pure.

Gets the attempts of a doubtful window from `model.doubt`. Laid beside a text in the way that needs least changes, each
attempt confirms a word, has another one in its place, or has none there. `most_agreed` is the text from which the
others are least far. What is heard comes again in some form; of what is made up the attempts have more or less. So a
word stays unless enough of the others have nothing in its place (`cut_unconfirmed`): every word is one of a whole text
that was decoded, wrong ones are not put right one by one, and nothing is added.

Source: the null votes of J. Fiscus, "A post-processing system to yield reduced word error rates: ROVER" (1997).
"""

import math
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


def cut_unconfirmed(
    result: DecodingResult, witnesses: Sequence[DecodingResult], tokenizer: Tokenizer
) -> tuple[tuple[int, ...], tuple[Place, ...]]:
    """The tokens of a window without the words that too many of the witnesses leave out, and where those stood.

    The less probable a word is, the fewer are needed: more than 0.3 of them, or 0.8 for one that is certain.
    """
    words = _words(result.tokens, tokenizer, result.language)
    missing = _missing([word.key for word in words], [_keys(one, tokenizer) for one in witnesses])
    unconfirmed = [
        word
        for word, count in zip(words, missing, strict=True)
        if count > (_LEAST_SHARE + _CERTAIN_SHARE * _probability(word, result)) * len(witnesses)
    ]
    begin = tokenizer.timestamp_begin
    places = {place_of(result.tokens, word.positions[0], word.positions[-1], begin): None for word in unconfirmed}
    cut = [position for word in unconfirmed for position in word.positions]
    return leave_out(result.tokens, cut, begin), tuple(places)


def confirmed_words(result: DecodingResult, witnesses: Sequence[DecodingResult], tokenizer: Tokenizer) -> int:
    """How many words of the window most of the witnesses have too, somewhere."""
    heard = [set(_keys(one, tokenizer)) for one in witnesses]
    words = _keys(result, tokenizer)
    return sum(2 * sum(word in keys for keys in heard) > len(heard) for word in words if word)


def is_same_text(one: DecodingResult, other: DecodingResult, tokenizer: Tokenizer) -> bool:
    """Whether two results have the same words, whatever their marks and times."""
    return _keys(one, tokenizer) == _keys(other, tokenizer)


def most_agreed(results: Sequence[DecodingResult], tokenizer: Tokenizer) -> int:
    """Which of several results takes the fewest changes to become the others: the first of those that do.

    Source: S. Kumar and W. Byrne, "Minimum Bayes-Risk Decoding for Statistical Machine Translation" (2004).
    """
    keys = [_keys(result, tokenizer) for result in results]
    costs = _Costs()
    changes = [0.0] * len(keys)
    for (i, one), (j, other) in combinations(enumerate(keys), 2):
        between = _changes(one, other, costs)[-1][-1]
        changes[i] += between
        changes[j] += between
    return changes.index(min(changes))


def _missing(words: Sequence[str], witnesses: Sequence[Sequence[str]]) -> list[int]:
    """How many witnesses leave each of the words out."""
    missing = [0] * len(words)
    for other in witnesses:
        for i in left_out(words, other):
            missing[i] += 1
    return missing


def _probability(word: _Word, result: DecodingResult) -> float:
    """Mean of a word's tokens, or of the whole text where those are not known."""
    if not result.logprobs:
        return math.exp(result.avg_logprob)
    return math.exp(sum(result.logprobs[i] for i in word.positions) / len(word.positions))


def left_out(words: Sequence[str], other: Sequence[str]) -> list[int]:
    """Which of the words have nothing in their place in the other text, by a cheapest alignment; in order.

    Words that look alike are rather in each other's place than others: a replacement costs between a half and one.
    """
    costs = _Costs()
    table = _changes(words, other, costs)
    i, j, gone = len(words), len(other), []
    while i > 0:
        if j > 0 and table[i][j] == table[i - 1][j - 1] + costs[words[i - 1], other[j - 1]]:
            i, j = i - 1, j - 1
        elif j > 0 and table[i][j] == table[i][j - 1] + 1.0:
            j -= 1
        else:
            i -= 1
            gone.append(i)
    return gone[::-1]


class _Costs(dict[tuple[str, str], float]):
    """`_cost` of pairs of words, each worked out once: texts have most of their words in common."""

    def __missing__(self, pair: tuple[str, str]) -> float:
        cost = self[pair] = _cost(*pair)
        return cost


def _changes(words: Sequence[str], other: Sequence[str], costs: _Costs) -> list[list[float]]:
    """Cost of the cheapest changes that make the first i words the first j of the other text, at [i][j]."""
    table = [[float(j) for j in range(len(other) + 1)]]
    for i, word in enumerate(words, start=1):
        above, line = table[-1], [float(i)]
        for j, match in enumerate(other):
            line.append(min(above[j] + costs[word, match], above[j + 1] + 1.0, line[j] + 1.0))
        table.append(line)
    return table


def _cost(word: str, other: str) -> float:
    """0 for the same word, 1 for one that shares no pair of letters with it."""
    if word == other:
        return 0.0
    pairs, others = (set(pairwise(f" {text} ")) for text in (word, other))
    return 1.0 - len(pairs & others) / (len(pairs) + len(others))


def _keys(result: DecodingResult, tokenizer: Tokenizer) -> list[str]:
    return [word.key for word in _words(result.tokens, tokenizer, result.language)]


def _words(tokens: Sequence[int], tokenizer: Tokenizer, language: str) -> list[_Word]:
    """The words of a window's text, from blank to blank; without blanks, characters, and marks with the one before."""
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

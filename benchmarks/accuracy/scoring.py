"""Text against reference: word or character errors after Whisper's own normalisation, and translation scores.

As in the paper (section 4.4, appendix C): English through its normaliser, the others through the basic one with
diacritics kept; Chinese and Japanese (and others written without spaces) by character, Chinese as simplified. A
reference of digits only is compared digit by digit, since "123" and "1 2 3" are the same answer.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import sacrebleu
import zhconv
from rapidfuzz.distance import Levenshtein
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

CHARACTER_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "bo", "km"})
"""Written without spaces between words: scored by character (CER), the others by word (WER)."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Edits (substitutions, insertions, deletions) over reference tokens; adds up over clips.

    `lost` and `invented` are the deletions and insertions of a cheapest alignment: a wrong word in a word's place is
    neither.
    """

    edits: int = 0
    tokens: int = 0
    lost: int = 0
    invented: int = 0

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    @property
    def rate(self) -> float:
        """Per cent; over 100 where more was printed than said. NaN without a reference token."""
        return 100.0 * self.edits / self.tokens if self.tokens else float("nan")


class Scorer:
    """Holds the normalisers, which are slow to build."""

    def __init__(self) -> None:
        self._english = EnglishTextNormalizer()
        self._basic = BasicTextNormalizer()
        self._letters = BasicTextNormalizer(split_letters=True)
        with warnings.catch_warnings():
            # zhconv reads its table at the first call and leaves the closing of the file to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            zhconv.convert("", "zh-cn")

    def tokens(self, text: str, language: str | None) -> list[str]:
        """Normalised words, or characters for a language that is scored so."""
        if language == "en":
            return str(self._english(text)).split()
        if language in ("zh", "yue"):
            text = zhconv.convert(text, "zh-cn")
        normalise = self._letters if language in CHARACTER_LANGUAGES else self._basic
        return str(normalise(text)).split()

    def errors(self, reference: str, hypothesis: str, language: str | None) -> Errors:
        """Edits that turn the hypothesis into the reference, both normalised."""
        said, printed = self.tokens(reference, language), self.tokens(hypothesis, language)
        if said and all(token.isdigit() or token == "one" for token in said):
            said, printed = _digits_apart(said), _digits_apart(printed)
        tags = [step.tag for step in Levenshtein.editops(said, printed)]
        return Errors(len(tags), len(said), tags.count("delete"), tags.count("insert"))

    def invented(self, hypothesis: str) -> Errors:
        """Where nobody speaks every word is invented."""
        words = self.words(hypothesis)
        return Errors(words, 0, 0, words)

    def words(self, text: str) -> int:
        """How many words were printed, for clips on which there are none; CJK characters count one each."""
        return len(str(self._letters(text)).split()) if _has_cjk(text) else len(str(self._basic(text)).split())


@dataclass(frozen=True, slots=True)
class TranslationScore:
    """Corpus scores of translations; signatures make them comparable with other papers' figures."""

    clips: int
    bleu: float
    chrf: float
    signature: str


def translation_score(references: Sequence[str], hypotheses: Sequence[str]) -> TranslationScore:
    """Corpus BLEU and chrF (sacrebleu defaults), case and punctuation kept; needs at least one sentence."""
    if not references or len(references) != len(hypotheses):
        raise ValueError("as many hypotheses as references, and at least one")
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    scores = [metric.corpus_score(list(hypotheses), [list(references)]).score for metric in (bleu, chrf)]
    signature = json.dumps({"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())})
    return TranslationScore(len(references), scores[0], scores[1], signature)


def _digits_apart(tokens: list[str]) -> list[str]:
    """Each digit a token of its own; the English normaliser leaves a lone "one" a word, and makes "1," one."""
    digits = ("1" if token == "one" else token for token in tokens)
    return [piece for token in digits for piece in (token if token.isdigit() else [token])]


def _has_cjk(text: str) -> bool:
    return any("\u3040" <= char <= "\u30ff" or "\u4e00" <= char <= "\u9fff" for char in text)

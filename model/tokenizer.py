"""Text to tokens and back, and the numbers of the special tokens.

Gets byte-pair ranks from `assets/`, gives token ids to `decode` (prompts, rules) and text to `transcript`.

- One `Tokenizer` per model. It holds no language and no task: rows of one batch differ in both.
- `encode` can only give ordinary tokens: text that looks like `<|endoftext|>` stays text. Special ids come from the
  attributes here and from nowhere else.
- Ranks are read when a `Tokenizer` is made, and nothing is cached beside it.

Vocabulary layout, lowest id first: byte-pair tokens, `<|endoftext|>`, `<|startoftranscript|>`, languages,
`<|translate|>`, `<|transcribe|>`, `<|startoflm|>`, `<|startofprev|>`, `<|nospeech|>`, `<|notimestamps|>`, then 1,501
timestamps 20 ms apart (openai/whisper tokenizer.py; paper, figure 1).
"""

import base64
import re
import string
from collections.abc import Iterable, Sequence
from pathlib import Path

import tiktoken

from model.dims import ModelDimensions
from model.errors import OptionError
from model.language import LANGUAGES

_ASSETS = Path(__file__).parent / "assets"
_VOCABULARIES = {True: "multilingual", False: "gpt2"}
"""By whether they are for several languages."""
_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
"""GPT-2's split of a text into the pieces within which pairs are merged."""
_TIMESTAMPS = 1501
_LONGEST_BLANK = 65_536
"""White space, in characters, that goes to tiktoken in one piece: its regex panics on a run of a million."""

_SYMBOLS = tuple('"#()*+/:;<=>@[\\]^_`{|}~「」『』')
_RUNS = tuple("<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪".split(" "))  # noqa: SIM905
_MUSIC = "♩♪♫♬♭♮♯"
"""All are in U+2640 to U+267F: they share their first two bytes, so suppressing a first token suppresses them all."""
_SPACELESS = frozenset(("zh", "ja", "th", "lo", "my", "yue"))
"""Languages written without blanks between words."""


class Tokenizer:
    """One model's vocabulary: byte-pair tokens, special tokens and timestamps. Immutable once made."""

    def __init__(self, *, multilingual: bool, num_languages: int) -> None:
        """Read the ranks of one of the two vocabularies.

        `num_languages` is 99, or 100 for large-v3 and later (`ModelDimensions.num_languages`); ValueError outside
        1 to 100. The English-only vocabulary has ids for the languages too, but its models never use them.
        """
        if not 1 <= num_languages <= len(LANGUAGES):
            raise ValueError(f"a vocabulary names 1 to {len(LANGUAGES)} languages, not {num_languages}")
        codes = tuple(LANGUAGES)[:num_languages]
        ranks = read_ranks(multilingual=multilingual)
        specials = {text: len(ranks) + i for i, text in enumerate(_special_texts(codes))}
        self._encoding = tiktoken.Encoding(
            name=_VOCABULARIES[multilingual],
            explicit_n_vocab=len(ranks) + len(specials),
            pat_str=_PATTERN,
            mergeable_ranks=ranks,
            special_tokens=specials,
        )
        self.multilingual = multilingual
        self.n_vocab = len(ranks) + len(specials)
        self.eot = specials["<|endoftext|>"]
        self.sot = specials["<|startoftranscript|>"]
        self.translate = specials["<|translate|>"]
        self.transcribe = specials["<|transcribe|>"]
        self.sot_lm = specials["<|startoflm|>"]
        self.sot_prev = specials["<|startofprev|>"]
        self.no_speech = specials["<|nospeech|>"]
        self.no_timestamps = specials["<|notimestamps|>"]
        self.timestamp_begin = specials["<|0.00|>"]
        self.language_codes: tuple[str, ...] = codes if multilingual else ()
        """Codes of the languages that the model tells apart, in vocabulary order; empty for English-only."""
        self.language_tokens: tuple[int, ...] = tuple(specials[f"<|{code}|>"] for code in self.language_codes)
        """Token ids of `language_codes`, in the same order."""
        self.blank_tokens: tuple[int, ...] = tuple(self.encode(" "))
        self.non_speech_tokens: tuple[int, ...] = self._find_non_speech_tokens()
        """Sorted ids that write sounds and speaker tags instead of speech: brackets, notes, dashes; plain
        punctuation is not among them."""

    def encode(self, text: str) -> list[int]:
        """Ordinary tokens for any string: special-looking text stays text, a lone surrogate becomes U+FFFD."""
        tokens: list[int] = []
        for piece in _without_long_blanks(text):
            tokens += self._encoding.encode_ordinary(piece)
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of `tokens` without their timestamps; bytes that are no UTF-8 become U+FFFD.

        Other special tokens show as their text, as in the reference. KeyError for an id outside the vocabulary.
        """
        return self._encoding.decode([token for token in tokens if token < self.timestamp_begin])

    def decode_with_timestamps(self, tokens: Iterable[int]) -> str:
        """Text of `tokens` with timestamps shown as `<|1.08|>`."""
        return self._encoding.decode(list(tokens))

    def language_token(self, code: str) -> int:
        """Token id of a language code; OptionError("language") where this model does not know the language."""
        if code not in self.language_codes:
            known = f"knows {len(self.language_codes)} languages" if self.multilingual else "is English-only"
            raise OptionError("language", f"this language is not one of this model's: it {known}")
        return self.language_tokens[self.language_codes.index(code)]

    def sot_sequence(self, language: str | None, task: str) -> tuple[int, ...]:
        """The tokens that open a transcript, before `<|notimestamps|>`: start, language, task.

        An English-only model has the start alone, whatever the arguments. For the others, None leaves the language
        out; OptionError for a language or task that is not known.
        """
        if not self.multilingual:
            return (self.sot,)
        tasks = {"transcribe": self.transcribe, "translate": self.translate}
        if task not in tasks:
            raise OptionError("task", "task must be 'transcribe' or 'translate'")
        spoken = () if language is None else (self.language_token(language),)
        return (self.sot, *spoken, tasks[task])

    def split_to_word_tokens(self, tokens: Sequence[int], language: str | None) -> tuple[list[str], list[list[int]]]:
        """Words and the tokens of each, in order; nothing is lost: joined, they are `tokens` and their text.

        Languages written without blanks are split wherever a character ends, the others before a blank, at
        punctuation and at special tokens.
        """
        parts, part_tokens = self._split_at_characters(tokens)
        if is_spaceless(language):
            return parts, part_tokens
        words: list[str] = []
        word_tokens: list[list[int]] = []
        for part, ids in zip(parts, part_tokens, strict=True):
            alone = ids[0] >= self.eot or part.startswith(" ") or part.strip() in string.punctuation
            if alone or not words:
                words.append(part)
                word_tokens.append(list(ids))
            else:
                words[-1] += part
                word_tokens[-1] += ids
        return words, word_tokens

    def _split_at_characters(self, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """The shortest runs of tokens that end where a character of the whole text ends, and their text.

        Looks at every byte once, where the reference decodes each prefix again.
        """
        pieces = self._encoding.decode_tokens_bytes(list(tokens))
        data = b"".join(pieces)
        ends = _character_ends(data)
        texts: list[str] = []
        groups: list[list[int]] = []
        group: list[int] = []
        start = end = 0
        for token, piece in zip(tokens, pieces, strict=True):
            group.append(token)
            end += len(piece)
            if ends[end]:
                texts.append(data[start:end].decode("utf-8", errors="replace"))
                groups.append(group)
                group, start = [], end
        return texts, groups

    def _find_non_speech_tokens(self) -> tuple[int, ...]:
        # A dash or an apostrophe may stand inside a word, so only the form after a blank is suppressed.
        found = {self.encode(" -")[0], self.encode(" '")[0]}
        for symbol in (*_SYMBOLS, *_RUNS, *_MUSIC):
            for tokens in (self.encode(symbol), self.encode(" " + symbol)):
                if len(tokens) == 1 or symbol in _MUSIC:
                    found.add(tokens[0])
        return tuple(sorted(found))


def is_spaceless(language: str | None) -> bool:
    """Whether a language is written without blanks between words."""
    return language in _SPACELESS


def get_tokenizer(dims: ModelDimensions) -> Tokenizer:
    """The tokenizer of a model of these dimensions."""
    return Tokenizer(multilingual=dims.is_multilingual, num_languages=dims.num_languages)


def read_ranks(*, multilingual: bool) -> dict[bytes, int]:
    """The byte pairs of one of the two vocabularies, and their ranks, which are their tokens too."""
    content = (_ASSETS / f"{_VOCABULARIES[multilingual]}.tiktoken").read_bytes()
    lines = (line.split() for line in content.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def _special_texts(codes: Sequence[str]) -> Iterable[str]:
    yield from ("<|endoftext|>", "<|startoftranscript|>")
    yield from (f"<|{code}|>" for code in codes)
    yield from ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>")
    yield "<|notimestamps|>"
    yield from (f"<|{i * 0.02:.2f}|>" for i in range(_TIMESTAMPS))


def _without_long_blanks(text: str) -> Iterable[str]:
    """`text` in pieces, cut only inside runs of white space longer than `_LONGEST_BLANK`."""
    start = 0
    if len(text) > _LONGEST_BLANK:
        for blank in re.finditer(r"\s+", text):
            while blank.end() - max(start, blank.start()) > _LONGEST_BLANK:
                cut = max(start, blank.start()) + _LONGEST_BLANK
                yield text[start:cut]
                start = cut
    yield text[start:]


def _character_ends(data: bytes) -> bytearray:
    """1 at every offset (0 to the length) where a character ends as `decode(errors="replace")` sees it, else 0."""
    # In valid text a character ends before every byte that is not a continuation byte (10xxxxxx).
    ends = bytearray((byte & 0xC0) != 0x80 for byte in data)
    ends.append(1)
    start = 0
    while start < len(data):
        try:
            data[start:].decode("utf-8")
        except UnicodeDecodeError as error:
            # Invalid bytes start..end become one U+FFFD: the only end among them is the last.
            first, last = start + error.start, start + error.end
            ends[first:last] = bytes((1,)) + bytes(last - first - 1)
            ends[last], start = 1, last
        else:
            break
    return ends

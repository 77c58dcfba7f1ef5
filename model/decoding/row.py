"""What is decoded now: the rows of the batch, and the window that they belong to.

A `Row` is one hypothesis with a place in the batch; a `Decoding` is a window under way with all of its rows: one when
it is decoded greedily, several when it is sampled several times or searched with beams. While a doubtful text is heard
again there may be a shadow besides, a row that says the same and hears silence. What is tried with the window, and what
becomes of that, its `model.decoding.ladder` says; `model.decoding.batch` drives them.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.decoding.ladder import Ladder
from model.options import TranscribeOptions
from model.search.beam import BeamSearch, Candidate, Extension, best_candidate
from model.search.rules import Rules, TimestampGrammar
from model.search.sampling import row_seed
from model.tokenizer import Tokenizer
from model.window import DecodingResult, Window, compression_ratio


class Row:
    """One hypothesis: what it has said, and what it may say next."""

    def __init__(self, decoding: "Decoding", index: int, *, shadow: int | None = None) -> None:
        """`index`: its place among the rows of the batch; `shadow`: for a shadow, the window slot of silence."""
        self.decoding, self.index = decoding, index
        self.is_shadow = shadow is not None
        self.slot = decoding.slot if shadow is None else shadow
        """Of the window that it hears."""
        self.tokens: list[int] = []
        self.in_flight = 0
        """Tokens that it has said and nobody has read yet (`model.decoding.device_choice`)."""

    def begin(self, candidate: int, grammar: TimestampGrammar, seed: int | None) -> None:
        """Start with nothing said, as the window's hypothesis of this number; `seed` where it is sampled."""
        self.candidate, self.grammar, self.seed = candidate, grammar, seed
        self.generator: torch.Generator | None = None
        self.tokens, self.in_flight = [], 0
        self.logprobs: list[float] = []
        self.sum_logprob = 0.0

    def follow(self, row: "Row") -> None:
        """Say from now on what another row says."""
        self.tokens, self.in_flight = row.tokens, 0

    def push(self, token: int, logprob: float) -> None:
        """Note a sampled token."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        self.sum_logprob += logprob
        self.grammar.push(token)

    @property
    def is_full(self) -> bool:
        """Whether it has said as much as it may."""
        return len(self.tokens) >= self.decoding.most_tokens

    @property
    def length(self) -> int:
        """Tokens whose keys and values are in memory before a step: all but the last sampled one."""
        return self.decoding.n_prompt + self.said - 1

    @property
    def said(self) -> int:
        """Tokens that it has said, read or not."""
        return len(self.tokens) + self.in_flight


class Decoding:
    """One window under way."""

    def __init__(
        self, slot: int, window: Window, options: TranscribeOptions, language: str, prompt: tuple[int, ...]
    ) -> None:
        self.slot, self.window, self.options, self.language = slot, window, options, language
        self.prompt = prompt
        self.n_prompt = len(prompt)
        """Tokens before the first sampled one."""
        self.most_tokens = 0
        """That one of its rows may say."""
        self.width = options.width
        """Rows that it needs at most."""
        self.language_probs: dict[str, float] = {}
        self.silence: Callable[[], float] = float
        """How probable it is that nobody speaks, which need not be read at once."""
        self.suppressed: tuple[int, ...] = ()
        self.first_logits: Tensor | None = None
        self.rows: list[Row] = []
        self.shadow: Row | None = None
        """Says what the only row says, and hears silence (`model.decoding.contrast`)."""
        self.silent_logits: Tensor | None = None
        """What the prompt leads to in silence, where there is a shadow."""
        self.ladder = Ladder(options, voiced=window.voiced)
        self.beams: BeamSearch | None = None
        self._ended: dict[int, Candidate] = {}

    def fitting_tokens(self, n_ctx: int) -> int:
        """That a row may say in a text context of this size: the last one is never fed."""
        return min(self.options.sample_len or n_ctx // 2, n_ctx + 1 - self.n_prompt)

    @property
    def temperature(self) -> float:
        """That of the present attempt."""
        return self.ladder.temperature

    def read_before(self, rung: int) -> tuple[int, ...]:
        """Tokens whose keys and values its rows hold when it begins: the prompt, and all that is said but the last."""
        return (*self.prompt, *self.ladder.beginning(rung)[0][:-1])

    def begin(self, rung: int, rules: Rules, tokenizer: Tokenizer) -> None:
        """Start every row at this rung of the temperature ladder, as a search, or as a witness behind the ladder."""
        self.ladder.rung, self._ended = rung, {}
        options = self.options
        said, logprobs = self.ladder.beginning(rung)
        self.beams = None
        if beams := self.ladder.beams:
            self.beams = BeamSearch(beams, options.patience, tokenizer.eot, said=said, logprobs=logprobs)
        for candidate, row in enumerate(self.rows):
            seed = None if self.temperature == 0 else row_seed(options.seed, self.window.index, rung, candidate)
            row.begin(candidate, rules.grammar(options), seed)
            for token, logprob in zip(said, logprobs, strict=True):
                row.push(token, logprob)
        if self.shadow is not None:
            self.shadow.follow(self.rows[0])

    def adopt(self, extensions: Sequence[Extension]) -> None:
        """Let each beam go on as its extension says: all are read before any is written."""
        pasts = [(list(self.rows[e.source].tokens), copy.copy(self.rows[e.source].grammar)) for e in extensions]
        for row, (tokens, grammar), extension in zip(self.rows, pasts, extensions, strict=True):
            row.tokens, row.grammar = tokens, grammar
            row.push(extension.token, 0.0)
            row.sum_logprob = extension.sum_logprob

    def end(self, row: Row, eot: int) -> None:
        """A sampled row has said its last token."""
        tokens = row.tokens[:-1] if row.tokens[-1] == eot else row.tokens
        self._ended[row.candidate] = Candidate(tuple(tokens), row.sum_logprob, tuple(row.logprobs[: len(tokens)]))

    def result(self, tokenizer: Tokenizer) -> DecodingResult:
        """The best hypothesis."""
        candidates = [self._ended[number] for number in sorted(self._ended)]
        if self.beams is not None:
            candidates = self.beams.candidates(
                [row.tokens for row in self.rows], [row.sum_logprob for row in self.rows]
            )
        best = best_candidate(candidates, self.options.length_penalty)
        text = tokenizer.decode(best.tokens).strip()
        return DecodingResult(
            language=self.language,
            tokens=best.tokens,
            text=text,
            avg_logprob=best.avg_logprob,
            no_speech_prob=self.silence(),
            temperature=self.temperature,
            compression_ratio=compression_ratio(text),
            language_probs=self.language_probs,
            logprobs=best.logprobs,
            endless=len(best.tokens) >= self.most_tokens,
        )

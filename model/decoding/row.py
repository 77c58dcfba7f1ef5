"""What is decoded now: the rows of the batch, and the window that they belong to.

A `Row` is one hypothesis with a place in the batch; a `Decoding` is a window under way with all of its rows: one when
it is decoded greedily, several when it is sampled several times or searched with beams. While a doubtful text is heard
again there may be a shadow besides, a row that says the same and hears silence. `model.decoding.batch` drives them.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.guards.doubt import (
    WITNESS_TEMPERATURE,
    is_worth_heating,
    needs_search,
    needs_witness,
    salvage,
    sure_beginning,
)
from model.options import TranscribeOptions
from model.search.beam import BeamSearch, Candidate, Extension, best_candidate
from model.search.rules import Rules, TimestampGrammar
from model.search.sampling import row_seed
from model.tokenizer import Tokenizer
from model.window import (
    SEARCH_BEAMS,
    SURE_LOGPROB,
    DecodingResult,
    Window,
    compression_ratio,
    fallback_reason,
    goes_round,
)

SEARCH = -1
"""In the place of a rung: a text that was taken token by token is searched for again, with beams."""


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
        self.contrasts = False
        """Whether it can have a shadow, and its unsure text be searched for again."""
        self.rounds = False
        """Whether its decoder computes in 8 bits, so that its tokens are not the reference's to the last."""
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
        self.rung = 0
        self.beams: BeamSearch | None = None
        self.attempts: list[DecodingResult] = []
        """What each rung of the ladder so far gave."""
        self.first: DecodingResult | None = None
        """What the first rung gave, where a search gave something better."""
        self.witnesses: list[DecodingResult] = []
        """What the attempts after the ladder gave, which only say what others hear (`model.guards.consensus`)."""
        self._ended: dict[int, Candidate] = {}

    def fitting_tokens(self, n_ctx: int) -> int:
        """That a row may say in a text context of this size: the last one is never fed."""
        return min(self.options.sample_len or n_ctx // 2, n_ctx + 1 - self.n_prompt)

    @property
    def temperature(self) -> float:
        """That of the present attempt; with a shadow the first witness is greedy."""
        if not self.is_witness:
            return 0.0 if self.rung == SEARCH else self.options.temperature[self.rung]
        return 0.0 if self.contrasts and self.rung == len(self.options.temperature) else WITNESS_TEMPERATURE

    @property
    def is_witness(self) -> bool:
        """Whether the ladder is behind it."""
        return self.is_witness_at(self.rung)

    def is_witness_at(self, rung: int) -> bool:
        """Whether a rung is behind the ladder."""
        return rung >= len(self.options.temperature)

    @property
    def reason(self) -> str | None:
        """Why the last rung that was tried failed; None where it did not."""
        return fallback_reason(self.attempts[-1], self.options)

    def doubts(self, result: DecodingResult) -> bool:
        """Whether a result of the present attempt is not simply taken."""
        if not self.options.guards:
            return False
        return self.is_witness or result.avg_logprob < SURE_LOGPROB or fallback_reason(result, self.options) is not None

    def note(self, result: DecodingResult) -> None:
        """Take the result of the present attempt; of a search only if it does not go round."""
        if self.rung != SEARCH:
            (self.witnesses if self.is_witness else self.attempts).append(result)
        elif not goes_round(result, self.options):
            self.first, self.attempts = self.attempts[0], [result]

    def next_rung(self, tokenizer: Tokenizer) -> int | None:
        """What to try next: a search, a rung, a witness behind them, or nothing."""
        if self._is_unsure(tokenizer):
            return SEARCH
        rung, failed = max(self.rung, 0) + 1, self.reason is not None
        climbs = failed and not self.is_witness
        if climbs and is_worth_heating(self.attempts, self.options, tokenizer, rung, contrasts=self.contrasts):
            return rung
        voiced = self.window.voiced
        if needs_witness(self.attempts, self.witnesses, self.options, tokenizer, failed=failed, voiced=voiced):
            return len(self.options.temperature) + len(self.witnesses)
        return None

    def _is_unsure(self, tokenizer: Tokenizer) -> bool:
        """Whether it has said its first text, and is to be searched for another."""
        if not self.contrasts or self.rung != 0:
            return False
        return needs_search(self.attempts[0], self.options, tokenizer, rounds=self.rounds)

    def kept(self, tokenizer: Tokenizer) -> DecodingResult:
        """What becomes of the attempts: the last one, or with guards what `model.guards.doubt` makes of them."""
        if not self.options.guards:
            return self.attempts[-1]
        failed = self.reason is not None
        return salvage(self.attempts, self.witnesses, self.options, tokenizer, failed=failed, first=self.first)

    def width_at(self, rung: int) -> int:
        """Rows that it needs there."""
        if rung == SEARCH:
            return SEARCH_BEAMS
        return 1 if self.is_witness_at(rung) else self.options.width_at(rung)

    def beginning(self, rung: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Tokens that are said when a rung begins, and their log-probabilities: of a search, those not doubted."""
        if rung != SEARCH:
            return (), ()
        text = self.attempts[0]
        count = sure_beginning(text, self.options)
        return text.tokens[:count], text.logprobs[:count]

    def read_before(self, rung: int) -> tuple[int, ...]:
        """Tokens whose keys and values its rows hold when it begins: the prompt, and all that is said but the last."""
        return (*self.prompt, *self.beginning(rung)[0][:-1])

    def begin(self, rung: int, rules: Rules, tokenizer: Tokenizer) -> None:
        """Start every row at this rung of the temperature ladder, as a search, or as a witness behind the ladder."""
        self.rung, self._ended = rung, {}
        options = self.options
        greedy = self.temperature == 0
        self.beams = None
        said, logprobs = self.beginning(rung)
        beams = SEARCH_BEAMS if rung == SEARCH else options.beam_size
        if greedy and beams and not self.is_witness:
            self.beams = BeamSearch(beams, options.patience, tokenizer.eot, said=said, logprobs=logprobs)
        for candidate, row in enumerate(self.rows):
            seed = None if greedy else row_seed(options.seed, self.window.index, rung, candidate)
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

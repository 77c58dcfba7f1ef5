"""What is tried with a window: the rungs of its temperatures, a search if it is unsure, witnesses if it is doubtful.

Says what to try next and keeps what that gave, for `model.decoding.row`; whether a text is good enough is asked of
`model.guards.doubt`. Rungs are numbered as the temperatures are; the numbers behind them are witnesses, and `SEARCH` is
the first rung once more, with beams. Pure, free of torch.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from model.guards.doubt import (
    WITNESS_TEMPERATURE,
    is_worth_heating,
    needs_search,
    needs_witness,
    salvage,
    sure_beginning,
)
from model.guards.presence import is_nobodys, may_be_nobodys
from model.options import TranscribeOptions
from model.tokenizer import Tokenizer
from model.window import SEARCH_BEAMS, SURE_LOGPROB, DecodingResult, fallback_reason, goes_round

Listen: TypeAlias = Callable[[DecodingResult], DecodingResult]
"""Has the voice activity detector hear a window for a result of it, and gives that back with its `speech`."""

SEARCH = -1
"""In the place of a rung: a text that was taken token by token is searched for again, with beams."""


class Ladder:
    """The attempts at one window: the paper's fallback (section 4.5), and what is tried besides it."""

    def __init__(self, options: TranscribeOptions, *, voiced: bool = False) -> None:
        """`voiced`: see `Window.voiced`."""
        self._options, self._voiced = options, voiced
        self.contrasts = False
        """Whether the window can have a shadow, and its unsure text be searched for again."""
        self.rounds = False
        """Whether its decoder computes in 8 bits, so that its tokens are not the reference's to the last."""
        self.listen: Listen | None = None
        """Where there is a detector to ask."""
        self.rung = 0
        """Of the present attempt."""
        self.attempts: list[DecodingResult] = []
        """What each rung so far gave."""
        self.first: DecodingResult | None = None
        """What the first rung gave, where a search gave something better."""
        self.witnesses: list[DecodingResult] = []
        """What the attempts behind it gave, which only say what others hear (`model.guards.consensus`)."""
        self._speech: tuple[float, ...] = ()
        """What was heard in the window, where that is nobody."""

    @property
    def temperature(self) -> float:
        """That of the present attempt; with a shadow the first witness is greedy."""
        if self.rung == SEARCH:
            return 0.0
        if not self.is_witness:
            return self._options.temperature[self.rung]
        return 0.0 if self.contrasts and self.rung == len(self._options.temperature) else WITNESS_TEMPERATURE

    @property
    def beams(self) -> int | None:
        """Of the present attempt; None where tokens are taken or drawn one by one."""
        if self.rung == SEARCH:
            return SEARCH_BEAMS
        return self._options.beam_size if self.temperature == 0 and not self.is_witness else None

    @property
    def is_witness(self) -> bool:
        """Whether the rungs are behind it."""
        return self.is_witness_at(self.rung)

    def is_witness_at(self, rung: int) -> bool:
        """Whether this is no rung any more."""
        return rung >= len(self._options.temperature)

    def width_at(self, rung: int) -> int:
        """Rows that the window needs there."""
        if rung == SEARCH:
            return SEARCH_BEAMS
        return 1 if self.is_witness_at(rung) else self._options.width_at(rung)

    def beginning(self, rung: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Tokens that are said when an attempt begins, and their log-probabilities: of a search, those not doubted."""
        if rung != SEARCH:
            return (), ()
        text = self.attempts[0]
        count = sure_beginning(text, self._options)
        return text.tokens[:count], text.logprobs[:count]

    @property
    def reason(self) -> str | None:
        """Why the last rung that was tried failed; None where it did not."""
        return fallback_reason(self.attempts[-1], self._options)

    def doubts(self, result: DecodingResult) -> bool:
        """Whether a result of the present attempt is not simply taken."""
        if not self._options.guards:
            return False
        failed = fallback_reason(result, self._options) is not None
        return self.is_witness or result.avg_logprob < SURE_LOGPROB or failed

    def note(self, result: DecodingResult) -> None:
        """Take the result of the present attempt; of a search only if it does not go round."""
        if self.rung != SEARCH:
            (self.witnesses if self.is_witness else self.attempts).append(result)
        elif not goes_round(result, self._options):
            self.first, self.attempts = self.attempts[0], [result]

    def next_rung(self, tokenizer: Tokenizer) -> int | None:
        """What to try next: a search, a rung, a witness behind them, or nothing."""
        if self._is_nobodys():
            return None
        if self._is_unsure(tokenizer):
            return SEARCH
        options, rung, failed = self._options, max(self.rung, 0) + 1, self.reason is not None
        climbs = failed and not self.is_witness
        if climbs and is_worth_heating(self.attempts, options, tokenizer, rung, contrasts=self.contrasts):
            return rung
        voiced = self._voiced
        if needs_witness(self.attempts, self.witnesses, options, tokenizer, failed=failed, voiced=voiced):
            return len(options.temperature) + len(self.witnesses)
        return None

    def _is_nobodys(self) -> bool:
        """Whether the first text is doubtful and nobody speaks: nothing that may be tried would be kept."""
        if self.rung != 0 or self.listen is None or not self._options.guards:
            return False
        text = replace(self.attempts[0], failed=self.reason is not None)
        if not may_be_nobodys(text, self._options):
            return False
        heard = self.listen(text)
        if is_nobodys(heard, self._options):
            self._speech = heard.speech
        return bool(self._speech)

    def _is_unsure(self, tokenizer: Tokenizer) -> bool:
        """Whether it has said its first text, and is to be searched for another."""
        if not self.contrasts or self.rung != 0:
            return False
        return needs_search(self.attempts[0], self._options, tokenizer, rounds=self.rounds)

    def kept(self, tokenizer: Tokenizer) -> DecodingResult:
        """What becomes of the attempts: the last one, or with guards what `model.guards.doubt` makes of them."""
        if not self._options.guards:
            return self.attempts[-1]
        failed = self.reason is not None
        kept = salvage(self.attempts, self.witnesses, self._options, tokenizer, failed=failed, first=self.first)
        return replace(kept, speech=self._speech)

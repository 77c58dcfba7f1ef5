"""Rules and sampling of all rows in tensors of fixed shapes: what follows the logits in a step without the host.

Used by `model.decoding.device_choice`, and by `model.gpu.graphs` inside a captured step. What a row has said and how it
may go on lies in tables on the device, one line for each row's **home**, a number that stays with it wherever it moves
among the rows of the batch. A step is told homes, and how many tokens each row has said; from that it finds the token
to feed, the grammar's limits (`model.search.rules`) and the next token, and writes that down.

- Nothing is counted on the device: a step that is repeated with the same numbers writes the same again, so that it may
  be warmed up, captured and launched before the host has read what the last one chose.
- A draw above temperature 0 goes along the row's own list of uniform numbers, made from its seed when it begins: token
  n takes number n, whoever else is in the batch. The same seed gives the same draws here, and others than in
  `model.search.sampling`, which draws as the reference does.
- The last home is scratch, for padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.dims import ModelDimensions
from model.search.rules import Rules
from model.tokenizer import Tokenizer
from model.transfer import pinned, send

_TEMPERATURE, _TIMED, _FIRST_TO, _UNIFORMS = 0, 1, 2, 3
"""Columns of the settings; the uniform numbers follow."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What is known of each home, for whoever chooses in the place of `Selection.choose`."""

    said: Tensor
    """(homes, n), whole numbers: token i at column i + 2, and before them two that are none."""
    last_times: Tensor
    """(homes, n), whole numbers: the last timestamp among the first i tokens at column i, -1 where there is none."""
    settings: Tensor
    """(homes, n), float32: temperature, whether it has timestamps, one more than its highest first one, and draws."""
    suppressed: Tensor
    """(homes, n_vocab), truth values: what it never says."""
    sums: Tensor
    """(homes,), float32: log-probability of a beam's text."""
    timestamp_begin: int
    eot: int


class Selection:
    """The tables of one batch."""

    def __init__(
        self, dims: ModelDimensions, tokenizer: Tokenizer, rules: Rules, *, n_rows: int, device: torch.device
    ) -> None:
        self._begin, self._eot, self._end = tokenizer.timestamp_begin, tokenizer.eot, dims.n_vocab
        self._rules, self._device = rules, device
        self._most = dims.n_text_ctx
        """Tokens that a row may have said; beyond that a step writes over the last."""
        self.scratch = n_rows
        homes = n_rows + 1
        self._said = torch.full((homes, self._most + 3), -1, device=device)
        """Token i at column i + 2: a row that has said nothing has two tokens before it that are none."""
        self._last_times = torch.full((homes, self._most + 2), -1, device=device)
        """The last timestamp among the first i tokens at column i."""
        self._settings = torch.zeros(homes, _UNIFORMS + self._most + 1, device=device)
        self._suppressed = torch.zeros(homes, dims.n_vocab, dtype=torch.bool, device=device)
        self._sums = torch.zeros(homes, device=device)

    @property
    def tables(self) -> Tables:
        """The memory itself, not a copy."""
        return Tables(
            self._said, self._last_times, self._settings, self._suppressed, self._sums,
            timestamp_begin=self._begin, eot=self._eot,
        )  # fmt: skip

    def begin(
        self, home: int, suppressed: tuple[int, ...], *, temperature: float, seed: int | None, first_to: int | None
    ) -> None:
        """A row begins: it never says `suppressed`; `seed` is of its draws, above temperature 0.

        `first_to`: one more than its highest first timestamp; None for a row without timestamps.
        """
        settings = torch.tensor([temperature, float(first_to is not None), float(first_to or 0)])
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            settings = torch.cat((settings, torch.rand(self._most + 1, generator=generator)))
        self._settings[home, : len(settings)].copy_(pinned(settings, self._device), non_blocking=True)
        self._suppressed[home] = False
        self._suppressed[home].index_fill_(0, self._rules.index(suppressed), True)
        self._sums[home] = 0.0

    def rows(self, homes: Sequence[int], counts: Sequence[int]) -> Tensor:
        """(2, rows): what `last` and `choose` want to know of rows, on the device."""
        return send(torch.tensor([list(homes), self.within(counts)]), self._device)

    def within(self, counts: Sequence[int]) -> list[int]:
        """Numbers of tokens that the tables can hold: a row may be taken one step too far before that is known."""
        return [min(count, self._most) for count in counts]

    def last(self, rows: Tensor) -> Tensor:
        """The token that each row said last, (rows,), to be fed to the decoder; any token for padding."""
        homes, counts = rows
        return self._said[homes, counts + 1].clamp(min=0)

    def choose(self, logits: Tensor, rows: Tensor, *, drawing: bool) -> Tensor:
        """Choose and note the next token of each row from logits (rows, n_vocab), which stay as they are.

        (2, rows) float32, which holds every token exactly: tokens, and their log-probabilities at temperature 1.
        `drawing`: whether any row is above temperature 0.
        """
        homes, counts = rows
        last_times = self._last_times[homes, counts]
        masked = self.masked(logits, rows)
        tokens = masked.argmax(-1)
        if drawing:
            settings = self._settings[homes]
            temperatures = settings[:, _TEMPERATURE]
            uniforms = settings.gather(1, _UNIFORMS + counts[:, None])
            drawn = draw(masked / temperatures.clamp(min=1e-4)[:, None], uniforms)
            tokens = torch.where(temperatures > 0, drawn, tokens)
        self._said[homes, counts + 2] = tokens
        self._last_times[homes, counts + 1] = torch.where(tokens >= self._begin, tokens, last_times)
        logprobs = masked.gather(1, tokens[:, None])[:, 0] - masked.logsumexp(-1)
        return torch.stack((tokens.float(), logprobs))

    def masked(self, logits: Tensor, rows: Tensor) -> Tensor:
        """A copy of logits (rows, n_vocab) in which what each row may not say next is -inf."""
        homes, counts = rows
        masked = logits.masked_fill(self._suppressed[homes], -torch.inf)
        before, last = self._said[homes, counts], self._said[homes, counts + 1]
        self._constrain(masked, before, last, self._last_times[homes, counts], self._settings[homes])
        return masked

    def _constrain(self, logits: Tensor, before: Tensor, last: Tensor, last_times: Tensor, settings: Tensor) -> None:
        """`model.search.rules.TimestampGrammar.limits` of all rows, applied in place."""
        timed, nothing, is_time = settings[:, _TIMED] > 0, last < 0, last >= self._begin
        closed = is_time & ((before < 0) | (before >= self._begin))
        opens_pair = is_time & ~closed
        text_from = torch.where(opens_pair, self._eot, 0)
        text_from = torch.where(nothing, self._begin, text_from) * timed
        time_from = torch.where(last_times < 0, self._begin, last_times + (~opens_pair).long())
        time_from = torch.where(closed, self._end, time_from)
        time_to = torch.where(nothing, settings[:, _FIRST_TO].long(), self._end)
        bounds = torch.stack((text_from, time_from, time_to), dim=1)
        self._rules.bound(logits, bounds, timed[:, None])


def draw(scaled: Tensor, uniforms: Tensor) -> Tensor:
    """A token (rows,) of each row's distribution, from logits (rows, n_vocab) and uniform numbers (rows, 1) below 1.

    Tokens at -inf are never drawn, however sums round: only a token that has a share can be the first beyond the mark.
    """
    shares = scaled.softmax(-1)
    sums = shares.cumsum(-1).masked_fill_(shares == 0, 0.0)
    total = sums.amax(-1, keepdim=True)
    marks = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return (sums > marks).to(torch.uint8).argmax(-1)

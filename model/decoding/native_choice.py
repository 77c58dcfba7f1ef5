"""Tokens that are chosen in C: `model.decoding.choice` beside the decoder of `model.native.inference`.

Rows at temperature 0, which is nearly all of them, take two readings of the logits instead of the dozen that torch
takes, and beams a third; those that draw, and those that are held against a shadow, go the way of the host.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.decoding.choice import HostChoice
from model.decoding.row import Row
from model.native.inference import NativeInference
from model.search.rules import Rules


class NativeChoice(HostChoice):
    """`HostChoice` whose greedy rows and beams are decided by `NativeInference.choose`."""

    def __init__(self, inference: NativeInference, rules: Rules, timestamp_begin: int) -> None:
        super().__init__(inference, rules, torch.device("cpu"))
        self._native, self._begin = inference, timestamp_begin

    def _choose(self, logits: Tensor, rows: Sequence[Row]) -> None:
        greedy = [i for i, row in enumerate(rows) if _is_plain(row)]
        if greedy:
            for row, (token,), (logprob,) in zip(*self._best(logits, rows, greedy, 1), strict=True):
                row.push(token, logprob)
        searched = [i for i, row in enumerate(rows) if row.decoding.beams is not None]
        if searched:
            self._extend_all(logits, rows, searched)
        if len(greedy) + len(searched) < len(rows):
            others = sorted(set(range(len(rows))) - {*greedy, *searched})
            super()._choose(logits[others], [rows[i] for i in others])

    def _extend_all(self, logits: Tensor, rows: Sequence[Row], searched: Sequence[int]) -> None:
        """One step of every beam search, of whose rows `searched` are the places in `rows`."""
        most = max(len(rows[i].decoding.rows) for i in searched) + 1
        beams = zip(*self._best(logits, rows, searched, most), strict=True)
        best = {row: (tokens, logprobs) for row, tokens, logprobs in beams}
        for decoding in dict.fromkeys(row.decoding for row in best):
            count = len(decoding.rows) + 1
            tokens = [best[row][0][:count] for row in decoding.rows]
            sums = [[row.sum_logprob + logprob for logprob in best[row][1][:count]] for row in decoding.rows]
            self._survive(decoding, tokens, sums)

    def _best(
        self, logits: Tensor, rows: Sequence[Row], chosen: Sequence[int], count: int
    ) -> tuple[list[Row], list[list[int]], list[list[float]]]:
        """The rows at these places, and the `count` best tokens of each with their log-probabilities."""
        asked = [rows[i] for i in chosen]
        own = logits if len(chosen) == len(rows) else logits[list(chosen)]
        return asked, *self._native.choose(own, [row.grammar.limits() for row in asked], self._begin, count)


def _is_plain(row: Row) -> bool:
    """Whether the most probable token of the row's own logits is what it says next."""
    decoding = row.decoding
    return decoding.beams is None and decoding.shadow is None and decoding.temperature == 0

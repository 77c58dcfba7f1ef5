"""Tokens that are chosen in C: `model.decoding.choice` beside the decoder of `model.native.inference`.

Rows at temperature 0 without beams, which is nearly all of them, take two readings of the logits instead of torch's
dozen; every other row goes the host's way.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.decoding.choice import HostChoice
from model.decoding.row import Row
from model.native.inference import NativeInference
from model.search.rules import Rules


class NativeChoice(HostChoice):
    """`HostChoice` whose greedy rows are decided by `NativeInference.choose`."""

    def __init__(self, inference: NativeInference, rules: Rules, timestamp_begin: int) -> None:
        super().__init__(inference, rules, torch.device("cpu"))
        self._native, self._begin = inference, timestamp_begin

    def _choose(self, logits: Tensor, rows: Sequence[Row]) -> None:
        greedy = [i for i, row in enumerate(rows) if _is_plain(row)]
        if greedy:
            chosen = [rows[i] for i in greedy]
            own = logits if len(chosen) == len(rows) else logits[greedy]
            answers = self._native.choose(own, [row.grammar.limits() for row in chosen], self._begin)
            for row, token, logprob in zip(chosen, *answers, strict=True):
                row.push(token, logprob)
        if len(greedy) < len(rows):
            others = sorted(set(range(len(rows))) - set(greedy))
            super()._choose(logits[others], [rows[i] for i in others])


def _is_plain(row: Row) -> bool:
    """Whether the most probable token of the row's own logits is what it says next."""
    decoding = row.decoding
    return decoding.beams is None and decoding.shadow is None and decoding.temperature == 0

"""Who chooses the rows' next tokens, and where: the seam between `model.decoding.batch` and the device.

`Choice` is the seam. `HostChoice` takes the logits of a step, masks them, and reads the tokens back before anything
else happens, beams' survivors chosen in Python: on a CPU, where reading costs nothing, and on a GPU with plain steps.
`model.decoding.device_choice` leaves all that on a GPU.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from model.decoding.contrast import contrast
from model.decoding.inference import Inference
from model.decoding.row import Decoding, Row
from model.search.rules import Rules
from model.search.sampling import sample


class Choice(Protocol):
    """Takes rows from token to token."""

    def begin(self, rows: Sequence[Row], logits: Tensor) -> None:
        """Rows begin, or begin again, with what their prompts lead to: (len(rows), n_vocab), suppressed already."""
        ...

    def step(self, rows: Sequence[Row]) -> None:
        """The rows 0 .. n-1 of the batch, all of them, go on; `Row.push` is called for every token that is known now.

        A row may have gone one step further than was known; what it said there is forgotten when it leaves.
        """
        ...

    def leave(self, row: Row) -> None:
        """A row has ended, or was dropped; nothing of it will be pushed any more."""
        ...


class HostChoice:
    """One step after the other: logits, masks, tokens, and the host knows them."""

    def __init__(self, inference: Inference, rules: Rules, device: torch.device) -> None:
        self._inference, self._rules, self._device = inference, rules, device

    def begin(self, rows: Sequence[Row], logits: Tensor) -> None:
        """See `Choice`."""
        for row in rows:
            if not row.is_shadow and row.seed is not None:
                row.generator = torch.Generator(self._device).manual_seed(row.seed)
        self._choose(logits, rows)

    def step(self, rows: Sequence[Row]) -> None:
        """See `Choice`."""
        self.choose(self.logits(rows), rows)

    def leave(self, row: Row) -> None:
        """See `Choice`; nothing is kept of a row here."""

    def logits(self, rows: Sequence[Row]) -> Tensor:
        """(rows, n_vocab) after feeding each row of the batch the token that it said last."""
        return self._inference.step(
            [row.tokens[-1] for row in rows],
            lengths=[row.length for row in rows],
            windows=[row.slot for row in rows],
        )

    def choose(self, logits: Tensor, rows: Sequence[Row]) -> None:
        """Choose from what a step gave, (len(rows), n_vocab), masking it in place."""
        self._rules.suppress(logits, [row.decoding.suppressed for row in rows])
        self._choose(logits, rows)

    def _choose(self, logits: Tensor, rows: Sequence[Row]) -> None:
        """Choose the next token of each row from its suppressed logits (rows, n_vocab); shadows follow."""
        silent = {row.decoding: logits[i] for i, row in enumerate(rows) if row.is_shadow}
        if silent:
            heard = [i for i, row in enumerate(rows) if not row.is_shadow]
            logits, rows = logits[heard], [rows[i] for i in heard]
        self._rules.constrain(logits, [row.grammar.limits() for row in rows])
        alone = [i for i, row in enumerate(rows) if row.decoding.beams is None]
        if alone:
            chosen = [rows[i] for i in alone]
            own = logits if len(alone) == len(rows) else logits[alone]
            temperatures = [row.decoding.temperature for row in chosen]
            scores = own
            if silent:
                pairs = zip(own, (silent.get(row.decoding) for row in chosen), strict=True)
                scores = torch.stack([one if other is None else contrast(one, other) for one, other in pairs])
            tokens, logprobs = sample(own, temperatures, [row.generator for row in chosen], scores)
            for row, token, logprob in zip(chosen, tokens, logprobs, strict=True):
                row.push(token, logprob)
        for decoding in dict.fromkeys(row.decoding for row in rows if row.decoding.beams):
            self._extend(decoding, logits[[rows.index(row) for row in decoding.rows]])

    def _extend(self, decoding: Decoding, logits: Tensor) -> None:
        """One step of beam search for one window, from the masked logits (beams, n_vocab) of its rows."""
        best = logits.log_softmax(-1).topk(len(decoding.rows) + 1)
        sums = torch.tensor([[row.sum_logprob] for row in decoding.rows], device=logits.device) + best.values
        self._survive(decoding, best.indices.tolist(), sums.tolist())

    def _survive(self, decoding: Decoding, tokens: Sequence[Sequence[int]], sums: Sequence[Sequence[float]]) -> None:
        """The beams of a window go on, by the best tokens of each, one more than they are: see `BeamSearch.extend`."""
        rows, beams = decoding.rows, decoding.beams
        if beams is None:
            raise ValueError("the window has no beams")
        extensions = beams.extend([row.tokens for row in rows], tokens, sums)
        pairs = [(rows[e.source], row) for e, row in zip(extensions, rows, strict=True)]
        if moved := [(source, target) for source, target in pairs if source is not target]:
            alike = decoding.n_prompt + min(_in_common(source.tokens, target.tokens) for source, target in moved)
            sources, targets = ([row.index for row in side] for side in zip(*moved, strict=True))
            self._inference.copy_rows(sources, targets, rows[0].length + 1, start=alike)
        decoding.adopt(extensions)


def _in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts of one length begin with alike."""
    return next((i for i, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]), len(one))

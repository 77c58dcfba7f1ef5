"""What a decode step in a fixed shape is to whoever captures it: its attention, its numbers and its choice of tokens.

Captured by `model.gpu.graphs`; `FixedStepView` there and `model.gpu.split_step` are the two kinds, which differ in
attention. The rest is torch's operators here, for all but `model.gpu.fused_step`.
"""

from typing import Protocol

from torch import Tensor

from model.network.blocks import Attention
from model.network.whisper import TextDecoder
from model.search.selection import Selection


class FixedView(Attention, Protocol):
    """A step's attention in a fixed shape, and what it does with it."""

    tokens: Tensor
    positions: Tensor

    def hidden_states(self, decoder: TextDecoder, tokens: Tensor) -> Tensor:
        """(rows, n_state) after these tokens (rows,), each at its position."""
        return decoder(tokens, self.positions, self)  # type: ignore[no-any-return]

    def choose(self, selection: Selection, logits: Tensor, rows: Tensor, *, drawing: bool) -> Tensor:
        """See `Selection.choose`."""
        return selection.choose(logits, rows, drawing=drawing)

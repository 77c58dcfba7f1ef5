"""A decode step in a fixed shape in which next to nothing is left to torch's operators: few rows, and a greedy choice.

`model.gpu.graphs` captures it in the place of `SplitStepView` where the check at the start believed it
(`model.decoding.step_check`).
"""

from torch import Tensor

from model.gpu import few_rows, greedy_choice
from model.gpu.split_step import SplitStepView
from model.network.whisper import TextDecoder
from model.search.selection import Selection


class FusedStepView(SplitStepView):
    """`SplitStepView` with kernels of ours around products of few rows, and for a choice without draws."""

    def hidden_states(self, decoder: TextDecoder, tokens: Tensor) -> Tensor:
        """See `model.gpu.fixed_view.FixedView`."""
        if few_rows.takes(decoder, len(tokens)):
            return few_rows.hidden_states(decoder, tokens, self.positions, self)
        return super().hidden_states(decoder, tokens)

    def choose(self, selection: Selection, logits: Tensor, rows: Tensor, *, drawing: bool) -> Tensor:
        """See `model.gpu.fixed_view.FixedView`."""
        if drawing:
            return super().choose(selection, logits, rows, drawing=True)
        return greedy_choice.choose(selection, logits, rows)

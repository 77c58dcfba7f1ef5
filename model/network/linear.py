"""Projections of few rows on a CPU: the layouts in which a decode step is fast.

A step multiplies one to some dozen rows by every weight of the decoder. MKL's product, which `nn.Linear` calls, is made
for many rows; oneDNN's on weights that were packed once is up to four times as fast from two rows on
(benchmarks/LOG.md). A single row stays with the matrix-vector product. Used by `model.network.whisper` for float32 on a
CPU; other devices and formats keep `nn.Linear`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HINT_ROWS = 8
"""Rows for which the packing is laid out; others work as well."""


def can_pack(weight: Tensor) -> bool:
    """Whether this weight's device and format have the packed product."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class PackedLinear(nn.Linear):
    """An `nn.Linear` with a second, packed copy of its weight; (n, in_features) -> (n, out_features)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Shares `weight` (out_features, in_features) and `bias`; `can_pack(weight)` must hold."""
        super().__init__(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            self.bias = nn.Parameter(bias, requires_grad=False)
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _HINT_ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """The product by the layout that suits the number of rows."""
        if x.shape[0] == 1:
            return F.linear(x, self.weight, self.bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return product


def by_columns(weight: Tensor) -> Tensor:
    """The same matrix (rows, columns), laid out column by column: its product with one row reads ahead better."""
    return weight.t().contiguous().t()

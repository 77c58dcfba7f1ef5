"""Passes over rows in C: all that stands between two int8 products of an encoder's block, `rowwise.c`.

torch's operators read and write a whole window's activations once each, five of them between two products; here it is
once for all. A row's result is the same bits whatever the rows beside it, with any number of threads.
"""

import ctypes
from ctypes import c_int32, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.native.rowwise import PANEL
from model.native.workspace import Workspace


class _RowPass(ctypes.Structure):
    """`RowPass` of rowwise.c."""

    _fields_ = (
        ("n", c_int32),
        ("width", c_int32),
        *((name, c_void_p) for name in ("values", "in_scales", "bias")),
        ("gelu", c_int32),
        *((name, c_void_p) for name in ("residual", "out", "norm_weight", "norm_bias", "rounded", "scales")),
    )


@dataclass(frozen=True, slots=True)
class Product:
    """Of `Int8Linear.product`: (n, width), and what makes it the layer's result."""

    values: Tensor
    scales: Tensor
    """(n, 1), of the rows that were multiplied."""
    bias: Tensor
    """(width,)."""


class RowPasses:
    """One for all blocks of an encoder, which take turns. Every tensor is float32 and contiguous, and rows are a
    multiple of 16 wide; `ValueError` otherwise."""

    def __init__(self, library: ctypes.CDLL, width: int) -> None:
        """Of rows that are at most `width` wide."""
        self._library, self._width = library, width
        self._workspace = Workspace(library, "rows", width)

    def finish(self, product: Product) -> Tensor:
        """The layer's result (n, width), in the product's memory."""
        self._run(product, out=product.values)
        return product.values

    def add(self, product: Product, residual: Tensor) -> None:
        """Add the layer's result to `residual`."""
        self._run(product, residual=residual)

    def add_and_norm(self, product: Product, residual: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
        """`add`; then the norm of the sum, rounded: see `round_rows`."""
        return self._run(product, residual=residual, norm=norm, rounded=True)

    def gelu(self, product: Product) -> tuple[Tensor, Tensor]:
        """GELU of the layer's result, rounded: see `round_rows`."""
        return self._run(product, gelu=True, rounded=True)

    def round_rows(self, x: Tensor, norm: nn.LayerNorm | None = None) -> tuple[Tensor, Tensor]:
        """`model.native.rowwise.quantise_rows` of (n, width), after a norm if there is one."""
        return self._run(x, norm=norm, rounded=True)

    def _run(
        self,
        rows: Tensor | Product,
        *,
        gelu: bool = False,
        residual: Tensor | None = None,
        out: Tensor | None = None,
        norm: nn.LayerNorm | None = None,
        rounded: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Rounded rows and their scales, of no rows where `rounded` is not asked for."""
        values, scales, bias = (
            (rows.values, rows.scales, rows.bias) if isinstance(rows, Product) else (rows, None, None)
        )
        n, width = values.shape
        if width % PANEL or width > self._width:
            raise ValueError(f"rows of {width} are not a multiple of {PANEL}, or above {self._width}")
        _check("rows", values, n * width)
        _check("scales", scales, n)
        _check("bias", bias, width)
        _check("residual", residual, n * width)
        weight, norm_bias = (norm.weight, norm.bias) if norm else (None, None)
        _check("norm", weight, width)
        _check("norm", norm_bias, width)
        new = torch.empty(n if rounded else 0, width, dtype=torch.uint8)
        new_scales = torch.empty(len(new), 1)
        pointers = [None if tensor is None else tensor.data_ptr() for tensor in (values, scales, bias)]
        more = [None if tensor is None else tensor.data_ptr() for tensor in (residual, out, weight, norm_bias)]
        last = [new.data_ptr(), new_scales.data_ptr()] if rounded else [None, None]
        with self._workspace.taken() as handle:
            self._library.rows_run(handle, ctypes.byref(_RowPass(n, width, *pointers, gelu, *more, *last)))
        return new, new_scales


def _check(what: str, tensor: Tensor | None, size: int) -> None:
    if tensor is None:
        return
    if tensor.dtype != torch.float32 or tensor.numel() != size or not tensor.is_contiguous():
        raise ValueError(f"{what} {tuple(tensor.shape)} of {tensor.dtype} are not {size} float32 side by side")

"""Passes over rows in C beside the operators of torch that they stand for."""

import ctypes

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.native.row_passes import Product, RowPasses
from model.native.rowwise import quantise_rows

WIDTH = 80


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _product(n: int) -> tuple[Product, Tensor]:
    """A product of n rows, and the result of the layer."""
    values, scales, bias = _random(n, WIDTH) * 30, _random(n, 1, seed=1).abs(), _random(WIDTH, seed=2)
    return Product(values, scales, bias), values * scales + bias


def _norm() -> nn.LayerNorm:
    norm = nn.LayerNorm(WIDTH).requires_grad_(False)
    norm.weight.copy_(_random(WIDTH, seed=3))
    norm.bias.copy_(_random(WIDTH, seed=4))
    return norm


def _assert_rounded(got: tuple[Tensor, Tensor], wanted: Tensor) -> None:
    rows, scales = quantise_rows(wanted, None)
    torch.testing.assert_close(got[1], scales, rtol=1e-5, atol=0)
    assert (got[0].int() - rows.int()).abs().max() <= 1  # where the last bit of a float decides
    assert (got[0] != rows).float().mean() < 0.01


@pytest.fixture
def passes(library: ctypes.CDLL) -> RowPasses:
    return RowPasses(library, WIDTH)


@pytest.mark.parametrize("n", [1, 15, 16, 100])
def test_each_pass_is_what_torch_does_one_after_the_other(passes: RowPasses, n: int) -> None:
    product, result = _product(n)
    residual, norm = _random(n, WIDTH, seed=5), _norm()
    _assert_rounded(passes.gelu(product), F.gelu(result))
    _assert_rounded(passes.round_rows(residual), residual)
    _assert_rounded(passes.round_rows(residual, norm), norm(residual))
    added = residual.clone()
    passes.add(product, added)
    torch.testing.assert_close(added, residual + result)
    again = residual.clone()
    _assert_rounded(passes.add_and_norm(product, again, norm), norm(residual + result))
    assert torch.equal(again, added)
    finished = passes.finish(product)
    torch.testing.assert_close(finished, result)
    assert finished.data_ptr() == product.values.data_ptr()


def test_a_row_is_the_same_bits_beside_any_others_with_any_number_of_threads(library: ctypes.CDLL) -> None:
    product, _ = _product(70)
    residual, norm = _random(70, WIDTH, seed=5), _norm()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = RowPasses(library, WIDTH)
        wanted = [
            alone.add_and_norm(Product(*(part[i : i + 1] for part in (product.values, product.scales)), product.bias),
                               residual[i : i + 1].clone(), norm)
            for i in range(70)
        ]  # fmt: skip
        torch.set_num_threads(3)
        rows, scales = RowPasses(library, WIDTH).add_and_norm(product, residual.clone(), norm)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(rows, torch.cat([row for row, _ in wanted]))
    assert torch.equal(scales, torch.cat([scale for _, scale in wanted]))


def test_zeros_are_rounded_to_zeros(passes: RowPasses) -> None:
    rows, scales = passes.round_rows(torch.zeros(3, WIDTH))
    assert torch.equal(rows, torch.full_like(rows, 128))
    assert torch.equal(scales, torch.zeros(3, 1))


@pytest.mark.parametrize(
    "rows",
    [
        torch.zeros(2, WIDTH + 8),
        torch.zeros(2, 2 * WIDTH),
        torch.zeros(2, WIDTH, dtype=torch.float64),
        torch.zeros(WIDTH, 2).T,
    ],
)
def test_rows_that_it_would_misread_are_refused(passes: RowPasses, rows: Tensor) -> None:
    with pytest.raises(ValueError, match="rows"):
        passes.round_rows(rows)


def test_a_residual_of_another_size_is_refused(passes: RowPasses) -> None:
    product, _ = _product(3)
    with pytest.raises(ValueError, match="residual"):
        passes.add(product, torch.zeros(2, WIDTH))

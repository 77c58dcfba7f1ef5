import ctypes

import pytest
import torch
from torch import nn

from model.compute import can_multiply_int8, has_vnni
from model.native.rowwise import Int8Linear, quantise_rows, quantise_weight

TOP = 127 if has_vnni() else 64
needs_int8 = pytest.mark.skipif(not can_multiply_int8(), reason="torch has no fast int8 product on this CPU")


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@needs_int8
@pytest.mark.parametrize("rows", [1, 7, 1500])
@torch.inference_mode()
def test_the_largest_numbers_of_either_sign_multiply_exactly(rows: int) -> None:
    linear = nn.Linear(512, 64, bias=True)
    signs = torch.randint(0, 2, (64, 512), generator=torch.Generator().manual_seed(1)) * 2 - 1
    signs[0], signs[1] = 1, -1
    linear.weight.data.copy_(signs * float(TOP))
    linear.bias.data.zero_()
    int8 = Int8Linear(linear, TOP)
    x = torch.randint(0, 2, (rows, 512), generator=torch.Generator().manual_seed(2), dtype=torch.int32) * 255
    x[0] = 255
    got = int8.product(x.to(torch.uint8))
    wanted = (x - 128).double() @ signs.double().T * TOP
    assert torch.equal(got.double(), wanted)


@needs_int8
@torch.inference_mode()
def test_a_row_is_the_same_bits_whatever_is_beside_it(library: ctypes.CDLL) -> None:
    linear = Int8Linear(nn.Linear(64, 48), TOP, library)
    x = _random(9, 64) * torch.logspace(-4, 4, 9)[:, None]
    x[4] = 0
    together = linear(x)
    assert torch.equal(together, torch.cat([linear(row[None]) for row in x]))
    assert torch.equal(together[4], linear.bias)


@needs_int8
@torch.inference_mode()
def test_the_product_is_near_float32s(library: ctypes.CDLL) -> None:
    linear = nn.Linear(512, 128)
    x = _random(2, 50, 512)
    got, wanted = Int8Linear(linear, TOP, library)(x), linear(x)
    assert got.shape == wanted.shape
    assert (got - wanted).norm() < 0.02 * wanted.norm()


def test_rows_in_c_are_rows_in_torch(library: ctypes.CDLL) -> None:
    x = _random(33, 80) * torch.logspace(-3, 3, 33)[:, None]
    x[7] = 0
    ours, our_scale = quantise_rows(x, library)
    theirs, their_scale = quantise_rows(x, None)
    torch.testing.assert_close(our_scale, their_scale)
    assert (ours.int() - theirs.int()).abs().max() <= 1  # a number halfway between two
    assert (ours != theirs).float().mean() < 0.01
    assert ((ours.float() - 128) * our_scale - x).abs().le(our_scale * 0.51).all()
    assert (ours[7] == 128).all()


def test_a_weight_keeps_its_largest_magnitude() -> None:
    weight = _random(5, 16)
    weight[3] = 0
    for top in (64, 127):
        quantised, scale = quantise_weight(weight, top)
        assert quantised.int().abs().amax(1).tolist() == [top, top, top, 0, top]
        assert ((quantised * scale[:, None]) - weight).abs().le(scale[:, None] * 0.5001).all()

import pytest
import torch
import torch.nn.functional as F

from model.network.linear import PackedLinear, by_columns, can_pack


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 33, 228])
@pytest.mark.parametrize("biased", [True, False])
@torch.inference_mode()
def test_the_packed_product_is_the_product(rows: int, biased: bool) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight, bias = torch.randn(96, 64, generator=generator), torch.randn(96, generator=generator)
    x = torch.randn(rows, 64, generator=generator)
    for layout in (weight, by_columns(weight)):
        linear = PackedLinear(layout, bias if biased else None)
        wanted = F.linear(x.double(), weight.double(), bias.double() if biased else None).float()
        torch.testing.assert_close(linear(x), wanted, atol=1e-5, rtol=1e-5)


def test_other_formats_are_left_alone() -> None:
    assert can_pack(torch.zeros(2, 2))
    assert not can_pack(torch.zeros(2, 2, dtype=torch.bfloat16))
    assert not can_pack(torch.zeros(2, 2, device="meta"))

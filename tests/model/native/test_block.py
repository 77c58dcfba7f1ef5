"""A block of the encoder between whose products C works, beside the same block in torch."""

import ctypes

import pytest
import torch

from model.compute import can_multiply_int8, has_vnni
from model.native.block import NativeEncoderBlock
from model.native.row_passes import RowPasses
from model.native.rowwise import Int8Linear
from model.network.blocks import EncoderBlock

N_STATE = 64

pytestmark = pytest.mark.skipif(not can_multiply_int8(), reason="torch has no fast int8 product on this CPU")


def _block() -> EncoderBlock:
    torch.manual_seed(0)
    block = EncoderBlock(N_STATE, 2).requires_grad_(False)
    top = 127 if has_vnni() else 64
    block.attn_qkv, block.attn_out = Int8Linear(block.attn_qkv, top), Int8Linear(block.attn_out, top)
    block.mlp[0], block.mlp[2] = Int8Linear(block.mlp[0], top), Int8Linear(block.mlp[2], top)
    return block


@torch.inference_mode()
def test_it_gives_what_the_block_in_torch_gives(library: ctypes.CDLL) -> None:
    block = _block()
    native = NativeEncoderBlock(block, RowPasses(library, 4 * N_STATE))
    x = torch.randn(2, 50, N_STATE, generator=torch.Generator().manual_seed(1))
    wanted, given = block(x.clone()), x.clone()
    got = native(given)
    assert got.data_ptr() == given.data_ptr()
    assert (got - wanted).norm() < 2e-3 * wanted.norm()


@torch.inference_mode()
def test_queries_of_some_positions_see_the_keys_of_all(library: ctypes.CDLL) -> None:
    block = _block()
    native = NativeEncoderBlock(block, RowPasses(library, 4 * N_STATE))
    x = torch.randn(1, 50, N_STATE, generator=torch.Generator().manual_seed(1))
    query, keys_values = native.project(x)
    whole = native.attend(x.clone(), query, keys_values)
    part = native.attend(x[:, :20].clone(), query[:, :20], keys_values)
    assert torch.equal(part, whole[:, :20])

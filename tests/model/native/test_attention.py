"""The encoder's attention in C beside attention in float64."""

import ctypes
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.native.attention import NativeAttention
from model.network.blocks import attend_in_torch

FORKED = """
import os, sys
from pathlib import Path
import torch
from model.native.attention import NativeAttention
from model.native.library import load_library
torch.set_num_threads(3)
attention = NativeAttention(load_library(Path(sys.argv[1]), "DEFAULT"), n_state=128, n_head=2, n_ctx=40)
query, keys_values = torch.ones(1, 7, 128), torch.ones(1, 40, 256)
wanted = attention(query, keys_values, 2)
child = os.fork()
if child == 0:
    same = torch.equal(attention(query, keys_values, 2), wanted)
    del attention
    os._exit(0 if same else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""A process that has attended forks one that attends and closes what it attends with; its status is the other one's."""

N_HEAD = 3
N_STATE = 64 * N_HEAD
N_CTX = 300


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def precision(library: ctypes.CDLL) -> float:
    """What the rounding may change: 0.1 % in whole numbers of 16 bits, several times that in bfloat16."""
    return 5e-3 if library._name.endswith("decoder-amx.so") else 1e-3


@pytest.fixture
def attend(library: ctypes.CDLL) -> Callable[[Tensor, Tensor], Tensor]:
    attention = NativeAttention(library, n_state=N_STATE, n_head=N_HEAD, n_ctx=N_CTX)
    return lambda query, keys_values: attention(query, keys_values, N_HEAD)


def _wanted(query: Tensor, keys_values: Tensor) -> Tensor:
    return attend_in_torch(query.double(), keys_values.double(), N_HEAD)


def _error(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


Attend = Callable[[Tensor, Tensor], Tensor]


@pytest.mark.parametrize(("n_query", "n_kv"), [(1, 1), (1, 300), (7, 2), (96, 128), (97, 129), (200, 300), (300, 17)])
def test_any_number_of_queries_and_keys_is_near_float64(
    attend: Attend, precision: float, n_query: int, n_kv: int
) -> None:
    query, keys_values = _random(2, n_query, N_STATE), _random(2, n_kv, 2 * N_STATE, seed=1)
    got = attend(query, keys_values)
    assert got.shape == query.shape
    assert _error(got, _wanted(query, keys_values)) < precision


def test_rows_may_be_apart_as_the_projection_leaves_them(attend: Attend) -> None:
    query, keys_values = _random(2, 150, 3 * N_STATE).split([N_STATE, 2 * N_STATE], dim=-1)
    assert not query.is_contiguous()
    assert torch.equal(attend(query, keys_values), attend(query.contiguous(), keys_values.contiguous()))
    by_columns = query.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(attend(by_columns, keys_values), attend(query, keys_values))


def test_a_query_is_the_same_bits_whatever_is_beside_it_with_any_number_of_threads(library: ctypes.CDLL) -> None:
    query, keys_values = _random(3, 205, N_STATE), _random(3, N_CTX, 2 * N_STATE, seed=1)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            attention = NativeAttention(library, n_state=N_STATE, n_head=N_HEAD, n_ctx=N_CTX)
            results.append(attention(query, keys_values, N_HEAD))
            alone = attention(query[1:2, 100:101], keys_values[1:2], N_HEAD)
            results.append(attention(query[:, :100], keys_values, N_HEAD))
            assert torch.equal(alone[0, 0], results[0][1, 100])
            assert torch.equal(results[-1], results[0][:, :100])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[2])


def test_a_forked_process_has_no_threads_and_waits_for_none(compiled: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(compiled)]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0


def test_a_call_leaves_nothing_to_the_next(attend: Attend) -> None:
    query, keys_values = _random(1, 9, N_STATE), _random(1, 33, 2 * N_STATE, seed=1)
    wanted = attend(query, keys_values)
    attend(query, _random(1, N_CTX, 2 * N_STATE, seed=2) * 1e6)
    assert torch.equal(attend(query, keys_values), wanted)


def test_a_sharp_peak_leaves_the_long_tail_its_weight(attend: Attend) -> None:
    # One key outweighs each of the others by 10 000: in 13 bits of its weight those beyond its block would be lost.
    keys_values = torch.zeros(1, 256, 2 * N_STATE)
    keys_values[:, 0, :N_STATE] = math.log(10_000)
    keys_values[:, 1:, N_STATE:] = 1.0
    query = torch.full((1, 4, N_STATE), 1 / 8)
    tail = 255 / 10_255
    got = attend(query, keys_values)
    # Of the 127 that share the peak's block a weight of 0.8 is rounded to 1; the rest are exact among themselves.
    torch.testing.assert_close(got, torch.full_like(got, tail), rtol=0.15, atol=0)


def test_equal_scores_give_the_mean(attend: Attend) -> None:
    query, keys_values = _random(1, 5, N_STATE), _random(1, N_CTX, 2 * N_STATE)
    keys_values[..., :N_STATE] = keys_values[:, :1, :N_STATE]
    got = attend(query, keys_values)
    wanted = keys_values[..., N_STATE:].mean(1, keepdim=True).expand_as(got)
    assert (got - wanted).abs().max() < 0.5 / 2047 * 5  # of values as large as five


@pytest.mark.parametrize("extreme", [-1.0, 1.0])
def test_the_largest_sums_do_not_overflow(attend: Attend, extreme: float) -> None:
    keys_values = torch.full((1, 256, 2 * N_STATE), extreme)
    got = attend(torch.full((1, 6, N_STATE), 1e3), keys_values)
    torch.testing.assert_close(got, torch.full_like(got, extreme))


def test_vectors_of_a_single_channel_do_not_overflow(attend: Attend, precision: float) -> None:
    query, keys_values = torch.zeros(1, 2, N_STATE), _random(1, 40, 2 * N_STATE)
    keys_values[..., :N_STATE] = 0.0
    query[..., ::64] = torch.tensor([3.0, -3.0])[:, None]
    keys_values[..., :N_STATE:64] = torch.linspace(-7, 7, 40)[:, None]
    assert _error(attend(query, keys_values), _wanted(query, keys_values)) < precision


def test_large_scores_choose_the_key_that_float64_chooses(attend: Attend, precision: float) -> None:
    query, keys_values = _random(1, 20, N_STATE) * 300, _random(1, N_CTX, 2 * N_STATE, seed=1)
    # Of two keys that score alike to within the rounding either may be chosen.
    assert _error(attend(query, keys_values), _wanted(query, keys_values)) < 20 * precision


@pytest.mark.parametrize("tiny", [0.0, -0.0, 1e-44, -1e-30, 1e-18])
def test_nothing_is_made_of_zeros_and_numbers_next_to_them(attend: Attend, tiny: float) -> None:
    zeros = torch.full((1, 30, N_STATE), tiny)
    keys, values = _random(1, 50, N_STATE), _random(1, 50, N_STATE, seed=1)
    mean = values.mean(1, keepdim=True)
    got = attend(zeros, torch.cat([keys, values], -1))
    torch.testing.assert_close(got, mean.expand_as(got), rtol=0, atol=2e-3)
    got = attend(keys, torch.cat([torch.full_like(keys, tiny), values], -1))
    torch.testing.assert_close(got, mean.expand_as(got), rtol=0, atol=2e-3)
    got = attend(keys, torch.cat([keys, torch.full_like(values, tiny)], -1))
    torch.testing.assert_close(got, torch.zeros_like(got), rtol=0, atol=2e-15)


def test_a_query_that_is_no_number_gives_none_and_spoils_no_other(attend: Attend) -> None:
    query, keys_values = _random(1, 8, N_STATE), _random(1, 200, 2 * N_STATE, seed=1)
    wanted = attend(query, keys_values)
    query[0, 3, 5] = math.nan
    got = attend(query, keys_values)
    assert got[0, 3, :64].isnan().all()
    got[0, 3, :64] = wanted[0, 3, :64]
    assert torch.equal(got, wanted)
    keys_values[0, 7, 64] = math.nan
    assert torch.equal(attend(query, keys_values)[..., 64:128].isnan(), torch.ones(1, 8, 64, dtype=torch.bool))


@pytest.mark.parametrize(
    ("query", "keys_values"),
    [
        (torch.zeros(1, 4, N_STATE), torch.zeros(1, N_CTX + 1, 2 * N_STATE)),
        (torch.zeros(1, 4, N_STATE), torch.zeros(1, 0, 2 * N_STATE)),
        (torch.zeros(1, 0, N_STATE), torch.zeros(1, 4, 2 * N_STATE)),
        (torch.zeros(1, 4, N_STATE), torch.zeros(2, 4, 2 * N_STATE)),
        (torch.zeros(1, 4, N_STATE), torch.zeros(1, 4, N_STATE)),
        (torch.zeros(1, 4, N_STATE + 64), torch.zeros(1, 4, 2 * N_STATE + 128)),
        (torch.zeros(1, 4, N_STATE).double(), torch.zeros(1, 4, 2 * N_STATE).double()),
    ],
)
def test_what_would_read_or_write_elsewhere_is_refused(attend: Attend, query: Tensor, keys_values: Tensor) -> None:
    with pytest.raises(ValueError, match=r"queries.* keys"):
        attend(query, keys_values)


def test_heads_of_another_size_are_refused(library: ctypes.CDLL) -> None:
    with pytest.raises(ValueError, match="not of 64 channels"):
        NativeAttention(library, n_state=96, n_head=2, n_ctx=4)

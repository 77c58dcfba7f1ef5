"""Words in time in C beside the same in torch and numpy."""

import ctypes
import math

import pytest
import torch
from torch import Tensor

from model.decoding.alignment import attention_map, first_frames
from model.native.alignment import find_frames

N_CTX = 400


def _scores(n_heads: int, n_tokens: int, n_frames: int, seed: int) -> Tensor:
    """Heads that look along a diagonal, more or less."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n_heads, n_tokens, N_CTX, generator=generator) * 2
    away = torch.arange(n_tokens)[:, None] / n_tokens - torch.arange(N_CTX) / n_frames
    return noise - (away * 12) ** 2


def _wanted(scores: Tensor, n_frames: int, first: int, n_text: int) -> list[int]:
    cost = -attention_map(scores[:, :, :n_frames].softmax(-1))[first : first + n_text]
    return first_frames(cost.double().numpy()).tolist()


@pytest.mark.parametrize(
    ("n_heads", "n_tokens", "n_frames", "first", "n_text"),
    [(1, 1, 1, 0, 1), (2, 5, 3, 1, 3), (3, 9, 4, 2, 6), (6, 30, 400, 4, 25), (8, 100, 301, 3, 96), (2, 60, 20, 3, 50)],
)
def test_the_frames_are_those_of_torch_and_numpy(
    library: ctypes.CDLL, n_heads: int, n_tokens: int, n_frames: int, first: int, n_text: int
) -> None:
    for seed in range(4):
        scores = _scores(n_heads, n_tokens, n_frames, seed)
        got = find_frames(library, scores, n_frames=n_frames, first=first, n_text=n_text)
        assert got.tolist() == _wanted(scores, n_frames, first, n_text)
        assert (got[1:] >= got[:-1]).all()
        assert got[0] == 0


def test_frames_at_which_all_tokens_look_alike_say_nothing(library: ctypes.CDLL) -> None:
    scores = _scores(3, 20, 60, 0)
    scores[:, :, 50:60] = -math.inf
    scores[1] = 0.0
    got = find_frames(library, scores, n_frames=60, first=2, n_text=15)
    assert got.tolist() == _wanted(scores, 60, 2, 15)


@pytest.mark.parametrize(("n_frames", "first", "n_text"), [(0, 0, 1), (401, 0, 1), (9, -1, 2), (9, 3, 3), (9, 0, 0)])
def test_what_is_not_in_the_scores_is_refused(library: ctypes.CDLL, n_frames: int, first: int, n_text: int) -> None:
    with pytest.raises(ValueError, match="are not in"):
        find_frames(library, torch.zeros(1, 5, N_CTX), n_frames=n_frames, first=first, n_text=n_text)

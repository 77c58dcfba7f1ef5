"""`model.decoding.alignment.first_frames` of the scores of all heads, in C: a tenth of the time of torch and numpy."""

import ctypes

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def find_frames(library: ctypes.CDLL, scores: Tensor, *, n_frames: int, first: int, n_text: int) -> NDArray[np.int32]:
    """Scores (n_heads, n_tokens, n_ctx) float32, of which the first `n_frames` count -> the frame at which the cheapest
    monotonic path comes to each of `n_text` tokens from `first` on: (n_text,).

    `MemoryError` if memory is short, `ValueError` for frames or tokens that are not there.
    """
    n_heads, n_tokens, n_ctx = scores.shape
    if not (0 < n_frames <= n_ctx and first >= 0 and 0 < n_text <= n_tokens - first and n_heads):
        raise ValueError(f"{n_text} tokens from {first} on and {n_frames} frames are not in {tuple(scores.shape)}")
    if scores.dtype != torch.float32:
        raise ValueError(f"scores are {scores.dtype}, not float32")
    scores, frames = scores.contiguous(), np.empty(n_text, np.int32)
    if not library.alignment_find(
        n_heads, n_tokens, n_ctx, scores.data_ptr(), n_frames, first, n_text, frames.ctypes.data
    ):
        raise MemoryError("no memory for the alignment of words")
    return frames

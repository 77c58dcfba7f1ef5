"""What a caller of the library brings as audio, as samples.

Gets a file or samples from `model.transcriber`; a file goes through `model.audio`, samples are taken as they are, where
they can be heard at all. Everything else is refused here, in words.
"""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import InvalidAudioError

Audio = str | Path | bytes | BinaryIO | NDArray[np.float32] | NDArray[np.int16] | Tensor
"""A file, its bytes, or 16 kHz mono samples (float in [-1, 1], or int16)."""

_LOUDEST = 1e6
"""Magnitude up to which a spectrum can be squared; int16 samples that somebody only made float are far below."""


def read_samples(audio: Audio) -> Tensor:
    """Samples (n,) at 16 kHz, float32 or int16, where the caller has them; `AudioError` where there are none of use."""
    if isinstance(audio, np.ndarray | Tensor):
        samples = _given(audio)
    elif audio is None or isinstance(audio, list | tuple):
        kind = type(audio).__name__
        raise InvalidAudioError(f"audio must be a file, or samples in an array or a tensor, not {kind}")
    else:
        from model.audio import decode_audio  # codecs, which who brings samples may lack

        samples = torch.from_numpy(decode_audio(audio).samples)
    if samples.ndim != 1 or len(samples) == 0:
        raise InvalidAudioError("audio must be one channel of at least one sample")
    if samples.dtype != torch.int16:
        samples = samples.float()
        if not bool((samples.abs() <= _LOUDEST).all()):
            raise InvalidAudioError("audio has samples that are no numbers, or far outside -1 to 1")
    return samples


def _given(audio: NDArray[Any] | Tensor) -> Tensor:
    """Samples of the caller's as torch can use them; whole numbers of other widths have scales that nothing says."""
    if isinstance(audio, Tensor):
        if audio.is_floating_point() or audio.dtype == torch.int16:
            return audio.detach()
    elif audio.dtype.kind == "f" or audio.dtype.newbyteorder("=") == np.int16:
        kind = np.float32 if audio.dtype.kind == "f" else np.int16
        with np.errstate(over="ignore"):  # infinite then, and refused as that
            # Copied only where it must be: of another byte order, read backwards, or read-only.
            return torch.from_numpy(np.require(audio, kind, ["C", "W"]))
    raise InvalidAudioError(f"samples must be floating-point within -1 to 1, or int16, not {audio.dtype}")

"""The one waveform that both systems get: what our own decoder makes of a file, as float32."""

from pathlib import Path

import numpy as np

from benchmarks.accuracy.systems import Samples
from model.audio import decode_audio


def read_waveform(path: Path) -> Samples:
    """(n,) float32 at 16 kHz; int16 is scaled as the model scales it. Raises `model.errors.AudioError`."""
    samples = decode_audio(path).samples
    if samples.dtype == np.int16:
        return np.asarray(samples, np.float32) / np.float32(32768)
    return np.ascontiguousarray(samples, np.float32)

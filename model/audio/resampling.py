"""Blocks of a reader at any rate to one waveform at the model's: what is kept meanwhile, and how much of it.

Gets checked blocks and a downmix from `model.audio.decode`; soxr converts the rate at its very high quality. Blocks of
several channels wait here until the statistics of the whole file say how to join them.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import soxr

from model.audio.containers import Container
from model.audio.downmix import ChannelStatistics, Downmix
from model.audio.readers import Block, UnreadableError
from model.dims import SAMPLE_RATE

_KEEP_BYTES = 64 * 1024 * 1024
"""Decoded blocks up to this size are kept between the two passes of a downmix, as they are."""
_KEEP_NARROW_BYTES = 512 * 1024 * 1024
"""Larger ones at no more than the model's rate, up to this size (an hour of stereo or more); longer ones come twice."""

Floats = npt.NDArray[np.float32]
Scalar = TypeVar("Scalar", np.int16, np.float32)


def analysed(blocks: Iterable[Block], statistics: ChannelStatistics, rate: int) -> tuple[list[Block], int] | None:
    """Feed all blocks to the statistics; they come back with their rate, at most the model's if they are large."""
    kept: list[Block] = []
    size = 0
    rest = _counted(blocks, statistics)
    for block in rest:
        kept.append(block)
        size += block.nbytes
        if size > _KEEP_BYTES:
            return _narrowed(rest, kept, rate)
    return kept, rate


def _counted(blocks: Iterable[Block], statistics: ChannelStatistics) -> Iterator[Block]:
    for block in blocks:
        statistics.add(block)
        yield block


def _narrowed(rest: Iterator[Block], first: list[Block], rate: int) -> tuple[list[Block], int] | None:
    """The first blocks and the rest, at no more than the model's rate; None where that is too much, but all is read."""
    blocks: Iterable[Block] = chain(first, rest)
    if rate > SAMPLE_RATE:
        blocks = _at_model_rate(blocks, rate, first[0].shape[1])
    kept: list[Block] = []
    size = 0
    for block in blocks:
        kept.append(block)
        size += block.nbytes
        if size > _KEEP_NARROW_BYTES:
            for _ in rest:  # the statistics want it
                pass
            return None
    return kept, min(rate, SAMPLE_RATE)


def finished(blocks: Iterable[Block], rate: int, container: Container, downmix: Downmix | None = None) -> Floats:
    """Blocks of (frames,) at any rate to the whole at 16 kHz: the downmix's scale can be known only at the end."""
    samples = joined(_at_model_rate(blocks, rate), np.dtype(np.float32), container)
    if downmix is not None:
        samples *= np.float32(downmix.scale)
    return np.clip(samples, -1.0, 1.0, out=samples)


def _at_model_rate(blocks: Iterable[Block], rate: int, channels: int = 1) -> Iterator[Block]:
    """Blocks of (frames,), or of (frames, channels), at 16 kHz; soxr keeps its state, so their size does not matter."""
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, channels, dtype="float32", quality="VHQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.empty(0 if channels == 1 else (0, channels), np.float32), last=True)


def joined(blocks: Iterable[Block], dtype: np.dtype[Scalar], container: Container) -> npt.NDArray[Scalar]:
    """One array, grown in place: a list of blocks would be held twice while it is concatenated."""
    data = bytearray()
    for block in blocks:
        data += block.tobytes()
    if not data:
        raise UnreadableError(f"The {container.name} file holds no sound.")
    return np.frombuffer(data, dtype)

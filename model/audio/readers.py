"""What the two readers have in common: a file of a known container becomes blocks of samples.

`model.audio` opens a file with `libsndfile` or `ffmpeg` and sees only this protocol. A reader takes what
can be decoded: a file that ends early, or is damaged in the middle, gives the sound that is there; only one without
any sound is `UnreadableError`. No reader trusts a header for an amount of memory.
"""

import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn, Protocol, Self

import numpy as np
import numpy.typing as npt

from model.audio.containers import Container
from model.errors import InvalidAudioError

Block = npt.NDArray[np.float32] | npt.NDArray[np.int16]

BLOCK_FRAMES = 65_536
"""Frames in a block (the last frame of a codec may exceed it a little)."""
MAX_LINKS = 5_000
"""Recordings that are joined in one file: each is opened by itself, and bytes that look like one are few."""


class UnreadableError(InvalidAudioError):
    """This reader finds no sound in the file; another one may."""


def unreadable(container: Container) -> NoReturn:
    """Refuse a file whose container is known and whose content is not decodable."""
    raise UnreadableError(
        f"The {container.name} file cannot be decoded: it is damaged, ends early, or its codec is not supported."
    )


class Source:
    """The file as the libraries' callbacks see it: without a name, from which conclusions could be drawn, and without
    exceptions, which they could only print or keep for later. A seek to where no file reaches leaves the position."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read = file.read
        self.tell = file.tell

    def readinto(self, buffer: Any) -> int:
        """As a file's own: the number of bytes that came."""
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position, or -1: FFmpeg believes it, libsndfile asks for the position."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1


class Reader(Protocol):
    """An open file: its shape, and once through its samples."""

    rate: int
    channels: int
    is_int16: bool
    """The samples are exactly 16-bit mono at the model's rate, and come as int16."""

    def exceeds(self, seconds: float) -> bool:
        """Whether the file is surely longer than `seconds`, found without decoding that much; False is no promise."""

    def blocks(self) -> Iterator[Block]:
        """Blocks of (frames, channels): int16 if `is_int16`, else float32 at full scale 1.0."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

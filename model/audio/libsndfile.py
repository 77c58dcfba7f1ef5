"""The reader for what libsndfile reads well: WAV, FLAC, Ogg, AIFF, AU, CAF and their kin."""

import contextlib
import math
from collections.abc import Iterator
from typing import BinaryIO, Self

import numpy as np
import soundfile

from model.audio.containers import Container
from model.audio.readers import BLOCK_FRAMES, Block, Source, UnreadableError, unreadable
from model.dims import SAMPLE_RATE

_UNKNOWN_FRAMES = 2**62
"""Counts from here on are placeholders for an unknown length, or forged."""


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]  # the package has no types
    """Reads on from where it is: the base class seeks after every block, which makes an MP3 decoder start afresh."""

    def seekable(self) -> bool:
        return False


class SoundFileReader:
    """A file that libsndfile accepted."""

    def __init__(self, file: BinaryIO, container: Container, *, lenient: bool = False) -> None:
        """`lenient`: give the sound before the first damage, instead of leaving the file to who reads on behind it."""
        file.seek(0)
        self._container, self._lenient = container, lenient
        try:
            self._file = _Sequential(Source(file))
        except (soundfile.SoundFileError, OSError, ValueError, TypeError):
            unreadable(container)
        if self._file.subtype.startswith("MPEG_"):  # it takes the first damage in MP3 for the end, and says nothing
            self._file.close()
            unreadable(container)
        self.rate, self.channels = int(self._file.samplerate), int(self._file.channels)
        plain = self._file.subtype in ("PCM_16", "ALAC_16")
        self.is_int16 = plain and (self.rate, self.channels) == (SAMPLE_RATE, 1)

    def exceeds(self, seconds: float) -> bool:
        """By reading one frame behind the limit: the header's count alone may be forged, or a placeholder."""
        frame = math.ceil(seconds * self.rate)
        if not frame < self._file.frames < _UNKNOWN_FRAMES:
            return False
        found = False
        with contextlib.suppress(soundfile.SoundFileError):
            self._file.seek(frame)
            found = len(self._file.read(1, dtype="float32")) == 1
        try:
            self._file.seek(0)
        except soundfile.SoundFileError as error:
            raise UnreadableError("The file's sound cannot be read from its start.") from error
        return found

    def blocks(self) -> Iterator[Block]:
        """See `Reader`; `UnreadableError` at the first thing that libsndfile cannot decode, or the end if lenient."""
        dtype = "int16" if self.is_int16 else "float32"
        while True:
            block = np.empty((BLOCK_FRAMES, self.channels), dtype)
            try:
                count = self._file.buffer_read_into(block, dtype)
            except soundfile.SoundFileError:
                if self._lenient:
                    return
                unreadable(self._container)
            if count <= 0:
                return
            yield block[:count]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(soundfile.SoundFileError):
            self._file.close()

"""Does a QuickTime or MP4 file keep its sound in itself, and say where? It may name another file, or a URL, instead.

Asked by `model.audio.ffmpeg` before the demuxer, which would read the bytes of this file in the place of the other's,
and behind one that finds nothing.
Source: ISO/IEC 14496-12, 4.2 (boxes) and 8.7.2 (data reference box).
"""

import os
from collections.abc import Iterator
from typing import BinaryIO

_WAY = (b"trak", b"mdia", b"minf", b"dinf", b"dref")
_SELF_CONTAINED = 1


def refers_elsewhere(file: BinaryIO) -> bool:
    """Whether any track's data is said to be in another file; the position is left anywhere."""
    for kind, _, body, stop in _boxes(file, 0, file.seek(0, os.SEEK_END)):
        if kind == b"moov":
            return any(_is_external(file, *entry) for entry in _entries(file, body, stop, 0))
    return False


def is_finished(file: BinaryIO) -> bool:
    """Whether it says where its sound is, which a recorder writes last; the position is left anywhere."""
    return any(kind == b"moov" for kind, *_ in _boxes(file, 0, file.seek(0, os.SEEK_END)))


def _entries(file: BinaryIO, start: int, end: int, depth: int) -> Iterator[tuple[int, int]]:
    """The entries (start, end) of all data reference boxes in `file[start:end]`."""
    for kind, begin, body, stop in _boxes(file, start, end):
        if depth == len(_WAY):
            yield begin, stop
        elif kind == _WAY[depth]:
            inside = body + 8 if kind == b"dref" else body  # version, flags and a count come before the entries
            yield from _entries(file, inside, stop, depth + 1)


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """The kind of each box in `file[start:end]`, where it begins, where its content does, and where it ends."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        body = start + 8
        if size == 1:
            size, body = int.from_bytes(head[8:16], "big"), start + 16
        stop = end if size == 0 else min(start + size, end)
        if stop <= start + 7:
            return
        yield kind, start, body, stop
        start = stop


def _is_external(file: BinaryIO, start: int, stop: int) -> bool:
    file.seek(start + 8)
    flags = file.read(4)
    return stop - start > 12 and not flags[3] & _SELF_CONTAINED  # one without a name refers to nothing

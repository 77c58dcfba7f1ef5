"""Chained Ogg files: recordings one after the other in one file, as stations and `cat` make them.

Gets an Ogg file from `model.audio` and tells where each of its links begins: readers stop at the end of the first, and
a link may have another rate, other channels or another codec than the one before.

Source: RFC 3533, sections 4 (chaining) and 6 (page header).
"""

import os
from typing import BinaryIO

_HEADER = 27
_BEGIN, _END = 0x02, 0x04
"""Flags of a page: the first of a stream, the last of one."""


def links(file: BinaryIO) -> list[tuple[int, int]]:
    """First byte and byte after the last of each link; the whole file where it is not chained, or damaged."""
    size = file.seek(0, os.SEEK_END)
    starts, at, ended = [0], 0, False
    while at + _HEADER <= size:
        file.seek(at)
        header = file.read(_HEADER)
        if header[:4] != b"OggS":
            break
        begins = bool(header[5] & _BEGIN)
        if begins and ended:  # streams side by side all begin before any ends
            starts.append(at)
            ended = False
        ended = ended or bool(header[5] & _END)
        at += _HEADER + header[26] + sum(file.read(header[26]))
    return list(zip(starts, [*starts[1:], size], strict=True))

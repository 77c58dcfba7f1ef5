"""Chained Ogg files: recordings one after the other in one file, as stations and `cat` make them.

Gets an Ogg file from `model.audio` and tells where each of its links begins: readers stop at the end of the first, and
a link may have another rate, other channels or another codec than the one before. A link may also have broken off, with
no last page or in the middle of one, where a recorder was stopped and went on in the same file.

Source: RFC 3533, sections 4 (chaining) and 6 (page header).
"""

import os
from collections.abc import Iterator
from typing import BinaryIO

from model.audio.readers import MAX_LINKS, UnreadableError

_MAGIC = b"OggS\0"
"""Capture pattern and version."""
_HEADER = 27
_BEGIN, _END = 0x02, 0x04
"""Flags of a page: the first of a stream, the last of one."""
_SEARCH_BYTES = 4096


def links(file: BinaryIO) -> list[tuple[int, int]]:
    """First byte and byte after the last of each link; the whole file where it is not chained.

    `UnreadableError` for one that is in more links than recordings are.
    """
    starts, heard = [0], False
    for at, header in _pages(file):
        if header[5] & _BEGIN and heard:  # streams side by side all begin before any of them has sound
            starts.append(at)
            heard = False
            if len(starts) > MAX_LINKS:
                raise UnreadableError(f"The Ogg file is in more than {MAX_LINKS} pieces.")
        position = int.from_bytes(header[6:14], "little", signed=True)
        heard = heard or position > 0 or bool(header[5] & _END)
    return list(zip(starts, [*starts[1:], file.seek(0, os.SEEK_END)], strict=True))


def _pages(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Offset and header of every page; behind damage it goes on with the next one that is found."""
    last = at = 0
    while True:
        file.seek(at)
        header = file.read(_HEADER)
        if len(header) == _HEADER and header.startswith(_MAGIC):
            yield at, header
            last, at = at, at + _HEADER + header[26] + sum(file.read(header[26]))
        elif (found := _search(file, last + 1)) is None:
            return
        else:
            last = at = found


def _search(file: BinaryIO, start: int) -> int | None:
    """Where the next page seems to begin from `start` on."""
    file.seek(start)
    seen = b""
    while piece := file.read(_SEARCH_BYTES):
        seen += piece
        if (found := seen.find(_MAGIC)) >= 0:
            return start + found
        start += len(seen) - len(_MAGIC) + 1
        seen = seen[1 - len(_MAGIC) :]
    return None

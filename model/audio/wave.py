"""What the head of a WAV or Wave64 file leaves open: filled in before a library reads it.

Asked by `model.audio.decode`. Programs that write to a pipe cannot go back to fill in sizes. Plain WAV then states
what the libraries know; its 64-bit kinds state 0, a few bytes or the largest number there is, and no sound is found.

Sources: EBU Tech 3306 and ITU-R BS.2088 (RF64 and BW64: the chunk ds64); Sony, Wave64 (sizes count the chunk's head).
"""

import io
import os
from typing import BinaryIO

from model.audio.containers import W64, Container

_HEAD_BYTES = 65_536
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_LEAST, _MOST = 24, 2**62
"""Sizes in bytes that are believed lie between these: a chunk of Wave64 has 24 without content."""


def with_size(file: BinaryIO, container: Container) -> BinaryIO:
    """The file, or where its head does not tell the sound's size a copy in which that is the file's.

    The position is left anywhere.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if head[:4] in (b"RF64", b"BW64") and head[12:16] == b"ds64":
        data, others = 28, [20, 36]  # what the file holds in bytes, and its samples
    elif container is W64 and _W64_DATA in head:
        data, others = head.find(_W64_DATA) + len(_W64_DATA), [16]
    else:
        return file
    if _LEAST < int.from_bytes(head[data : data + 8], "little") < _MOST:
        return file
    size = file.seek(0, os.SEEK_END).to_bytes(8, "little")
    file.seek(0)
    copy = io.BytesIO(file.read())
    for at in (data, *others):
        copy.seek(at)
        copy.write(size)
    return copy

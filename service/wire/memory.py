"""Anonymous memory that processes hand to each other by file descriptor.

Nothing has a name, so nothing is left behind by a crash, and a read-only root file system is enough.
"""

import os
import tempfile
from collections.abc import Iterator


def create(label: str) -> int:
    """A new, empty, anonymous file; the caller closes the descriptor. `label` shows in /proc only."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(label, os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:  # a Mac has no memfd
        return os.dup(file.fileno())


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Append all of `data`."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(fd, view) :]


def size(fd: int) -> int:
    """Bytes in the file."""
    return os.fstat(fd).st_size


def read_all(fd: int) -> bytearray:
    """A copy of the file's bytes; whoever else holds the descriptor cannot change it any more."""
    data, offset = bytearray(size(fd)), 0
    with memoryview(data) as view:
        while offset < len(data) and (count := os.preadv(fd, [view[offset:]], offset)):
            offset += count
    del data[offset:]  # in place: a slice would be a second copy
    return data


def pieces(fd: int, size: int) -> Iterator[memoryview]:
    """The file's bytes, at most `size` of them at a time; each piece is overwritten by the next."""
    buffer, offset = memoryview(bytearray(size)), 0
    while count := os.preadv(fd, [buffer], offset):
        yield buffer[:count]
        offset += count

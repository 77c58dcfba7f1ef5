"""The bytes of a weights file that may be cut into several files; read in place, never copied as a whole.

Gives `ctranslate2.py` its bytes and every source its SHA-256. Positioned reads go straight into a tensor's memory: a
file that shrinks meanwhile gives an error, where a memory map would give a signal.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from model.errors import WeightsError

_HASH_BLOCK = 1 << 20


class Blob:
    """One run of bytes made of files that follow each other; opened by `open_blob`."""

    def __init__(self, paths: Sequence[Path], descriptors: Sequence[int]) -> None:
        self.path = paths[0]
        """Names the bytes in messages: the first file."""
        self._files = list(zip(paths, descriptors, [os.fstat(fd).st_size for fd in descriptors], strict=True))
        self.size = sum(size for _, _, size in self._files)

    def sha256(self) -> str:
        """Hexadecimal SHA-256 of all bytes, in one pass."""
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_HASH_BLOCK))
        for start in range(0, self.size, _HASH_BLOCK):
            block = buffer[: min(_HASH_BLOCK, self.size - start)]
            self.read_into(start, block)
            digest.update(block)
        return digest.hexdigest()

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; WeightsError if the file ends before."""
        data = bytearray(size)
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target` (bytes) with what stands at `offset`; WeightsError if the file ends before."""
        if offset < 0 or offset + len(target) > self.size:
            raise WeightsError(f"{self.path}: truncated: {offset + len(target)} bytes expected, {self.size} there")
        for path, descriptor, size in self._files:
            while target and offset < size:
                try:
                    done = os.preadv(descriptor, [target[: size - offset]], offset)
                except OSError as error:
                    raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
                if done == 0:
                    raise WeightsError(f"{path}: became shorter while it was read")
                target, offset = target[done:], offset + done
            offset = max(0, offset - size)


@contextlib.contextmanager
def open_blob(paths: Sequence[Path]) -> Iterator[Blob]:
    """Open files as one run of bytes, in this order; WeightsError names a file that cannot be read."""
    with contextlib.ExitStack() as stack:
        descriptors = []
        for path in paths:
            try:
                descriptors.append(stack.enter_context(path.open("rb", buffering=0)).fileno())
            except OSError as error:
                raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
        yield Blob(paths, descriptors)

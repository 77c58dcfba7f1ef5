"""Recordings that crashed workers, or may have: refused at once for a while, or run alone, so that one poison file
cannot stop the service.

Bounded in number and time; holds hashes, never sounds.
"""

from collections import OrderedDict
from hashlib import blake2b

from service.wire import memory

_CHUNK_BYTES = 1024 * 1024


def fingerprint(fd: int) -> bytes:
    """Hash of the waveform in an anonymous file, which may be large: not for the event loop."""
    digest = blake2b(digest_size=16)
    for piece in memory.pieces(fd, _CHUNK_BYTES):
        digest.update(piece)
    return digest.digest()


class Quarantine:
    """Fingerprints with the time until which they are held. Time is an argument."""

    def __init__(self, *, seconds: float = 600.0, max_entries: int = 1000) -> None:
        self._seconds, self._max_entries = seconds, max_entries
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def add(self, waveform: bytes, now: float) -> None:
        """Hold this waveform from now on; the oldest entry makes room."""
        self._until.pop(waveform, None)
        self._until[waveform] = now + self._seconds
        while len(self._until) > self._max_entries:
            self._until.popitem(last=False)

    def remove(self, waveform: bytes) -> None:
        """Nothing is held against this waveform any more; an unknown one is ignored."""
        self._until.pop(waveform, None)

    def holds(self, waveform: bytes, now: float) -> bool:
        """Whether this waveform is held now."""
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        return waveform in self._until

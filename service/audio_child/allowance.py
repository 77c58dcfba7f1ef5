"""How much processor time a file may cost: in proportion to its bytes, and to the sound that is found in it.

Kept by `service.audio_child` for each file and held by the kernel, which needs no library's consent: a few MB of tags,
of metadata or of an index are minutes of work for FFmpeg, in most of its containers, and all of it before any sound.
Honest files of 19 kinds, with tables and in fragments, came to their first sound within 0.14 s; from there on none took
more than 60 ns for a sample (of one channel). What is allowed is fifteen times of that and more.
"""

import time

from service.audio_child.sandbox import limit_cpu

_FIRST_SECONDS = 3.0
_SECONDS_PER_BYTE = 1e-7
_SECONDS_PER_SAMPLE = 1e-6


class Allowance:
    """The time for one file of `size` bytes, from now on, and never more than `most` seconds; past it the kernel ends
    the process."""

    def __init__(self, most: float, size: int) -> None:
        self._most, self._begun = most, time.process_time()
        self._seconds = _FIRST_SECONDS + size * _SECONDS_PER_BYTE
        self.found(0)

    def found(self, samples: int) -> None:
        """So many samples, of all channels together, are there: more of them may follow."""
        self._seconds += samples * _SECONDS_PER_SAMPLE
        used = time.process_time() - self._begun
        limit_cpu(min(self._seconds, self._most) - used)

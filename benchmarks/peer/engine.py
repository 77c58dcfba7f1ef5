"""What every engine that is compared can do, and how one serves several requests by threads.

Standard library and numpy alone: `benchmarks.peer.worker` loads this in the environment of each peer.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
"""(n,) in [-1, 1) at `RATE`."""
RATE = 16_000
STREAMS = 8
"""Requests of `many` that are under way at once, at most."""


class Engine(Protocol):
    """Something that is loaded and transcribes."""

    def one(self, samples: Samples) -> str:
        """The text of one request that has the machine to itself."""
        ...

    def many(self, requests: Sequence[Samples]) -> list[str]:
        """Texts of requests of which at most `STREAMS` are under way at once."""
        ...


class Threaded:
    """Requests taken by threads; an engine of its own in each where the library's is not safe to share."""

    def __init__(self, make: Callable[[], Callable[[Samples], str]], *, workers: int, shared: bool = False) -> None:
        engine = make()
        self._engines = [engine] + [engine if shared else make() for _ in range(workers - 1)]

    def one(self, samples: Samples) -> str:
        """See `Engine.one`."""
        return self._engines[0](samples)

    def many(self, requests: Sequence[Samples]) -> list[str]:
        """See `Engine.many`."""
        free = list(self._engines)

        def take(samples: Samples) -> str:
            engine = free.pop()
            try:
                return engine(samples)
            finally:
                free.append(engine)

        with ThreadPoolExecutor(len(self._engines)) as pool:
            return list(pool.map(take, requests))

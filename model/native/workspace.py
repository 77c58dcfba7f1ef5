"""What a function in C keeps between its calls: memory and threads of its own, for one caller at a time."""

import ctypes
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_void_p

import torch


class Workspace:
    """Opened at the first use, closed when it is dropped."""

    def __init__(self, library: ctypes.CDLL, kind: str, *sizes: int) -> None:
        """Of `{kind}_open`, which takes the sizes and a number of threads, and `{kind}_close`."""
        self._kind, self._sizes = kind, sizes
        self._open: Callable[..., int | None] = getattr(library, f"{kind}_open")
        self._close: Callable[[c_void_p], None] = getattr(library, f"{kind}_close")
        self._handle: c_void_p | None = None
        self._lock = threading.Lock()

    @contextmanager
    def taken(self) -> Iterator[c_void_p]:
        """For one call at a time, with as many threads as torch used at the first; `MemoryError` if that fails."""
        with self._lock:
            if self._handle is None:
                handle = c_void_p(self._open(*self._sizes, torch.get_num_threads()))
                if not handle:
                    raise MemoryError(f"no memory for the encoder's {self._kind}")
                self._handle = handle
                weakref.finalize(self, self._close, handle)
            yield self._handle

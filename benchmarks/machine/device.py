"""The device that is measured: its name, when it has done its work, and how fast it does a piece of it at best."""

import time
from collections.abc import Callable

import torch

_REPEATS = 9
_AT_ONCE = 20
"""Pieces of work that a GPU is given at once: to launch one and wait for it takes as long as a small one does."""


def device_name(device: torch.device) -> str:
    """What the device is called by its maker."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def wait(device: torch.device) -> None:
    """Until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def least_time(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several times: what else goes on at a machine only ever adds to them."""
    count = _AT_ONCE if device.type == "cuda" else 1
    work()
    times = []
    for _ in range(_REPEATS):
        wait(device)
        begin = time.perf_counter()
        for _ in range(count):
            work()
        wait(device)
        times.append((time.perf_counter() - begin) / count)
    return min(times)

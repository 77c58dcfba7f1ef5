"""Stand-ins for a GPU: what was captured is run again, and answers into the same memory; tokens chosen as there."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from model.decoding import batch as decode
from model.decoding.device_choice import DeviceChoice
from model.decoding.inference import PyTorchInference
from model.gpu.graphs import Run
from model.search.selection import Selection


class Again:
    """`model.gpu.graphs.Backend` without a GPU; `capture` raises what `failures` holds, first things first.

    More than `rows` rows find no memory.
    """

    def __init__(self, rows: int = 1000) -> None:
        self._rows = rows
        self.captures, self.replays, self.resets = 0, 0, 0
        self.failures: list[Exception] = []

    def capture(self, run: Run) -> Run:
        if self.failures:
            raise self.failures.pop(0)
        answer = torch.empty_like(run())
        if len(answer) > self._rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.captures += 1

        def replay() -> Tensor:
            self.replays += 1
            return answer.copy_(run())

        return replay

    def reset(self) -> None:
        self.resets += 1


@contextmanager
def no_waits() -> Iterator[None]:
    """On a GPU, whatever makes the host wait for it raises; waits for an event, which say what for, do not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")  # said once a process
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def capture_steps(monkeypatch: pytest.MonkeyPatch, again: Again) -> None:
    """Let every new batch run its steps through `again`."""

    def captured(model, *, n_windows, n_rows):
        return PyTorchInference(model, n_windows=n_windows, n_rows=n_rows, backend=again)

    monkeypatch.setattr(decode, "make_inference", captured)


def choose_on_device(monkeypatch: pytest.MonkeyPatch, *, ahead: bool) -> None:
    """Let every new batch choose its tokens as on a GPU."""

    def chosen(model, inference, rules, tokenizer, *, n_rows):
        selection = Selection(model.dims, tokenizer, rules, n_rows=n_rows, device=model.device)
        return DeviceChoice(inference, selection, rules, ahead=ahead)

    monkeypatch.setattr(decode, "make_choice", chosen)

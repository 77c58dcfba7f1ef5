"""What goes to a device in the midst of steps goes there without a wait: on tensors without data."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.inference import PyTorchInference
from model.send import pinned, send
from model.whisper import Whisper
from tests import tiny

META = torch.device("meta")


class _Indices(TorchDispatchMode):
    """Indices that nothing made: a Python list, which torch copies to a GPU out of ordinary memory and waits for."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[Tensor] = []
        self.lists: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        if str(func).startswith("aten.index") and isinstance(args[1], list | tuple):
            indices = [index for index in args[1] if index is not None]
            self.lists += [str(func) for index in indices if not any(index is made for made in self._made)]
        self._made += [answer] if isinstance(answer, Tensor) else [x for x in answer or () if isinstance(x, Tensor)]
        return answer


@pytest.fixture
def inference() -> Iterator[PyTorchInference]:
    with META, torch.inference_mode():
        model = Whisper(tiny.DIMS).to(torch.float16)
    with torch.inference_mode():
        yield PyTorchInference(model, n_windows=4, n_rows=6)


def test_rows_that_leave_and_prompts_that_begin_make_nobody_wait(inference) -> None:
    with _Indices() as indices:
        inference.copy_rows([5], [2], 448)
        inference.copy_rows([5, 0], [2, 1], 30)
        logits = inference.prefill_many([(1, 2, 3)] * 3, row=1, windows=[0, 3, 1], keep=[(0, 2)] * 3)
        inference.step([1, 2], lengths=[3, 4], windows=[0, 1])
    assert logits.shape == (3, 2, tiny.DIMS.n_vocab)
    assert indices.lists == []
    with _Indices() as indices:
        logits[[0, 1]]
    assert indices.lists == ["aten.index.Tensor"]


def test_what_is_sent_is_pinned_where_that_helps(monkeypatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self + 100)
    values = torch.tensor([1, 2])
    assert pinned(values, torch.device("cpu")) is values
    assert pinned(values, torch.device("cuda", 0)).tolist() == [101, 102]
    assert send(range(3), torch.device("cpu")).tolist() == [0, 1, 2]
    assert send((), torch.device("cpu")).dtype == torch.long
    assert send(values.to(torch.int16), META).dtype == torch.int16

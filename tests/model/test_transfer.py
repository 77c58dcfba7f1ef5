"""What goes to a device in the midst of steps goes there without a wait: on tensors without data."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.decoding import flight
from model.decoding.device_choice import DeviceChoice
from model.decoding.inference import PyTorchInference
from model.decoding.row import Decoding, Row
from model.gpu.graphs import Immediate
from model.network.whisper import Whisper
from model.options import TranscribeOptions
from model.search.rules import Rules
from model.search.selection import Selection
from model.tokenizer import get_tokenizer
from model.transfer import Fetched, pinned, send
from model.window import Window
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


@pytest.fixture(autouse=True)
def _inference_mode() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def model() -> Whisper:
    with META:
        return Whisper(tiny.DIMS).to(torch.float16).requires_grad_(False)


def _course(inference: PyTorchInference) -> Tensor:
    """All that rows do: begin, step, choose, leave, take over others, are aligned."""
    tokenizer, options = get_tokenizer(tiny.DIMS), TranscribeOptions()
    rules = Rules(tiny.DIMS, tokenizer, META)
    selection = Selection(tiny.DIMS, tokenizer, rules, n_rows=12, device=META)
    for home in range(3):
        first_to = rules.first_time_to(options)
        selection.begin(home, rules.suppressed(options), temperature=0.5, seed=1, first_to=first_to)
    inference.copy_rows([5], [2], 448)
    inference.copy_rows([5, 0], [2, 1], 30)
    for prompt in ((1, 2, 3), tuple(range(9))):
        logits = inference.prefill_many([prompt] * 3, row=1, windows=[0, 3, 1], keep=[(0, 2)] * 3)
    step = {"lengths": [3, 4, 3], "windows": [3, 1, 1]}
    chosen = selection.choose(inference.step([1, 2, 3], **step), selection.rows(range(3), [0] * 3), drawing=True)
    for drawing in (False, True):
        chosen = inference.advance(selection, homes=range(3), counts=[1] * 3, drawing=drawing, **step)
    inference.attention([1, 2, 3, 4], window=1, heads=((0, 1), (1, 0)), keep=range(1, 3))
    assert (chosen.device, chosen.shape) == (META, (2, 3))
    return logits


@pytest.mark.parametrize("backend", [None, Immediate()])
@pytest.mark.parametrize("cross_attention", ["torch", "triton"])
@pytest.mark.parametrize("cross_kv", ["auto", "int8", "fp8"])
def test_nothing_that_rows_do_makes_anybody_wait(model, monkeypatch, cross_kv, cross_attention, backend) -> None:
    if cross_attention == "triton":
        split_step = pytest.importorskip("model.gpu.split_step", reason="Triton is part of torch's CUDA build")
        monkeypatch.setattr(split_step, "attend", lambda query, *_, **__: torch.empty_like(query))
        monkeypatch.setattr(split_step, "remember", lambda *_: None)
    model.cross_kv, model.cross_attention = cross_kv, cross_attention
    inference = PyTorchInference(model, n_windows=4, n_rows=12, backend=backend)
    features = torch.zeros(2, 1500, tiny.DIMS.n_audio_state, device=META, dtype=torch.float16)
    with _Indices() as indices:
        inference.fill_windows(features, [3, 1])
        logits = _course(inference)
    assert logits.shape == (3, 2, tiny.DIMS.n_vocab)
    assert indices.lists == []


class _Read(Fetched):
    """Numbers that differ, in the place of those that a tensor without data does not have."""

    def __init__(self, tensor: Tensor) -> None:
        self._host = torch.arange(tensor.numel()).view(tensor.shape).float()
        self._event = None


def test_a_choice_on_the_device_waits_for_nothing_but_what_it_reads(model, monkeypatch) -> None:
    """Rows that are greedy, drawn and of beams of two widths begin, go on and leave."""
    monkeypatch.setattr(flight, "Fetched", _Read)
    tokenizer = get_tokenizer(tiny.DIMS)
    rules = Rules(tiny.DIMS, tokenizer, META)
    selection = Selection(tiny.DIMS, tokenizer, rules, n_rows=12, device=META)
    inference = PyTorchInference(model, n_windows=5, n_rows=12, backend=Immediate())
    choice = DeviceChoice(inference, selection, rules, ahead=True)
    rows: list[Row] = []
    for slot, beams in enumerate((None, None, 3, 2, 3)):
        options = TranscribeOptions(temperature=(0.5 if slot == 1 else 0.0,), beam_size=beams)
        decoding = Decoding(slot, Window(slot, 0, 3000, "en"), options, "en", (1, 2, 3))
        decoding.suppressed = rules.suppressed(options)
        decoding.rows = [Row(decoding, len(rows) + i) for i in range(beams or 1)]
        decoding.begin(0, rules, tokenizer)
        rows += decoding.rows
    with _Indices() as indices:
        choice.begin(rows, torch.zeros(len(rows), tiny.DIMS.n_vocab, device=META))
        for _ in range(3):
            choice.step(rows)
        for row in rows[2:5]:
            choice.leave(row)
        choice.step(rows[:2] + rows[5:])
        choice.step(rows[:2])
    assert indices.lists == []
    assert [len(row.tokens) for row in rows] == [5, 5, 3, 3, 3, 5, 5, 5, 5, 5]


def test_a_list_as_an_index_is_noticed() -> None:
    logits = torch.zeros(3, 2, device=META)
    with _Indices() as indices:
        logits[[0, 1]]
        logits[0, 1:] = 3.0
    assert indices.lists == ["aten.index.Tensor"]


def test_what_is_sent_is_pinned_where_that_helps(monkeypatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self + 100)
    values = torch.tensor([1, 2])
    assert pinned(values, torch.device("cpu")) is values
    assert pinned(values, torch.device("cuda", 0)).tolist() == [101, 102]
    assert send(range(3), torch.device("cpu")).tolist() == [0, 1, 2]
    assert send((), torch.device("cpu")).dtype == torch.long
    assert send(values.to(torch.int16), META).dtype == torch.int16

"""The check at the start believes a fast path that does the same, and no other."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from model.compute_options import ComputeOptions
from model.decoding import step_check
from model.decoding.step_check import choices_agree, choose_steps, deviation, reason_against, settle_steps
from model.errors import OptionError
from model.gpu.beside import Inline
from model.gpu.graphs import Run
from model.tokenizer import get_tokenizer
from model.transcriber import Transcriber
from model.weights import Weights
from tests import tiny
from tests.graphs import Again

MODEL = tiny.transcriber().model
TOKENIZER = get_tokenizer(tiny.DIMS)


class _Stale:
    """Repeats the first answer of every shape."""

    def capture(self, run: Run) -> Run:
        answer = run()
        return lambda: answer

    def reset(self) -> None:
        pass


class _NoNumbers(_Stale):
    def capture(self, run: Run) -> Run:
        return lambda: run() * torch.nan


class _TooEarly:
    """Says that it is done, and has done nothing."""

    done = True

    def run(self, work: Callable[[], Any]) -> tuple[Any, "_TooEarly"]:
        return None, self

    def join(self) -> None:
        pass


def test_a_path_that_does_the_same_is_believed() -> None:
    again = Again()
    assert deviation(MODEL, TOKENIZER, again, Inline()) < 1e-4
    assert again.replays > again.captures >= 2
    assert choices_agree(tiny.DIMS, TOKENIZER, torch.device("cpu"))


def test_beams_that_survive_otherwise_are_seen(monkeypatch) -> None:
    calls = itertools.count()
    original = step_check.extend

    def extend(*arguments):
        candidates, sources = original(*arguments)
        return candidates, sources if next(calls) < 4 else sources.flip(0)  # those of the device come first

    monkeypatch.setattr(step_check, "extend", extend)
    assert not choices_agree(tiny.DIMS, TOKENIZER, torch.device("cpu"))


@pytest.mark.parametrize(
    ("backend", "beside"), [(_Stale(), Inline()), (_NoNumbers(), Inline()), (Again(), _TooEarly())]
)
def test_a_path_that_does_not_is_not(monkeypatch, backend, beside) -> None:
    monkeypatch.setattr(step_check, "CudaBackend", lambda device: backend)
    monkeypatch.setattr(step_check, "SideStream", lambda device: beside)
    assert reason_against(MODEL, TOKENIZER)


@pytest.fixture
def on_gpu(monkeypatch) -> Again:
    """The model says that it is on a GPU, where `Again` captures."""
    again = Again()
    monkeypatch.setattr(step_check, "CudaBackend", lambda device: again)
    monkeypatch.setattr(step_check, "SideStream", lambda device: Inline())
    return again


def test_every_failure_is_a_reason(on_gpu, monkeypatch) -> None:
    assert reason_against(MODEL, TOKENIZER) is None
    on_gpu.failures = [RuntimeError("CUDA error:\n operation not permitted")]
    assert reason_against(MODEL, TOKENIZER) == "RuntimeError: CUDA error: operation not permitted"
    monkeypatch.setattr(step_check, "deviation", lambda *_: 3.25)
    assert reason_against(MODEL, TOKENIZER) == "its answers are off by 3.2"
    monkeypatch.setattr(step_check, "deviation", lambda *_: 0.0)
    monkeypatch.setattr(step_check, "choices_agree", lambda *_, **__: False)
    assert "not those chosen on the host" in str(reason_against(MODEL, TOKENIZER))


@pytest.mark.parametrize(
    ("name", "device", "reason", "wanted"),
    [
        ("auto", "cuda", None, (True, None)),
        ("auto", "cuda", "it is broken", (False, "it is broken")),
        ("true", "cuda", None, (True, None)),
        ("false", "cuda", None, (False, None)),
        ("auto", "cpu", None, (False, None)),
    ],
)
def test_auto_captures_where_that_was_seen_to_work(monkeypatch, name, device, reason, wanted) -> None:
    monkeypatch.setattr(type(MODEL), "device", torch.device(device))
    monkeypatch.setattr(step_check, "reason_against", lambda *_: reason)
    assert choose_steps(name, MODEL, TOKENIZER) == wanted


def test_who_insists_is_told_why_not(monkeypatch) -> None:
    monkeypatch.setattr(type(MODEL), "device", torch.device("cuda"))
    monkeypatch.setattr(step_check, "reason_against", lambda *_: "it is broken")
    with pytest.raises(OptionError, match="it is broken") as raised:
        choose_steps("true", MODEL, TOKENIZER)
    assert raised.value.param == "cuda_graphs"
    with pytest.raises(OptionError, match="maybe"):
        choose_steps("maybe", MODEL, TOKENIZER)


def test_who_insists_without_a_gpu_is_told_so() -> None:
    with pytest.raises(OptionError, match="cannot be captured on cpu") as raised:
        choose_steps("true", MODEL, TOKENIZER)
    assert raised.value.param == "cuda_graphs"


@pytest.mark.parametrize(
    ("cross_attention", "cuda_graphs", "without", "wanted"),
    [
        ("auto", "auto", None, ("torch", True, {"cross_attention": "it is off"})),
        ("auto", "auto", "so is this", ("torch", False, {"cross_attention": "it is off", "cuda_graphs": "so is this"})),
        ("triton", "auto", None, ("triton", False, {"cuda_graphs": "it is off"})),
        ("triton", "false", None, ("triton", False, {})),
    ],
)
def test_a_kernel_with_which_whole_steps_fail_is_left_out(
    monkeypatch, cross_attention, cuda_graphs, without, wanted
) -> None:
    model = tiny.transcriber().model
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    monkeypatch.setattr(step_check, "choose_cross_attention", lambda *_: ("triton", None))
    reasons = {"triton": "it is off", "torch": without}
    monkeypatch.setattr(step_check, "reason_against", lambda model, _: reasons[model.cross_attention])
    left_out = settle_steps(model, TOKENIZER, cross_attention=cross_attention, cuda_graphs=cuda_graphs)
    assert left_out.pop("fused_steps", "it is off") == "it is off"
    assert (model.cross_attention, model.captures_steps, left_out) == wanted
    assert not model.fuses_steps


@pytest.mark.parametrize("cuda_graphs", ["auto", "true"])
@pytest.mark.parametrize("reason", [None, "it is off"])
def test_where_only_what_is_fused_fails_steps_do_without(monkeypatch, cuda_graphs, reason) -> None:
    model = tiny.transcriber().model
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    monkeypatch.setattr(step_check, "choose_cross_attention", lambda *_: ("triton", None))
    monkeypatch.setattr(step_check, "reason_against", lambda model, _: reason if model.fuses_steps else None)
    left_out = settle_steps(model, TOKENIZER, cross_attention="auto", cuda_graphs=cuda_graphs)
    assert (model.cross_attention, model.captures_steps, model.fuses_steps) == ("triton", True, reason is None)
    assert left_out == ({} if reason is None else {"fused_steps": reason})


def test_a_model_is_not_loaded_with_steps_that_are_named_wrongly() -> None:
    weights = Weights(tiny.DIMS, tiny.tensors(), "tiny-random", None)
    with pytest.raises(OptionError, match="maybe"):
        Transcriber.from_weights(weights, torch.device("cpu"), ComputeOptions("float32", "full", cuda_graphs="maybe"))


def test_nothing_is_left_out_of_a_cpu() -> None:
    model = tiny.transcriber().model
    assert settle_steps(model, TOKENIZER, cross_attention="auto", cuda_graphs="auto") == {}
    assert (model.cross_attention, model.captures_steps) == ("torch", False)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("cross_kv", ["auto", "int8", "fp8"])
@pytest.mark.parametrize("cross_attention", ["torch", "triton"])
def test_a_card_that_is_there_is_believed(cross_attention, cross_kv) -> None:
    from model.network.whisper import Whisper

    model = Whisper.from_tensors(tiny.DIMS, tiny.tensors(), torch.device("cuda", 0), torch.float16)
    model.cross_kv = cross_kv
    assert settle_steps(model, TOKENIZER, cross_attention=cross_attention, cuda_graphs="true") == {}
    assert (model.cross_attention, model.captures_steps) == (cross_attention, True)

import pytest
import torch

from model.compute_options import ComputeOptions
from model.errors import OptionError
from model.gpu import split_check
from model.gpu.split_check import choose_cross_attention
from model.native.quantize import decoder_name
from model.transcriber import Transcriber
from model.weights import Weights
from tests import tiny

CPU = torch.device("cpu")

MODEL = tiny.transcriber().model


class _OnCard:
    """A model that says it is on a GPU."""

    device, dtype, dims, cross_kv = torch.device("cuda", 0), torch.float16, tiny.DIMS, "auto"


def _card(monkeypatch: pytest.MonkeyPatch, *, capability=(9, 0), triton: bool = True, off: float | Exception = 0.001):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(split_check, "find_spec", lambda name: object() if triton else None)

    def deviation(device, dtype, cross_kv, *, size):
        assert size == 16
        if isinstance(off, Exception):
            raise off
        return off

    monkeypatch.setattr(split_check, "deviation", deviation)


def test_a_cpu_has_torchs() -> None:
    assert choose_cross_attention("auto", MODEL) == choose_cross_attention("torch", MODEL) == ("torch", None)
    with pytest.raises(OptionError, match="cannot be used on cpu: it is for GPUs") as caught:
        choose_cross_attention("triton", MODEL)
    assert caught.value.param == "cross_attention"


def test_a_model_is_not_loaded_with_a_kernel_that_cannot_be_had() -> None:
    weights = Weights(tiny.DIMS, tiny.tensors(), "tiny-random", None)
    with pytest.raises(OptionError, match="cannot be used on cpu"):
        Transcriber.from_weights(weights, CPU, ComputeOptions("float32", "full", cross_attention="triton"))
    assert decoder_name(Transcriber.from_weights(weights, CPU, ComputeOptions("float32", "full")).model) == "torch"


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError, match="'flash' is not supported; use one of auto, torch, triton"):
        choose_cross_attention("flash", MODEL)


def test_a_gpu_where_the_kernel_agrees_has_the_kernel(monkeypatch) -> None:
    _card(monkeypatch)
    assert [choose_cross_attention(name, _OnCard()) for name in ("auto", "triton", "torch")] == [
        ("triton", None),
        ("triton", None),
        ("torch", None),
    ]


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ({"triton": False}, "Triton is not installed"),
        ({"capability": (7, 5)}, "the card's compute capability is below 8.0"),
        ({"off": 0.3}, "its answers are off by 0.3"),
        ({"off": RuntimeError("Failed to find C\n compiler.")}, "RuntimeError: Failed to find C compiler."),
    ],
)
def test_a_gpu_where_it_does_not_work_has_torchs_and_says_why(monkeypatch, card, reason) -> None:
    _card(monkeypatch, **card)
    chosen, why = choose_cross_attention("auto", _OnCard())
    assert chosen == "torch"
    assert reason in str(why)
    with pytest.raises(OptionError, match=reason):
        choose_cross_attention("triton", _OnCard())


def test_fp8_needs_a_newer_card(monkeypatch) -> None:
    _card(monkeypatch, capability=(8, 6))
    model = _OnCard()
    assert choose_cross_attention("auto", model) == ("triton", None)
    model.cross_kv = "fp8"
    assert choose_cross_attention("auto", model) == ("torch", "the card's compute capability is below 8.9")

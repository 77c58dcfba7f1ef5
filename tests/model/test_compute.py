import pytest
import torch

from model.compute import (
    COMPUTE_TYPES,
    can_multiply_int8,
    choose_compute_type,
    choose_cross_kv,
    choose_device,
    choose_encoder_context,
    has_vnni,
)
from model.errors import OptionError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_auto_fits_the_device() -> None:
    assert choose_compute_type("auto", CPU) == ("int8" if can_multiply_int8() else "float32")
    assert choose_compute_type("auto", GPU) == "float16"


@pytest.mark.parametrize(("name", "device"), [("float16", CPU), ("int8", GPU), ("int4", CPU), ("", CPU)])
def test_what_a_device_does_not_do_is_refused(name: str, device: torch.device) -> None:
    with pytest.raises(OptionError) as caught:
        choose_compute_type(name, device)
    assert caught.value.param == "compute_type"


def test_a_gpu_is_called_by_its_number(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [choose_device(name) for name in ("cuda", "cuda:0", "cuda:1")] == [GPU, GPU, torch.device("cuda", 1)]
    with pytest.raises(OptionError, match="2 CUDA"):
        choose_device("cuda:2")


def test_the_others_are_taken_as_they_are() -> None:
    for name in COMPUTE_TYPES:
        assert choose_compute_type(name, GPU if name == "float16" else CPU) == name


def test_short_is_for_int8_unless_it_is_asked_for() -> None:
    assert choose_encoder_context("auto", CPU, "int8") == "short"
    assert choose_encoder_context("auto", CPU, "float32") == "full"
    assert choose_encoder_context("auto", GPU, "float16") == "full"
    assert choose_encoder_context("full", CPU, "int8") == "full"
    assert choose_encoder_context("short", CPU, "float32") == "short"


@pytest.mark.parametrize(("context", "device"), [("short", GPU), ("long", CPU), ("", CPU)])
def test_an_encoder_context_that_a_device_does_not_do_is_refused(context: str, device: torch.device) -> None:
    with pytest.raises(OptionError) as caught:
        choose_encoder_context(context, device, "float32")
    assert caught.value.param == "encoder_context"


def test_8_bits_of_the_audio_are_as_asked_for() -> None:
    assert [choose_cross_kv(name, "float16") for name in ("auto", "int8", "fp8")] == ["auto", "int8", "fp8"]
    assert [choose_cross_kv(name, "int8") for name in ("auto", "int8")] == ["auto", "int8"]


@pytest.mark.parametrize(("cross_kv", "compute_type"), [("fp8", "int8"), ("int4", "float16"), ("", "float32")])
def test_bits_of_the_audio_that_are_not_there_are_refused(cross_kv: str, compute_type: str) -> None:
    with pytest.raises(OptionError) as caught:
        choose_cross_kv(cross_kv, compute_type)
    assert caught.value.param == "cross_kv"


def test_int8_products_that_do_not_saturate_are_products_that_are_there() -> None:
    assert can_multiply_int8() or not has_vnni()


@pytest.mark.parametrize("name", ["tpu", "mps:0", "cuda:99"])
def test_a_device_that_is_absent_is_refused(name: str) -> None:
    with pytest.raises(OptionError):
        choose_device(name)

import itertools
from types import SimpleNamespace

import pytest
import torch

from benchmarks.machine import device
from benchmarks.machine.card import Card, CardBounds, measure_card
from model.dims import DIMENSIONS

H100 = Card(product_per_s=798e12, copy_bytes_per_s=3.0e12)


def _bounds(name: str, cross_kv: str = "auto") -> CardBounds:
    return CardBounds(DIMENSIONS[name], H100, 2, cross_kv)


@pytest.mark.parametrize(
    ("name", "encode_ms", "step_ms", "speed"),
    [("base", 0.121, 0.039, 34_100), ("large-v3", 3.24, 0.619, 2217), ("large-v3-turbo", 2.90, 0.116, 7057)],
)
def test_a_window_takes_what_its_operations_and_bytes_say(name, encode_ms, step_ms, speed) -> None:
    """By hand from the formulas, in a table of their own."""
    bounds = _bounds(name)
    assert 1e3 * (bounds.encoder + bounds.keys_and_values) == pytest.approx(encode_ms, rel=0.01)
    assert 1e3 * bounds.step(1) == pytest.approx(step_ms, rel=0.02)
    assert bounds.speed(64) == pytest.approx(speed, rel=0.01)
    assert bounds.window(8, 0) == bounds.encoder + bounds.keys_and_values


def test_8_bits_raise_the_roof_of_a_large_model() -> None:
    assert _bounds("large-v3", "fp8").speed(100_000) == pytest.approx(3699, rel=0.01)
    assert _bounds("large-v3").speed(100_000) == pytest.approx(2378, rel=0.01)
    assert _bounds("large-v3").speed(64) < _bounds("large-v3", "int8").speed(64) < _bounds("large-v3", "fp8").speed(64)


def test_beams_read_a_window_once() -> None:
    bounds = _bounds("large-v3")
    read = (bounds.step(5) - bounds.step(5, beams=5)) * H100.copy_bytes_per_s
    assert read == pytest.approx(4 * 245_760_000, rel=0.01)
    assert bounds.window(5, 10, 5) == pytest.approx(bounds.window(5, 0) + 10 * bounds.step(5, beams=5))


def test_a_device_has_ceilings() -> None:
    card = measure_card(torch.device("cpu"), torch.float32)
    assert card.product_per_s > 1e8
    assert card.copy_bytes_per_s > 1e7


@pytest.mark.parametrize(("kind", "at_once"), [("cpu", 1), ("cuda", 20)])
def test_a_gpu_is_given_enough_at_once_that_waiting_for_it_does_not_count(kind, at_once, monkeypatch) -> None:
    course: list[str] = []
    ticks = itertools.count(step=20.0)
    monkeypatch.setattr(device, "wait", lambda _: course.append("wait"))
    monkeypatch.setattr(device, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert device.least_time(lambda: course.append("work"), torch.device(kind)) == 20.0 / at_once
    assert course[:1] + course[-at_once - 2 :] == ["work", "wait", *["work"] * at_once, "wait"]

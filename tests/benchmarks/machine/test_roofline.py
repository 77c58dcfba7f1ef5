"""The bounds that a stage is held against."""

from dataclasses import replace

import pytest

from benchmarks.machine.roofline import Bounds, Ceilings, measure
from model.dims import ModelDimensions
from tests import tiny

BASE = ModelDimensions(
    n_mels=80, n_audio_ctx=1500, n_audio_state=512, n_audio_head=8, n_audio_layer=6,
    n_vocab=51_865, n_text_ctx=448, n_text_state=512, n_text_head=8, n_text_layer=6,
)  # fmt: skip
CEILINGS = Ceilings(products=1e12, float_products=1e11, attention=1e11, memory=1e10)


def test_the_base_models_work_by_hand() -> None:
    bounds = Bounds(BASE, CEILINGS, weight_bytes=1, audio_bytes=1)
    # 56.6 of 1000 GOP/s in projections, 27.6 of 100 in attention, 3.1 of 100 in convolutions.
    assert bounds.encoder == pytest.approx(0.0566 + 0.276 + 0.031, rel=0.01)
    assert bounds.cross_kv == pytest.approx(9.44e9 / 1e12, rel=0.01)


def test_a_step_reads_its_weights_once_and_each_window_once() -> None:
    bounds = Bounds(BASE, CEILINGS, weight_bytes=1, audio_bytes=1)
    weights, window = 48.57e6 / 1e10, 9.216e6 / 1e10
    assert bounds.step(1) == pytest.approx(weights + window, rel=0.01)
    assert bounds.step(8) == pytest.approx(weights + 8 * window, rel=0.01)
    assert bounds.step(5, windows=1) == pytest.approx(weights + window, rel=0.01)
    # From some number of rows on the products take longer than the reading.
    assert bounds.step(200, windows=0) == pytest.approx(200 * 2 * 48.57e6 / 1e12, rel=0.01)
    assert replace(bounds, weight_bytes=4, audio_bytes=4).step(1) == pytest.approx(4 * bounds.step(1))


def test_ceilings_are_of_this_machine() -> None:
    ceilings = measure(tiny.transcriber().model)
    assert ceilings.products == ceilings.float_products > 1e6
    assert ceilings.attention > 1e6
    assert ceilings.memory > 1e8

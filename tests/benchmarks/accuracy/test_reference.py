"""The reference as a system, on a tiny random network: what is noted, how it is seeded, how gaps are measured."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import whisper

from benchmarks.accuracy.gap import choice_gap
from benchmarks.accuracy.reference import Reference
from model.dims import ModelDimensions
from model.weights import Weights

pytestmark = pytest.mark.oracle

DIMS = ModelDimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=16,
    n_audio_head=2,
    n_audio_layer=1,
    n_vocab=51865,
    n_text_ctx=448,
    n_text_state=16,
    n_text_head=2,
    n_text_layer=1,
)


@pytest.fixture(scope="module")
def reference() -> Reference:
    torch.manual_seed(0)
    network = whisper.model.Whisper(
        whisper.model.ModelDimensions(**{name: getattr(DIMS, name) for name in DIMS.__slots__})
    )
    tensors = {key: torch.randn_like(value) * 0.3 for key, value in network.state_dict().items()}
    return Reference(Weights(DIMS, tensors, "tiny-random", None), device="cpu", compute_type="float32")


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)


def test_sampling_repeats_whatever_the_global_generator_did_before(reference: Reference, samples: np.ndarray) -> None:
    torch.manual_seed(1)
    first = reference.transcribe(samples, language="en", task="transcribe")
    attempts = reference.attempts
    torch.manual_seed(2)
    second = reference.transcribe(samples, language="en", task="transcribe")
    assert max(attempt.temperature for attempt in attempts) > 0
    assert attempts == reference.attempts
    assert first == second


def test_kept_answers_of_the_reference_outlive_changes_of_ours(reference: Reference) -> None:
    # Its version, its settings and the seeds that it is given; a change of these asks everything anew.
    assert reference.fingerprint == f"{whisper.__version__}/cpu/float32/seeds-dcf3cfa7"


def test_attempts_name_window_and_rung(reference: Reference, samples: np.ndarray) -> None:
    reference.transcribe(samples, language="en", task="transcribe")
    assert {attempt.window for attempt in reference.attempts} == {0}
    assert [attempt.temperature for attempt in reference.attempts] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_the_language_is_noted_where_it_was_detected(reference: Reference, samples: np.ndarray) -> None:
    found = reference.transcribe(samples, language=None, task="transcribe")
    assert found.language == max(found.language_probabilities, key=found.language_probabilities.__getitem__)
    assert found.language_probability == found.language_probabilities[found.language]
    named = reference.transcribe(samples, language="de", task="transcribe")
    assert (named.language, named.language_probability) == ("de", None)


def test_gap_is_antisymmetric_and_positive_for_the_greedy_choice(reference: Reference, samples: np.ndarray) -> None:
    reference.transcribe(samples, language="en", task="transcribe")
    step = reference.steps[0]
    tokens = step.result.tokens
    for position in (0, 1, 5):
        gap = SimpleNamespace(prefix=tuple(tokens[:position]), chosen=tokens[position])
        others = [token for token in (400, 1000, 50365, 50500) if token != gap.chosen]
        for other in others:
            forth = choice_gap(
                reference.network, step.result.audio_features, step.options, gap.prefix, chosen=gap.chosen, other=other
            )
            back = choice_gap(
                reference.network, step.result.audio_features, step.options, gap.prefix, chosen=other, other=gap.chosen
            )
            assert (forth is None) == (back is None)
            if forth is not None and back is not None:
                assert forth >= 0
                assert forth == -back

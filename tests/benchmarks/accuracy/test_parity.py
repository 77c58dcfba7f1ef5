from dataclasses import replace

import pytest

from benchmarks.accuracy.parity import (
    Attempt,
    Divergence,
    classify,
    first_divergence,
    threshold_margin,
    timestamps_equal,
    tokens_of,
)
from model.segments import Segment, Transcription

SEGMENT = Segment(0, 0, 0.0, 2.0, " Hi.", (50364, 2421, 13, 50464), 0.0, -0.3, 0.8, 0.01)


def attempt(
    window: int = 0, temperature: float = 0.0, tokens: tuple[int, ...] = (1, 2, 3), logprob: float = -0.3
) -> Attempt:
    return Attempt(window, temperature, tokens, logprob, 1.2, 0.01)


def transcription(*segments: Segment) -> Transcription:
    return Transcription("transcribe", "en", None, 2.0, "", segments)


def test_tokens_are_those_of_all_segments() -> None:
    assert tokens_of(transcription(SEGMENT, replace(SEGMENT, tokens=(7,)))) == [50364, 2421, 13, 50464, 7]


@pytest.mark.parametrize("change", [{"start": 0.02}, {"end": 2.02}, {"seek": 200}])
def test_timestamps_differ_by_a_step(change: dict[str, float]) -> None:
    one = transcription(SEGMENT)
    assert timestamps_equal(one, transcription(replace(SEGMENT, start=1e-9, text="other")))
    assert not timestamps_equal(one, transcription(replace(SEGMENT, **change)))
    assert not timestamps_equal(one, transcription())


def test_equal_attempts_do_not_diverge() -> None:
    assert first_divergence([attempt(), attempt(1)], [attempt(), attempt(1)]) is None


def test_the_first_differing_token_is_found_in_its_window() -> None:
    ours = [attempt(), attempt(1, tokens=(1, 9, 3)), attempt(2, tokens=(8,))]
    reference = [attempt(), attempt(1, tokens=(1, 2, 3)), attempt(2)]
    assert first_divergence(ours, reference) == Divergence(1, 0.0, position=1, ours=9, reference=2)


def test_a_shorter_window_differs_at_its_end() -> None:
    assert first_divergence([attempt(tokens=(1, 2))], [attempt()]) == Divergence(0, 0.0, 2, None, 3)
    assert first_divergence([attempt()], [attempt(tokens=(1, 2))]) == Divergence(0, 0.0, 2, 3, None)


def test_a_retry_of_one_side_alone_is_a_decision_on_the_attempt_before() -> None:
    refused = attempt(logprob=-1.004)
    divergence = first_divergence([refused, attempt(0, 0.2)], [refused, attempt(1)])
    assert divergence == Divergence(0, 0.0, margin=pytest.approx(0.004))
    assert first_divergence([refused], [refused, attempt(0, 0.2)]) == Divergence(0, 0.0, margin=pytest.approx(0.004))


def test_margin_is_that_of_the_nearest_threshold() -> None:
    assert threshold_margin(attempt(logprob=-0.9)) == pytest.approx(0.1)
    assert threshold_margin(replace(attempt(), compression_ratio=2.41)) == pytest.approx(0.01)
    assert threshold_margin(replace(attempt(), no_speech_prob=0.58)) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("divergence", "gap", "reason"),
    [
        (None, None, "other"),
        (Divergence(0, 0.0, 1, 2, 3), 0.0004, "near tie"),
        (Divergence(0, 0.0, 1, 2, 3), -0.0004, "near tie"),
        (Divergence(0, 0.0, 1, 2, 3), 0.3, "other"),
        (Divergence(0, 0.0, 1, 2, 3), None, "other"),
        (Divergence(0, 0.4, 1, 2, 3), 0.0004, "temperature sampling"),
        (Divergence(0, 0.0, margin=0.001), None, "threshold"),
        (Divergence(0, 0.0, margin=0.2), None, "other"),
    ],
)
def test_reasons(divergence: Divergence | None, gap: float | None, reason: str) -> None:
    assert classify(divergence, gap, near=0.01) == reason

"""Channels to one: nothing audible is lost, and ordinary stereo is what averaging gives."""

import numpy as np
import numpy.typing as npt
import pytest

from model.audio import decode_audio
from model.audio.downmix import ChannelStatistics, Downmix
from tests.sounds import Floats, float_wav, likeness, speechlike

A, B = speechlike(2.0), speechlike(2.0, seed=1)
NOISE = np.random.default_rng(3).normal(0, 1, len(A)).astype(np.float32)


def mixed(*channels: npt.NDArray[np.floating]) -> Floats:
    return decode_audio(float_wav(np.stack(channels, axis=1))).samples


def level(samples: Floats) -> float:
    return float(np.sqrt(np.mean(samples**2)))


def test_equal_channels_give_their_average() -> None:
    for count in (2, 3, 8):
        np.testing.assert_allclose(mixed(*[A] * count), A, atol=1e-6)


def test_ordinary_stereo_is_near_the_average() -> None:
    left, right = A + 0.1 * B, 0.9 * A - 0.1 * B + 0.01 * NOISE
    average = (left + right) / 2
    result = mixed(left, right)
    assert likeness(result, average) > 0.999
    assert level(result) == pytest.approx(level(average), rel=0.15)


@pytest.mark.parametrize("gain", [1.0, 0.7, 0.2])
def test_opposite_phase_does_not_cancel(gain: float) -> None:
    result = mixed(A, -gain * A)
    assert likeness(result, A) > 0.999
    assert level(result) == pytest.approx(level(A), rel=0.01)


def test_opposite_phase_in_noise_does_not_cancel() -> None:
    hiss = 0.01 * NOISE
    result = mixed(A + hiss, -A + hiss[::-1])
    assert likeness(result, A) > 0.98


@pytest.mark.parametrize("silent", [np.zeros_like(A), 1e-4 * NOISE], ids=["empty", "hiss"])
@pytest.mark.parametrize("count", [2, 6, 8])
def test_empty_channels_do_not_cost_level(silent: Floats, count: int) -> None:
    for place in (0, count - 1):
        channels = [silent] * count
        channels[place] = A
        result = mixed(*channels)
        assert likeness(result, A) > 0.999
        assert level(result) == pytest.approx(level(A), rel=0.01)


def test_two_speakers_are_both_kept() -> None:
    result = mixed(A, B)
    for voice in (A, B):
        assert likeness(result, voice) == pytest.approx(likeness(A + B, voice), abs=0.05)
    assert np.abs(result).max() == pytest.approx(max(np.abs(A).max(), np.abs(B).max()), rel=0.01)


def test_a_quiet_speaker_is_not_pushed_down_by_a_loud_one() -> None:
    quiet = 0.05 * B
    result = mixed(A, quiet)
    share = float(result @ quiet) / float(quiet @ quiet) - float(result @ A) / float(A @ A) * float(A @ quiet) / float(
        quiet @ quiet
    )
    assert share == pytest.approx(1.0, abs=0.1)


def test_speakers_who_take_turns_keep_their_level() -> None:
    half = len(A) // 2
    left, right = A.copy(), B.copy()
    left[half:] = 0
    right[:half] = 0
    result = mixed(left, right)
    np.testing.assert_allclose(result, left + right, atol=0.02)


def test_wide_stereo_loses_neither_the_middle_nor_the_sides() -> None:
    side = np.sqrt(3) * level(A) / level(B) * B
    result = mixed((A + side) / 4, (A - side) / 4)
    shares, *_ = np.linalg.lstsq(np.stack([A, side], axis=1), result, rcond=None)
    assert np.abs(shares).min() > 0.3 * np.abs(shares).max()


def _shares(result: Floats, *parts: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """How much of each part is in a mix, of parts that are equally loud."""
    return np.abs(np.linalg.lstsq(np.stack(parts, axis=1), result, rcond=None)[0])


@pytest.mark.parametrize("crosstalk", [0.05, 0.1, 0.125, 0.2, 0.25, 0.268, 0.3, 0.4, 0.6])
def test_a_reversed_lead_loses_nobody_whatever_the_crosstalk(crosstalk: float) -> None:
    voice = level(A) / level(B) * B
    loud, quiet = _shares(mixed(A + crosstalk * voice, -(voice + crosstalk * A)), A, voice)
    assert quiet > 0.35 * loud


@pytest.mark.parametrize("loudness", [0.5, 1.0, 1.4, 2.0])
def test_hum_in_opposite_phase_drowns_nobody(loudness: float) -> None:
    voice = level(A) / level(B) * B
    hum = loudness * level(A) * np.sqrt(2) * np.sin(2 * np.pi * 50 * np.arange(len(A)) / 16_000)
    shares = _shares(mixed(A + hum, voice - hum), A, voice, hum)
    assert shares[:2].min() > 0.35 * shares[:2].max()


def test_a_constant_offset_means_nothing() -> None:
    result = mixed(A + 0.3, A - 0.3)
    assert likeness(result - result.mean(), A) > 0.999


def test_silence_stays_silence() -> None:
    np.testing.assert_array_equal(mixed(np.zeros(1_600), np.zeros(1_600)), np.zeros(1_600, np.float32))


def test_the_mix_never_clips_what_did_not_clip() -> None:
    for first, second in ((A, B), (A, -A), (A, 0.5 * A + B)):
        channels = np.stack([first, second], axis=1) / 2
        assert np.abs(mixed(*channels.T)).max() <= np.abs(channels).max() + 1e-6


def test_statistics_do_not_depend_on_the_blocks() -> None:
    channels = np.stack([A, 0.5 * B - 0.3 * A, NOISE / 10], axis=1).astype(np.float32)
    whole, parts = ChannelStatistics(3), ChannelStatistics(3)
    whole.add(channels)
    for start in range(0, len(channels), 777):
        parts.add(channels[start : start + 777])
    np.testing.assert_allclose(parts.weights(), whole.weights(), atol=1e-9)
    mix = Downmix(whole.weights())
    assert mix.scale == 1.0
    mix.mix(channels)
    assert 0.3 < mix.scale < 1.0

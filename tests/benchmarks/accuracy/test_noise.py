"""The recordings without speech, in noise, and long ones, made of the shipped clips."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.noise import CLEAN, NOISES, RATIOS, group_name, mix, speech_in_noise, without_speech
from benchmarks.longform import long_items

AUDIO = Path(__file__).parents[2] / "audio"


@pytest.mark.parametrize("ratio", RATIOS)
def test_noise_is_so_many_decibels_below_speech(ratio: int) -> None:
    generator = np.random.default_rng(0)
    speech = 0.01 * generator.standard_normal(16_000).astype(np.float32)
    noise = generator.standard_normal(16_000).astype(np.float32)
    rest = mix(speech, noise, ratio) - speech
    assert 10 * np.log10(np.mean(speech**2) / np.mean(rest**2)) == pytest.approx(ratio, abs=0.01)


def test_a_mixture_that_would_clip_is_softer_as_a_whole() -> None:
    speech = np.array([0.9, -0.9] * 100, np.float32)
    mixed = mix(speech, np.ones(200, np.float32), 0)
    assert np.abs(mixed).max() == pytest.approx(1.0)


def test_a_clip_comes_clean_and_in_each_noise_at_each_ratio_the_same_every_time() -> None:
    first, second = (list(speech_in_noise(AUDIO, limit=1)) for _ in range(2))
    groups = [item.group for item, _ in first]
    assert groups == [CLEAN, *(group_name(noise, ratio) for noise in NOISES for ratio in RATIOS)]
    assert len({item.name for item, _ in first}) == 1
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(first, second, strict=True))
    clean = first[0][1]
    for white_or_babble in (first[1:5], first[5:]):
        distances = [float(np.std(samples / np.std(samples) - clean / np.std(clean))) for _, samples in white_or_babble]
        assert all(less < more for less, more in pairwise(distances))


def test_sounds_without_speech_are_the_corpus_s_and_synthetic_ones() -> None:
    sounds = [item for item, _ in without_speech(AUDIO, limit=3)]
    assert [item.group for item in sounds] == ["corpus"] * 2 + ["synthetic"] * 3
    assert {(item.text, item.language, item.spoken) for item in sounds} == {("", None, None)}
    assert {item.seconds for item in sounds} == {5.0, 20.0}


def test_long_recordings_are_found_and_made() -> None:
    asked = list(long_items(AUDIO))
    assert [item.name for item, _ in asked if item.group == "as found"] == ["en-printing.ogg"]
    made = {item.name for item, _ in asked} - {"en-printing.ogg"}
    assert "en joined" in made
    assert {item.spoken for item, _ in asked} <= {"en", "fr", "de", "es"}
    for item, samples in asked:
        assert (item.pass_name, item.language) == ("longform", item.spoken)
        assert item.seconds == pytest.approx(len(samples) / 16_000)
        assert item.text

"""Recordings for asking what a system invents and what it loses: sounds without speech, and speech in noise.

Gives items and waveforms to `benchmarks.evaluate`; the same ones every time. Sounds without speech are the corpus's
`nospeech` clips and synthetic ones; speech in noise is some of the corpus's clips with white noise or with babble (the
sum of other clips) at signal-to-noise ratios as in the paper's Figure 5. Speech keeps its level; noise is scaled to it.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.corpus import NO_SPEECH, Clip, read_corpus
from benchmarks.accuracy.items import Item
from benchmarks.accuracy.systems import Samples
from benchmarks.accuracy.waveform import read_waveform

RATE = 16_000
RATIOS = (20, 10, 5, 0)
"""Decibels of speech over noise."""
NOISES = ("white", "babble")
CLEAN = "clean"
_LANGUAGES = (("en", 18), ("de", 2), ("fr", 2), ("es", 2), ("it", 2), ("nl", 2), ("pt", 2))
"""Clips of each language that are put into noise."""
_SECONDS = 20
_VOICES = 8


def without_speech(corpus: Path, *, limit: int | None = None) -> Iterator[tuple[Item, Samples]]:
    """The corpus's clips without speech (group `corpus`), then 20 s each of synthetic sounds (`synthetic`)."""
    found = ((clip.file, "corpus", read_waveform(clip.path)) for clip in _clips(corpus, (NO_SPEECH,)))
    made = ((name, "synthetic", np.asarray(samples, np.float32)) for name, samples in _sounds())
    for sounds in (found, made):
        for name, group, samples in islice(sounds, limit):
            yield Item("nospeech", name, group, None, False, "", len(samples) / RATE), samples


def speech_in_noise(corpus: Path, *, limit: int | None = None) -> Iterator[tuple[Item, Samples]]:
    """Every chosen clip as it is (group `clean`), then in each noise at each ratio (`white 10 dB`, ...)."""
    clips = [clip for clip in _clips(corpus, ("read", "spontaneous")) if clip.text]
    chosen, others = _choose(clips)
    waves = [read_waveform(clip.path) for clip in others]
    for number, clip in enumerate(chosen[:limit]):
        speech = read_waveform(clip.path)
        yield _item(clip, CLEAN, speech), speech
        generator = np.random.default_rng(number)
        noises = {
            "white": generator.standard_normal(len(speech)).astype(np.float32),
            "babble": _babble(waves, len(speech), generator),
        }
        for kind in NOISES:
            for ratio in RATIOS:
                yield _item(clip, group_name(kind, ratio), speech), mix(speech, noises[kind], ratio)


def group_name(noise: str, ratio: int) -> str:
    """What recordings in this noise at this ratio are counted among."""
    return f"{noise} {ratio} dB"


def mix(speech: Samples, noise: Samples, ratio: float) -> Samples:
    """Speech (n,) with noise (n,) at so many decibels below it by mean power; softer as a whole where it would clip."""
    power = float(np.mean(np.square(speech, dtype=np.float64)))
    gain = np.sqrt(power / 10 ** (ratio / 10) / max(float(np.mean(np.square(noise, dtype=np.float64))), 1e-12))
    mixed = speech + np.float32(gain) * noise
    return np.asarray(mixed / max(1.0, float(np.abs(mixed).max())), np.float32)


def _clips(corpus: Path, kinds: Sequence[str]) -> list[Clip]:
    """Those of some kinds; none where the corpus has none."""
    return [clip for clip in read_corpus(corpus) if clip.kind in kinds]


def _item(clip: Clip, group: str, samples: Samples) -> Item:
    return Item("noise", clip.file, group, clip.language, True, clip.text, len(samples) / RATE)


def _choose(clips: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Clips of 2 to 9 s for each language, longest quota first in turn, and those that babble.

    A corpus with too few clips for both lets all of them babble.
    """
    generator = random.Random(0)
    short = [clip for clip in clips if 2.0 <= clip.seconds <= 9.0]
    generator.shuffle(short)
    chosen: list[Clip] = []
    for language, count in _LANGUAGES:
        chosen += [clip for clip in short if clip.language == language][:count]
    generator.shuffle(chosen)
    others = [clip for clip in short if clip not in chosen][:40]
    return chosen, others if len(others) >= _VOICES else short


def _babble(waves: Sequence[Samples], length: int, generator: np.random.Generator) -> Samples:
    """Several people at once, equally loud, each from somewhere in what they say."""
    total = np.zeros(length, np.float32)
    for index in generator.choice(len(waves), _VOICES, replace=len(waves) < _VOICES):
        wave = np.roll(waves[index], int(generator.integers(len(waves[index]))))
        voice = np.resize(wave, length)
        total += voice / max(float(np.sqrt(np.mean(np.square(voice)))), 1e-6)
    return total


def _sounds() -> Iterator[tuple[str, NDArray[np.float64]]]:
    generator = np.random.default_rng(0)
    n = _SECONDS * RATE
    seconds = np.arange(n) / RATE
    white = generator.standard_normal(n)
    spectrum, frequencies = np.fft.rfft(white), np.maximum(np.fft.rfftfreq(n, 1 / RATE), 20.0)
    for level in (-60, -40, -20, -10):
        for name, exponent in (("white", 0.0), ("pink", 0.5), ("brown", 1.0)):
            noise = np.fft.irfft(spectrum / frequencies**exponent, n)
            yield f"{name} noise at {level} dB", noise * 10 ** (level / 20) / np.abs(noise).max()
    yield "silence", np.zeros(n)
    for pitch in (50, 60, 120):
        hum = sum(np.sin(2 * np.pi * pitch * harmonic * seconds) / harmonic for harmonic in (1, 2, 3, 5))
        yield f"hum at {pitch} Hz", 0.05 * hum + 0.001 * white
    for tempo in (1.0, 2.0, 4.0):
        yield f"tune of {tempo:.0f} notes a second", _tune(seconds, tempo, generator)
    yield "beeps", 0.3 * np.sin(2 * np.pi * 1000 * seconds) * (seconds % 2.0 < 0.2)
    yield "ringing", 0.2 * (np.sin(2 * np.pi * 440 * seconds) + np.sin(2 * np.pi * 480 * seconds)) * (seconds % 6 < 2)
    yield "rumble and knocks", 0.02 * white + 0.5 * np.exp(-60 * (seconds % 0.7)) * np.sin(2 * np.pi * 180 * seconds)


def _tune(seconds: NDArray[np.float64], tempo: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Plucked notes with overtones over a low second voice."""
    notes = 220.0 * 2.0 ** (generator.integers(0, 13, int(seconds[-1] * tempo) + 1) / 12.0)
    pitch = notes[(seconds * tempo).astype(int)]
    fade = np.exp(-2.0 * (seconds * tempo % 1.0))
    tone = sum(np.sin(2 * np.pi * k * pitch * seconds) / k for k in (1, 2, 3))
    return np.asarray(0.1 * fade * tone + 0.05 * np.sin(np.pi * pitch / 2 * seconds))

"""What `benchmarks.peers` asks of everybody: recordings of a corpus, or of a file of clips, as 16 kHz WAV.

A corpus (`benchmarks.accuracy.corpus`) needs codecs; a file that `benchmarks.texts take` wrote needs none, and has
clips of up to 30 s only.
"""

import random
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.corpus import Clip, read_corpus
from benchmarks.peer.engine import RATE
from benchmarks.texts import taken

AUDIO = Path(__file__).parents[2] / "tests" / "audio"
SHIPPED = {"short": "en-stereo.flac", "clip": "en-jfk.flac", "minute": "en-printing.ogg"}
SCENARIOS = (*SHIPPED, "long", "streams")
_SECONDS = {"short": 3.5, "clip": 11.0}
"""Of one request, where clips are taken from a file: the clip that is nearest to it."""
_LONG = 120.0
_REQUEST = (2.0, 28.0)
"""Seconds of a stream's request: what fits a window, so that every peer may batch it."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is sent at once, as WAV, and what is said in it."""

    name: str
    key: str
    paths: tuple[Path, ...]
    texts: tuple[str, ...]
    seconds: float


def scenarios(source: Path, keys: Sequence[str], requests: int, cache: Path) -> list[Scenario]:
    """The recordings of every scenario for which `source` has some; the same ones every time."""
    chosen = _of_file(source, requests, cache) if source.suffix == ".npz" else _of_corpus(source, requests, cache)
    return [_scenario(key, chosen[key]) for key in keys if chosen.get(key)]


_Recording = tuple[Path, str, float]
"""A WAV, what is said in it, and its seconds."""


def _of_corpus(corpus: Path, requests: int, cache: Path) -> dict[str, list[_Recording]]:
    from benchmarks.accuracy.waveform import read_waveform  # codecs

    shipped = {clip.file: clip for clip in read_corpus(AUDIO)}
    english = [clip for clip in read_corpus(corpus, languages=("en",)) if clip.text]
    spoken = [clip for clip in english if clip.kind in ("read", "spontaneous")]
    short = [clip for clip in spoken if _REQUEST[0] <= clip.seconds <= _REQUEST[1]]
    chosen: dict[str, list[Clip]] = {key: [shipped[file]] for key, file in SHIPPED.items()}
    chosen["long"] = [clip for clip in english if clip.kind == "longform" and clip.seconds >= _LONG][:1]
    chosen["streams"] = random.Random(0).sample(short, min(requests, len(short)))

    def recording(clip: Clip) -> _Recording:
        samples = np.clip(np.rint(read_waveform(clip.path) * 32768), -32768, 32767)
        return _write_wav(samples, cache, clip.path.stem), str(clip.text), clip.seconds

    return {key: [recording(clip) for clip in clips] for key, clips in chosen.items()}


def _of_file(file: Path, requests: int, cache: Path) -> dict[str, list[_Recording]]:
    about, sounds = taken(file)
    english = [
        (sound, clip) for sound, clip in zip(sounds, about, strict=True) if clip["language"] == "en" and clip["text"]
    ]
    if not english:
        raise ValueError(f"{file} has no English clip")

    def seconds(sound: NDArray[np.int16]) -> float:
        return len(sound) / RATE

    def recording(sound: NDArray[np.int16], clip: dict[str, str]) -> _Recording:
        return _write_wav(sound, cache, Path(clip["file"]).stem), clip["text"], seconds(sound)

    chosen = {
        key: [recording(*min(english, key=lambda one: abs(seconds(one[0]) - wanted)))]
        for key, wanted in _SECONDS.items()
    }
    short = [one for one in english if _REQUEST[0] <= seconds(one[0]) <= _REQUEST[1]]
    some = random.Random(0).sample(short, min(requests, len(short)))
    return chosen | {"streams": [recording(*one) for one in some]}


def _scenario(key: str, recordings: Sequence[_Recording]) -> Scenario:
    paths, texts, lengths = zip(*recordings, strict=True)
    seconds = sum(lengths)
    name = (
        f"8 streams, {len(paths)} requests of {seconds:.0f} s"
        if key == "streams"
        else f"one request of {seconds:.1f} s"
    )
    return Scenario(name, key, paths, texts, seconds)


def _write_wav(samples: NDArray[np.floating | np.int16], cache: Path, name: str) -> Path:
    target = cache / "audio" / f"{name}.wav"
    target.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(target), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return target

"""What an evaluation asks: one waveform in one pass, and what is known about it.

Made here of the corpus's clips, in `benchmarks.longform` and `benchmarks.accuracy.noise` of more; answered by
`benchmarks.accuracy.systems`, counted by `benchmarks.accuracy.summary`. An `Item` does not hold its waveform: the two
travel side by side, so that counting keeps no audio.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.accuracy.corpus import SPEECH, Clip
from benchmarks.accuracy.systems import Samples
from benchmarks.accuracy.waveform import read_waveform
from model.errors import AudioError

CLIP_PASSES = ("given", "auto", "translate")
PASSES = (*CLIP_PASSES, "longform", "nospeech", "noise")
"""The language named; detected; translation to English; long recordings; sounds without speech; speech in noise."""
TAKE_SAMPLES = 37
"""2.3 ms of silence more before each take of a clip: no hop of the spectrogram is the same, and nobody hears it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One waveform in one pass."""

    pass_name: str
    name: str
    group: str
    """What it is counted among: the clip's kind, what lies between long recordings' clips, the noise."""
    spoken: str | None
    """Language; None where nobody speaks, or nobody knows."""
    named: bool
    """Whether the system is told the language."""
    text: str | None
    """What it should answer: None where nobody knows, empty where nobody speaks."""
    seconds: float
    task: str = "transcribe"
    origin: str = "source"
    """Of the text, as in `Clip`."""

    @property
    def language(self) -> str | None:
        """What the system is told."""
        return self.spoken if self.named else None


def asked(clip: Clip, pass_name: str) -> Item | None:
    """What a pass over the clips asks about one of them; None where it takes no part."""
    if clip.kind not in SPEECH or (clip.language is None and pass_name != "auto"):
        return None
    named, text, task = pass_name != "auto", clip.text, "transcribe"
    if pass_name == "translate":
        if clip.language == "en" or not clip.translation:
            return None
        text, task = clip.translation, "translate"
    return Item(pass_name, clip.file, clip.kind, clip.language, named, text, clip.seconds, task, clip.origin)


def clip_items(
    clips: Iterable[Clip], pass_name: str, refused: dict[str, str], *, takes: int = 1
) -> Iterator[tuple[Item, Samples]]:
    """Items of a pass with their waveforms; files that our decoder refuses go to `refused`: the reason, by name.

    Of several `takes` each but the first begins a little later: what differs between them is chance.
    """
    for clip in clips:
        item = asked(clip, pass_name)
        if item is not None:
            try:
                samples = read_waveform(clip.path)
            except AudioError as error:
                refused[clip.file] = str(error)
                continue
            for take in range(takes):
                yield item, np.pad(samples, (take * TAKE_SAMPLES, 0))


def sample(clips: Sequence[Clip], limit: int | None) -> list[Clip]:
    """At most so many clips, always the same ones, in their order."""
    if limit is None or limit >= len(clips):
        return list(clips)
    return [clips[i] for i in sorted(random.Random(0).sample(range(len(clips)), limit))]

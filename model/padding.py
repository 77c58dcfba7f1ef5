"""The padding behind a short clip: what the encoder makes of it is known before the clip is heard.

The model hears 30 s at a time, and most of what people send is shorter. The reference computes the zeros that fill the
window like speech: of a clip of five seconds that is five sixths of the encoder. Leaving them out costs accuracy, since
the model was trained to look at them (benchmarks/LOG.md). But they start as the same numbers in every window, and what
the layers make of them differs little from clip to clip: by a tenth, of which most is the same at all their positions.

So `learn` hears some clips once and remembers the mean keys, values and features of every padded position. Then a
`PaddedEncoder` computes the positions of a clip, the second behind it and a few probes of the padding. The rest is as
remembered, moved by what the probes differ from it, on average. Every position still attends to all 1500.

The clips are read from `assets/speech.npz`; a model's own numbers are made from them when it is loaded, in its own
arithmetic, and `model.padding_store` keeps them for the next time. Windows are encoded one by one: a window's features
do not depend on its neighbours.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from model.dims import HOP_LENGTH
from model.mel import LogMel, MelSpan
from model.whisper import AudioEncoder, EncoderBlock, Whisper

_MARGIN = 50
"""Positions behind the clip that are computed with it: a second."""
_PROBES = 24
"""Padded positions that are computed, at equal distances."""
_NEAR = 25
"""Padded positions next to a clip that nothing is learned from: they still hear its end."""


@dataclass(frozen=True, slots=True)
class Padding:
    """What an encoder makes of padding: means over clips of speech, float16, which is finer than the clips agree."""

    keys_values: Tensor
    """Of every block (n_audio_layer, n_audio_ctx, 2 * n_state)."""
    features: Tensor
    """(n_audio_ctx, n_state)."""
    first: int
    """Nothing is known of the positions before."""


class Store(Protocol):
    """Where a `Padding` is kept between starts; `model.padding_store` implements it."""

    def read(self) -> Padding | None:
        """What was kept; None if nothing was, or nothing that can be used."""
        ...

    def write(self, padding: Padding) -> None:
        """Keep it, where that is possible."""
        ...


def shorten(model: Whisper, store: Store | None = None) -> None:
    """Change a model on a CPU in place: its encoder computes of a short clip's window only what it must.

    What `encoder_context=short` means. In int8 call it after `model.quantize`: it learns what that encoder makes,
    unless the store holds it.
    """
    encoder = model.encoder
    if not isinstance(encoder, AudioEncoder):
        raise TypeError("the encoder of this model is shortened already")
    padding = store.read() if store else None
    if padding is None:
        padding = learn(encoder, ((mel.to(model.dtype), n) for mel, n in speech_windows(model.dims.n_mels)))
        if store:
            store.write(padding)
    model.encoder = PaddedEncoder(encoder, padding)
    model.encoder_context = "short"


@torch.inference_mode()
def learn(encoder: AudioEncoder, windows: Iterable[tuple[Tensor, int]]) -> Padding:
    """Hear windows (1, n_mels, 2 * n_audio_ctx) with so many frames of content each.

    `ValueError` where no window has any padding.
    """
    n_ctx, n_state = encoder.positional_embedding.shape
    keys_values = torch.zeros(len(encoder.blocks), n_ctx, 2 * n_state)
    features = torch.zeros(n_ctx, n_state)
    heard = torch.zeros(n_ctx, 1)
    for mel, n_frames in windows:
        start = positions(n_frames) + _NEAR
        heard[start:] += 1
        for total, part in zip((*keys_values, features), _layers(encoder, mel), strict=True):
            total[start:] += part[start:]
    if not heard[-1]:
        raise ValueError("none of the windows has padding")
    n_heard = heard.clamp(min=1)
    return Padding((keys_values / n_heard).half(), (features / n_heard).half(), first=int(heard.argmax()))


def _layers(encoder: AudioEncoder, mel: Tensor) -> Iterator[Tensor]:
    """Keys and values (n_audio_ctx, 2 * n_state) of every block, then the features (n_audio_ctx, n_state)."""
    x = encoder.begin(mel)
    for block in cast(list[EncoderBlock], list(encoder.blocks)):
        query, keys_values = block.project(x)
        yield keys_values[0]
        x = block.attend(x, query, keys_values)
    yield encoder.ln_post(x)[0]


class PaddedEncoder(nn.Module):
    """In place of an `AudioEncoder`, for windows that are partly padding: several times as fast on short clips."""

    def __init__(self, encoder: AudioEncoder, padding: Padding) -> None:
        super().__init__()
        self.encoder, self.padding = encoder, padding
        self._blocks = cast(list[EncoderBlock], list(encoder.blocks))
        self._n_ctx = len(encoder.positional_embedding)
        nothing = encoder.positional_embedding.new_zeros(1, encoder.conv1.in_channels, 6)
        self._silent = encoder.convolve(nothing)[0, 1]

    def forward(self, mel: Tensor, n_frames: Sequence[int] | None = None) -> Tensor:
        """See `Whisper.encode`."""
        if n_frames is None:
            return self.encoder(mel)  # type: ignore[no-any-return]
        return torch.cat([self._encode(window[None], n) for window, n in zip(mel, n_frames, strict=True)])

    def _encode(self, mel: Tensor, n_frames: int) -> Tensor:
        end = max(positions(n_frames) + _MARGIN, self.padding.first)
        if end + _PROBES >= self._n_ctx:
            return self.encoder(mel)  # type: ignore[no-any-return]
        probes = end + ((torch.arange(_PROBES) + 0.5) * (self._n_ctx - end) / _PROBES).long()
        where = self.encoder.positional_embedding
        # Two frames more than the positions cover: what the convolutions see beyond the last one.
        heard = self.encoder.convolve(mel[:, :, : 2 * end + 2])[0, :end] + where[:end]
        x = torch.cat([heard, self._silent + where[probes]])[None]
        everything = x.new_empty(1, *self.padding.keys_values.shape[1:])
        for block, known in zip(self._blocks, self.padding.keys_values, strict=True):
            query, keys_values = block.project(x)
            x = block.attend(x, query, _complete(keys_values, known, probes, everything))
        known = self.padding.features
        return _complete(self.encoder.ln_post(x), known, probes, x.new_empty(1, *known.shape))


def positions(n_frames: int) -> int:
    """Positions of the encoder that hear so many frames: two frames each."""
    return -(-n_frames // 2)


def speech_windows(n_mels: int) -> Iterator[tuple[Tensor, int]]:
    """Windows of the clips that the padding is learned from, with their frames of content."""
    log_mel = LogMel(n_mels)
    with files("model").joinpath("assets/speech.npz").open("rb") as file:
        for clip in np.load(file).values():
            samples = torch.from_numpy(clip)
            n_frames = len(samples) // HOP_LENGTH
            yield log_mel.windows([MelSpan(samples, 0, n_frames, log_mel.maximum(samples))]), n_frames


def _complete(computed: Tensor, known: Tensor, probes: Tensor, out: Tensor) -> Tensor:
    """All positions (1, n_audio_ctx, width) from what was computed, the clip and then the probes, and what is known."""
    end = computed.shape[1] - len(probes)
    out[0, :end] = computed[0, :end]
    moved = (computed[0, end:] - known[probes]).mean(0)
    torch.add(known[end:], moved, out=out[0, end:])
    return out

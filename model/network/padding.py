"""The padding behind a short clip: what the encoder makes of it is known before the clip is heard.

The model hears 30 s at a time, and most of what people send is shorter. The reference computes the zeros that fill the
window like speech: of a clip of five seconds that is five sixths of the encoder. Leaving them out costs accuracy, since
the model was trained to look at them (benchmarks/LOG.md). But they start as the same numbers in every window, and what
the layers make of them differs little from clip to clip, and at all their positions together: where a few are known,
the others can be told.

So `learn` hears some clips once and remembers the mean keys, values and features of every padded position, and how what
differs from them goes together with thirty of them, the probes. Then a `PaddedEncoder` computes the positions of a
clip, the second behind it and the probes of its padding. The rest is as remembered, and as the probes tell (the best
linear estimate, Gaussian process regression over positions). Every position still attends to all 1500.

The clips are made of `assets/speech.npz`; a model's own numbers are made from them when it is loaded, in its own
arithmetic, and `model.network.padding_store` keeps them for the next time. Windows are encoded one by one: a window's
features do not depend on its neighbours.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.dims import HOP_LENGTH
from model.mel import LogMel, MelSpan
from model.network.blocks import EncoderBlock
from model.network.whisper import AudioEncoder, Whisper

_MARGIN = 50
"""Positions behind the clip that are computed with it: a second."""
_SPACING = 50
"""From one probe to the next, which is computed where it is padding."""
_NEAR = 25
"""Padded positions next to a clip that nothing is learned from: they still hear its end."""
_OWN = 0.3
"""How much of a probe's variance is taken for its own, and tells nothing of others: with less, rare clips go astray."""
_LEAST_VARIANCE = 1e-8
"""What is less, as in the first block, is rounding, and tells nothing."""


@dataclass(frozen=True, slots=True)
class Padding:
    """What an encoder makes of padding: means over clips of speech, float16, which is finer than the clips agree."""

    keys_values: Tensor
    """Of every block (n_audio_layer, n_audio_ctx, 2 * n_state)."""
    features: Tensor
    """(n_audio_ctx, n_state)."""
    covariances: Tensor
    """Of every position with every probe (2 * n_audio_layer + 1, n_audio_ctx, n_probes), over clips and dimensions: of
    each block's keys and its values, then of the features; 1 is the mean variance of the probes."""
    first: int
    """Nothing is known of the positions before."""


class Store(Protocol):
    """Where a `Padding` is kept between starts; `model.network.padding_store` implements it."""

    def read(self) -> Padding | None:
        """What was kept; None if nothing was, or nothing that can be used."""
        ...

    def write(self, padding: Padding) -> None:
        """Keep it, where that is possible."""
        ...


def shorten(model: Whisper, store: Store | None = None) -> None:
    """Change a model on a CPU in place: its encoder computes of a short clip's window only what it must.

    What `encoder_context=short` means. In int8 call it after `model.native.quantize`: it learns what that encoder
    makes, unless the store holds it.
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


def probe_positions(n_ctx: int) -> Tensor:
    """Where probes are, of so many positions."""
    return torch.arange(_SPACING // 2, n_ctx, _SPACING)


@torch.inference_mode()
def learn(encoder: AudioEncoder, windows: Iterable[tuple[Tensor, int]]) -> Padding:
    """Hear windows (1, n_mels, 2 * n_audio_ctx) with so many frames of content each, block by block side by side.

    `ValueError` where no window has any padding.
    """
    n_ctx = len(encoder.positional_embedding)
    heard = [(positions(n_frames) + _NEAR, _layers(encoder, mel)) for mel, n_frames in windows]
    padded = torch.stack([torch.arange(n_ctx) >= start for start, _ in heard])[:, :, None].float()
    counts = padded.sum(0)
    if not counts[-1]:
        raise ValueError("none of the windows has padding")
    share = padded / counts.clamp(min=1)
    means: list[Tensor] = []
    covariances: list[Tensor] = []
    for layer in zip(*(layers for _, layers in heard), strict=True):
        found = [part.float() for part in layer]
        mean = sum(part * weight for part, weight in zip(found, share, strict=True))
        moved = ((part - mean) * weight.sqrt() for part, weight in zip(found, share, strict=True))
        is_block = len(means) < len(encoder.blocks)
        covariances.append(_covariances(moved, 2 if is_block else 1))
        means.append(cast(Tensor, mean))
    return Padding(
        torch.stack(means[:-1]).half(),
        means[-1].half(),
        torch.cat(covariances).half(),
        first=int((counts > 0).int().argmax()),
    )


def _covariances(moved: Iterable[Tensor], n_parts: int) -> Tensor:
    """Differences from the mean, (n_audio_ctx, width) of each window, divided by the root of how many windows have
    padding there -> what `Padding.covariances` has of them, (n_parts, n_audio_ctx, n_probes).

    So they are covariances whatever windows are padding where: no estimate from them can run away.
    """
    total = torch.zeros(())
    for each in moved:
        parts = each.view(len(each), n_parts, -1).transpose(0, 1)
        total = total + parts @ parts[:, probe_positions(len(each))].mT
    variance = total[:, probe_positions(total.shape[1])].diagonal(dim1=1, dim2=2)
    mean = variance.sum(1) / (variance > 0).sum(1).clamp(min=1)
    return total * torch.where(mean > _LEAST_VARIANCE, 1 / mean, 0.0)[:, None, None]


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
        self._probes = probe_positions(len(encoder.positional_embedding))
        nothing = encoder.positional_embedding.new_zeros(1, encoder.conv1.in_channels, 6)
        self._silent = encoder.convolve(nothing)[0, 1]

    def forward(self, mel: Tensor, n_frames: Sequence[int] | None = None) -> Tensor:
        """See `Whisper.encode`."""
        if n_frames is None:
            return self.encoder(mel)  # type: ignore[no-any-return]
        return torch.cat([self._encode(window[None], n) for window, n in zip(mel, n_frames, strict=True)])

    def _encode(self, mel: Tensor, n_frames: int) -> Tensor:
        end = max(positions(n_frames) + _MARGIN, self.padding.first)
        probes = self._probes[self._probes >= end]
        if not len(probes):
            return self.encoder(mel)  # type: ignore[no-any-return]
        where = self.encoder.positional_embedding
        # Two frames more than the positions cover: what the convolutions see beyond the last one.
        heard = self.encoder.convolve(mel[:, :, : 2 * end + 2])[0, :end] + where[:end]
        x = torch.cat([heard, self._silent + where[probes]])[None]
        weights = _estimator(self.padding.covariances, probes, end).to(x.dtype)
        everything = x.new_empty(1, *self.padding.keys_values.shape[1:])
        for i, (block, known) in enumerate(zip(self._blocks, self.padding.keys_values, strict=True)):
            query, keys_values = block.project(x)
            complete = _complete(keys_values, known, probes, weights[2 * i : 2 * i + 2], everything)
            x = block.attend(x, query, complete)
        known = self.padding.features
        return _complete(self.encoder.ln_post(x), known, probes, weights[-1:], x.new_empty(1, *known.shape))


def positions(n_frames: int) -> int:
    """Positions of the encoder that hear so many frames: two frames each."""
    return -(-n_frames // 2)


def speech_windows(n_mels: int) -> Iterator[tuple[Tensor, int]]:
    """Windows of the clips that the padding is learned from, with their frames of content."""
    log_mel = LogMel(n_mels)
    for clip in _clips():
        samples = torch.from_numpy(clip)
        n_frames = len(samples) // HOP_LENGTH
        yield log_mel.windows([MelSpan(samples, 0, n_frames, log_mel.maximum(samples))]), n_frames


def _clips() -> Iterator[npt.NDArray[np.float32]]:
    """2.5 s as they are and ever lower, and 10 s in ever less noise: padding differs by both, and by the length."""
    with files("model").joinpath("assets/speech.npz").open("rb") as file:
        spoken = [clip.astype(np.float32) / 32768 for clip in np.load(file).values()]
    for clip, level in zip(spoken, (1.0, 0.3, 0.1, 0.03, 0.01), strict=True):
        yield clip * np.float32(level)
    random = np.random.default_rng(0)
    for i, decibels in enumerate((5, 10, 15, 20, 40)):
        clip = np.concatenate([spoken[(i + k) % len(spoken)] for k in (0, 2, 4, 1)])
        noise = random.standard_normal(len(clip), np.float32)
        yield clip + noise * clip.std() * np.float32(10 ** (-decibels / 20))


def _estimator(covariances: Tensor, probes: Tensor, end: int) -> Tensor:
    """What a position from `end` on differs from its mean, by what the probes do: (n, n_audio_ctx - end, n_probes)."""
    seen = covariances[:, :, -len(probes) :].float()
    among: Tensor = torch.linalg.inv(seen[:, probes] + _OWN * torch.eye(len(probes)))
    return seen[:, end:] @ among


def _complete(computed: Tensor, known: Tensor, probes: Tensor, weights: Tensor, out: Tensor) -> Tensor:
    """All positions (1, n_audio_ctx, width) from what was computed, the clip and then the probes, and what is known.

    `weights`: one `_estimator` for each equal part of the width.
    """
    end = computed.shape[1] - len(probes)
    out[0, :end] = computed[0, :end]
    out[0, end:] = known[end:]
    moved = (computed[0, end:] - known[probes]).to(out.dtype)
    parts = (rest.chunk(len(weights), -1) for rest in (out[0, end:], moved))
    for part, told, weight in zip(*parts, weights, strict=True):
        part.addmm_(weight, told)
    return out

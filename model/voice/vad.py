"""Where somebody speaks: Silero's voice activity detector over a whole recording.

Gets 16 kHz samples from `audio` or the service, gives one speech probability for every 32 ms to `model.voice.speech`.

- The network is run here, from its published weights: every chunk's spectrum and convolutions in one pass, then the
  recurrent layer over the sequence. The numbers are those of the publisher's program, which goes chunk by chunk, in a
  fraction of its time.
- It hears nobody in a recording that is very low, where the model still does. So such a recording is raised for it.
- A `SpeechScan` goes block by block and carries the recurrent state, so that memory is that of one block and whoever
  runs it can do other work in between.
- The package that brings the weights is data: its SHA-256 is checked, its arrays are read, none of its code runs.

Source: snakers4/silero-vad 6.2 (MIT), `silero_vad.jit`, its 16 kHz half.
"""

import io
import zipfile
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from model.errors import WeightsError
from model.transfer import Fetched, send
from model.weights.blob import open_blob
from model.weights.registry import PackageSource
from model.weights.sources import Found, installed

CHUNK = 512
"""Samples that one probability stands for."""
SOURCE = PackageSource(
    parts=(("silero-vad", "silero_vad/data/silero_vad.jit"),),
    version="6.2.3",
    sha256="e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720",
)
_CONTEXT = 64
"""Samples of the chunk before that a chunk hears too."""
_WINDOW, _STRIDE = 256, 128
_BINS = _WINDOW // 2 + 1
_STATE = 128
_BLOCK_CHUNKS = 250
"""8 s at a time: some 10 ms of one core, and the fastest per second of several sizes."""
_LOW = 0.05
"""The largest sample below which a recording is raised to it (benchmarks/LOG.md)."""
_MOST_GAIN = 100.0
_ARRAYS: tuple[tuple[str, int, tuple[int, ...]], ...] = (
    ("spectrum", 2, (2 * _BINS, 1, _WINDOW)),
    ("conv0.weight", 3, (128, _BINS, 3)),
    ("conv0.bias", 4, (128,)),
    ("conv1.weight", 5, (64, 128, 3)),
    ("conv1.bias", 6, (64,)),
    ("conv2.weight", 7, (64, 64, 3)),
    ("conv2.bias", 8, (64,)),
    ("conv3.weight", 9, (_STATE, 64, 3)),
    ("conv3.bias", 10, (_STATE,)),
    ("weight_ih_l0", 11, (4 * _STATE, _STATE)),
    ("weight_hh_l0", 12, (4 * _STATE, _STATE)),
    ("bias_ih_l0", 13, (4 * _STATE,)),
    ("bias_hh_l0", 14, (4 * _STATE,)),
    ("output.weight", 15, (1, _STATE)),
    ("output.bias", 16, (1,)),
)
"""Name, number in the archive and shape of each array; the archive is one file of one hash, so numbers are names."""
_STRIDES = (1, 2, 2, 1)
"""Of the four convolutions: a chunk's four spectra become one vector."""


class SpeechDetector:
    """The detector's network on one device. Holds no state of any recording."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """Read the weights; `WeightsError` where they are not installed or not the published ones."""
        self.device = torch.device(device)
        arrays = {name: tensor.to(self.device) for name, tensor in _read_arrays().items()}
        self._lstm = torch.nn.LSTM(_STATE, _STATE, device=self.device)
        self._lstm.load_state_dict({name: arrays.pop(name) for name in self._lstm.state_dict()})
        self._arrays = arrays

    def scan(self, samples: Tensor) -> "SpeechScan":
        """A walk over a recording (n,), float32 or int16, that has not begun."""
        return SpeechScan(self, samples)

    @torch.inference_mode()
    def probabilities(
        self, chunks: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Speech probability (n,) of chunks (n, 64 + 512) that follow each other, and the state after them."""
        arrays = self._arrays
        audio = F.pad(chunks[:, None], (0, _CONTEXT), mode="reflect")
        parts = F.conv1d(audio, arrays["spectrum"], stride=_STRIDE)
        hidden = (parts[:, :_BINS].square() + parts[:, _BINS:].square()).sqrt()
        for i, stride in enumerate(_STRIDES):
            hidden = F.conv1d(
                hidden, arrays[f"conv{i}.weight"], arrays[f"conv{i}.bias"], stride=stride, padding=1
            ).relu()
        output, state = self._lstm(hidden.transpose(1, 2), state)
        logits = F.linear(output[:, 0].relu(), arrays["output.weight"], arrays["output.bias"])
        return logits[:, 0].sigmoid(), state


@dataclass(eq=False)
class SpeechScan:
    """How far the detector has come in one recording. What a device says of it is read when somebody asks."""

    detector: SpeechDetector
    samples: Tensor
    _gain: Tensor = field(init=False)
    _heard: list[Fetched] = field(default_factory=list)
    _n_chunks: int = 0
    _state: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        """Look at the level; the device keeps the number."""
        scale = 32768.0 if self.samples.dtype == torch.int16 else 1.0
        lowest, highest = (end.float().abs() for end in self.samples.aminmax())
        largest = torch.maximum(lowest, highest) / scale
        gain = (_LOW / largest.clamp(min=1e-9)).clamp(1.0, _MOST_GAIN) / scale
        self._gain = send(gain, self.detector.device)

    @property
    def done(self) -> bool:
        """Whether the recording has been heard to its end."""
        return self._n_chunks * CHUNK >= len(self.samples)

    @property
    def probabilities(self) -> list[float]:
        """One for each 32 ms heard so far."""
        return [probability for block in self._heard for probability in block.read().tolist()]

    def advance(self) -> None:
        """Hear the next 8 s at most."""
        start = self._n_chunks * CHUNK
        block = self.samples[max(0, start - _CONTEXT) : start + _BLOCK_CHUNKS * CHUNK]
        before = min(start, _CONTEXT)
        n_chunks = -(-(len(block) - before) // CHUNK)
        audio = torch.zeros(_CONTEXT + n_chunks * CHUNK, device=self.detector.device)
        content = audio[_CONTEXT - before : _CONTEXT - before + len(block)]
        content.copy_(send(block, audio.device))
        content.mul_(self._gain)
        probabilities, state = self.detector.probabilities(audio.unfold(0, _CONTEXT + CHUNK, CHUNK), self._state)
        self._heard.append(Fetched(probabilities))
        self._state, self._n_chunks = (
            state,
            self._n_chunks + n_chunks,
        )  # last: it may be repeated

    def finish(self) -> list[float]:
        """Hear the rest; all probabilities."""
        while not self.done:
            self.advance()
        return self.probabilities


def _read_arrays() -> dict[str, Tensor]:
    found: Found | None = installed(SOURCE)
    if found is None:
        raise WeightsError(f"the voice activity detector is not on this machine: install {SOURCE.requirements}")
    with open_blob(found.paths) as blob:
        actual = blob.sha256()
        if actual != found.sha256:
            raise WeightsError(f"{blob.path}: has SHA-256 {actual}, expected {found.sha256}; install it again")
        archive = zipfile.ZipFile(io.BytesIO(blob.read(0, blob.size)))
    folder = archive.namelist()[0].split("/", 1)[0]
    return {
        name: torch.frombuffer(bytearray(archive.read(f"{folder}/data/{number}")), dtype=torch.float32).view(shape)
        for name, number, shape in _ARRAYS
    }

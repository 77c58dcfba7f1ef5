"""Waveform to log-Mel windows: the model's ears.

Gets 16 kHz mono samples from `audio`, gives batches of 30-s windows to the encoder in `whisper`.

- A window depends on its whole recording: quiet bins are lifted to the loudest bin of the *recording* less 8 (80 dB).
  So `maximum` walks the recording once, in blocks (`MaximumSearch` by and by), and `windows` then cuts any stretch.
- A window's frames see the real samples beyond its edges, as if the whole recording had been transformed at once.
  The recording is mirrored before its start and silent after its end.
- Only the frames asked for are transformed; the rest of a window is 0.0, which is not silence but the value with which
  the reference pads.
- Filters are computed, not shipped.

Source: paper, section 2.2; openai/whisper audio.py and transcribe.py; filters: Slaney, "Auditory Toolbox" (1998).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.dims import HOP_LENGTH, N_FFT, N_FRAMES, SAMPLE_RATE
from model.transfer import send

_BINS = N_FFT // 2 + 1
_HALF = N_FFT // 2
"""Samples of a frame that lie before its centre; frame t is centred on sample 160 t."""
_FLOOR = 1e-10
"""Least power that is told from silence."""
_RANGE = 8.0
"""Powers of ten between the loudest bin of a recording and the quietest that is kept."""
_FEWEST_FRAMES = 8
"""Frames transformed at least on a CPU: the product of fewer rounds otherwise, so neighbours would change last bits."""


@dataclass(frozen=True, slots=True, eq=False)
class MelSpan:
    """A stretch of one recording that becomes one window; ValueError for a stretch that cannot be cut."""

    samples: Tensor
    """The whole recording, (n,), float32 or int16, on any device."""
    seek: int
    """First frame of the window (10 ms each)."""
    n_frames: int
    """Frames that have content, at most 3000; the window is 0.0 after them."""
    maximum: float | Tensor
    """What `LogMel.maximum` says of the whole recording; or (), on the device, what `MaximumSearch.found` says."""

    def __post_init__(self) -> None:
        _check_samples(self.samples)
        if self.seek < 0 or not 0 <= self.n_frames <= N_FRAMES:
            raise ValueError(f"a window starts at frame 0 or later and has 0 to {N_FRAMES} frames")


class LogMel:
    """Log-Mel spectrograms of recordings, on one device; the same numbers as the reference to 1e-4."""

    def __init__(self, n_mels: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.n_mels = n_mels
        self._window = torch.hann_window(N_FFT, device=self.device)
        self._filters = mel_filters(n_mels).T.contiguous().to(self.device)

    def maximum(self, samples: Tensor) -> float:
        """Log10 of the loudest Mel bin of a whole recording with 30 s of silence after it: -10.0 if all is silent.

        `samples` is (n,), float32 or int16. Memory is that of one window, whatever the length; reading the result is
        the only wait for the device.
        """
        search = MaximumSearch(self, samples)
        while not search.advance(1):
            pass
        return float(search.found)

    def loudest(self, samples: Tensor, seek: int, n_frames: int) -> Tensor:
        """Power () of the loudest bin in a stretch of a recording."""
        audio = torch.zeros(1, _extent(self._transformed(n_frames)), device=self.device)
        _cut(samples, seek, audio[0, : _extent(n_frames)])
        return self._power(audio)[:, :n_frames].max()

    def windows(self, spans: Sequence[MelSpan]) -> Tensor:
        """One window per span, (batch, n_mels, 3000) float32 on this device, by a single transform."""
        result = torch.zeros(len(spans), self.n_mels, N_FRAMES, device=self.device)
        longest = max((span.n_frames for span in spans), default=0)
        if longest == 0:
            return result
        audio = torch.zeros(len(spans), _extent(self._transformed(longest)), device=self.device)
        for row, span in zip(audio, spans, strict=True):
            _cut(span.samples, span.seek, row[: _extent(span.n_frames)])
        log_power = self._power(audio).clamp_(min=_FLOOR).log10_()
        for window, frames, span in zip(result, log_power, spans, strict=True):
            # Row by row: each has its own length and floor, and neither kind of number costs a copy to the device.
            content, floor = frames[: span.n_frames], span.maximum - _RANGE
            if isinstance(floor, Tensor):
                torch.maximum(content, floor, out=content)
            else:
                content.clamp_(min=floor)
            window[:, : span.n_frames] = content.add_(4.0).div_(4.0).T
        return result

    def _transformed(self, n_frames: int) -> int:
        """Frames that are transformed where so many are asked for; nobody looks at those behind them.

        On a CPU those alone. A GPU's library plans every new size anew, which takes longer than a whole window does.
        """
        return max(n_frames, _FEWEST_FRAMES) if self.device.type == "cpu" else N_FRAMES

    def _power(self, audio: Tensor) -> Tensor:
        """Mel power of every whole frame: (batch, samples) -> (batch, frames, n_mels)."""
        stft = torch.stft(audio, N_FFT, HOP_LENGTH, window=self._window, center=False, return_complex=True)
        # The transform lays frames out one after the other: work along that, and without the square root of `abs`.
        parts = torch.view_as_real(stft.transpose(1, 2))
        power = torch.addcmul(parts[..., 0].square(), parts[..., 1], parts[..., 1])
        return power @ self._filters


class MaximumSearch:
    """Finds `LogMel.maximum` piece by piece, for whoever has other things to do meanwhile."""

    def __init__(self, log_mel: LogMel, samples: Tensor) -> None:
        _check_samples(samples)
        self._log_mel, self._samples = log_mel, samples
        # Later frames see none of the recording; where it is empty no frame does.
        self._n_frames = (len(samples) + _HALF - 1) // HOP_LENGTH + 1 if len(samples) else 0
        self._seek = 0
        self._loudest = torch.full((), _FLOOR, device=log_mel.device)
        self._found: Tensor | None = None

    def advance(self, windows: int) -> bool:
        """Hear the next `windows` windows of 30 s; whether the recording has been heard to its end."""
        for _ in range(windows):
            if self._seek >= self._n_frames:
                break
            n_frames = min(N_FRAMES, self._n_frames - self._seek)
            loudest = self._log_mel.loudest(self._samples, self._seek, n_frames)
            self._loudest = torch.maximum(self._loudest, loudest)
            self._seek += n_frames
        if self._seek >= self._n_frames and self._found is None:
            self._found = self._loudest.log10()
        return self._seek >= self._n_frames

    @property
    def found(self) -> Tensor:
        """`LogMel.maximum`, (), on the device, where nobody need wait for it; ValueError before the end."""
        if self._found is None:
            raise ValueError("the recording has not been heard to its end")
        return self._found


def mel_filters(n_mels: int) -> Tensor:
    """Triangular filters from 201 frequencies to `n_mels` bands, (n_mels, 201) float32.

    Slaney's scale (linear to 1 kHz, logarithmic above), every triangle of the same area: what
    `librosa.filters.mel(sr=16000, n_fft=400, n_mels=n_mels)` gives. ValueError below 1.
    """
    if n_mels < 1:
        raise ValueError("a spectrogram has at least one Mel band")
    top = _hertz_to_mel(SAMPLE_RATE / 2)
    edges = torch.tensor([_mel_to_hertz(top * i / (n_mels + 1)) for i in range(n_mels + 2)], dtype=torch.float64)
    frequencies = torch.arange(_BINS, dtype=torch.float64) * (SAMPLE_RATE / N_FFT)
    low, centre, high = (edges[i : i + n_mels, None] for i in range(3))
    rising = (frequencies - low) / (centre - low)
    falling = (high - frequencies) / (high - centre)
    triangles = torch.minimum(rising, falling).clamp(min=0.0)
    return (triangles * (2.0 / (high - low))).float()


_LINEAR_HERTZ = 200.0 / 3.0
"""Hertz in one Mel below the break."""
_BREAK_HERTZ = 1000.0
_BREAK_MEL = _BREAK_HERTZ / _LINEAR_HERTZ
_LOG_STEP = math.log(6.4) / 27.0
"""Growth of the logarithm of the frequency in one Mel above the break."""


def _hertz_to_mel(hertz: float) -> float:
    if hertz < _BREAK_HERTZ:
        return hertz / _LINEAR_HERTZ
    return _BREAK_MEL + math.log(hertz / _BREAK_HERTZ) / _LOG_STEP


def _mel_to_hertz(mel: float) -> float:
    if mel < _BREAK_MEL:
        return mel * _LINEAR_HERTZ
    return _BREAK_HERTZ * math.exp(_LOG_STEP * (mel - _BREAK_MEL))


def _check_samples(samples: Tensor) -> None:
    if samples.ndim != 1 or samples.dtype not in (torch.float32, torch.int16):
        raise ValueError("samples are one row of float32 or int16")


def _extent(n_frames: int) -> int:
    """Samples that `n_frames` neighbouring frames see."""
    return (n_frames - 1) * HOP_LENGTH + N_FFT if n_frames else 0


def _cut(samples: Tensor, seek: int, out: Tensor) -> None:
    """Fill `out`, which holds zeros, with what frames from `seek` on see of a recording."""
    start = seek * HOP_LENGTH - _HALF
    before = min(max(-start, 0), len(out))
    if before:
        mirrored = samples[1 : before + 1].flip(0)
        _copy(mirrored, out[before - len(mirrored) : before])
    content = samples[start + before : start + len(out)]
    _copy(content, out[before : before + len(content)])


def _copy(samples: Tensor, out: Tensor) -> None:
    # As they are: a copy that also converts would convert here first, send twice the bytes, and wait.
    out.copy_(send(samples, out.device))
    if samples.dtype == torch.int16:
        out.div_(32768.0)

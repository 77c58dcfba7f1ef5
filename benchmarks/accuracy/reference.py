"""openai-whisper as a `System`, on the very same weights and waveform.

It draws from torch's global generator. Here each of its rows draws from one of its own, seeded as ours seeds its rows,
so that windows that fell back to a higher temperature can be compared too, one sample or several.
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from unittest import mock

import torch
import whisper
from torch import Tensor
from torch.distributions import Categorical
from whisper.decoding import DecodingOptions, DecodingResult

from benchmarks.accuracy.parity import Attempt
from benchmarks.accuracy.systems import Samples, attempt_of
from model.options import TEMPERATURES
from model.search.sampling import row_seed
from model.segments import Segment, Transcription
from model.weights import Weights


@dataclass(frozen=True, slots=True)
class Step:
    """One decoding of one window by the reference: what it was asked, and what it answered."""

    window: int
    options: DecodingOptions
    result: DecodingResult


class Reference:
    """openai-whisper, from the same tensors; `steps` holds the decodings of the last transcription."""

    name = "reference"

    def __init__(self, weights: Weights, *, device: str, compute_type: str, **options: Any) -> None:
        """`options`: those of its `transcribe` that are not the defaults, under our names."""
        self.network = whisper.model.Whisper(whisper.model.ModelDimensions(**asdict(weights.dims)))
        self.network.load_state_dict({key: tensor.float() for key, tensor in weights.tensors.items()})
        self.network.eval().to(device)
        self.half = compute_type == "float16"
        self.seeds = hashlib.sha256(str([row_seed(0, w, r) for w in (0, 1) for r in (1, 2)]).encode()).hexdigest()[:8]
        settings = "".join(f"/{name}={value}" for name, value in options.items())
        self.fingerprint = f"{whisper.__version__}/{device}/{compute_type}/seeds-{self.seeds}{settings}"
        self._options = options
        self._ladder: Sequence[float] = options.get("temperature", TEMPERATURES)
        self.steps: list[Step] = []
        self._decode = self.network.decode
        self._detect = self.network.detect_language
        self._language_probs: dict[str, float] = {}
        self.network.decode = self._seeded_decode
        self.network.detect_language = self._noted_detect

    def transcribe(self, samples: Samples, *, language: str | None, task: str) -> Transcription:
        """See `System.transcribe`."""
        self.steps, self._language_probs = [], {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Performing inference on CPU")
            raw = self.network.transcribe(
                samples, language=language, task=task, fp16=self.half, verbose=None, **self._options
            )
        return self._transcription(raw, task, len(samples) / whisper.audio.SAMPLE_RATE)

    @property
    def attempts(self) -> list[Attempt]:
        """The decodings of the last transcription."""
        return [attempt_of(step.window, step.result) for step in self.steps]

    def _seeded_decode(self, mel: Tensor, options: DecodingOptions) -> DecodingResult:
        rung = self._ladder.index(options.temperature)
        window = self.steps[-1].window + (rung == 0) if self.steps else 0
        with mock.patch("whisper.decoding.Categorical", _Draws(window, rung)):
            result = self._decode(mel, options)
        self.steps.append(Step(window, options, result))
        return result

    def _noted_detect(self, mel: Tensor) -> tuple[Tensor, dict[str, float]]:
        tokens, probs = self._detect(mel)
        self._language_probs = probs
        return tokens, probs

    def _transcription(self, raw: dict[str, Any], task: str, duration: float) -> Transcription:
        names = (
            "id",
            "seek",
            "start",
            "end",
            "text",
            "temperature",
            "avg_logprob",
            "compression_ratio",
            "no_speech_prob",
        )
        return Transcription(
            task=task,
            language=raw["language"],
            language_probability=self._language_probs.get(raw["language"]),
            duration=duration,
            text=raw["text"],
            segments=tuple(
                Segment(**{name: piece[name] for name in names}, tokens=tuple(piece["tokens"]))
                for piece in raw["segments"]
            ),
            language_probabilities=self._language_probs,
        )


class _Draws:
    """Stands for `Categorical` during one decoding: row i draws from a generator of its own, seeded as our row i."""

    def __init__(self, window: int, rung: int) -> None:
        self._window, self._rung = window, rung
        self._generators: list[torch.Generator] = []

    def __call__(self, logits: Tensor) -> "_Draws":
        """The distribution of each row's next token, from logits (rows, n_vocab)."""
        for row in range(len(self._generators), len(logits)):
            seed = row_seed(0, self._window, self._rung, row)
            self._generators.append(torch.Generator(logits.device).manual_seed(seed))
        self._probabilities = Categorical(logits=logits).probs
        return self

    def sample(self) -> Tensor:
        """A token (rows,) of each."""
        rows = zip(self._probabilities, self._generators, strict=True)
        return torch.cat([torch.multinomial(row, 1, replacement=True, generator=generator) for row, generator in rows])

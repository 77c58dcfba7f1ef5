"""Engines that decode windows of random models: ours, transformers, openai-whisper, and that of faster-whisper.

Used by `benchmarks.random_peers`. Each takes as many windows as it is told at once and makes so many tokens of every
one, greedily. A library is loaded where its engine is made.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarks.machine.random_model import made_sound, random_transcriber, random_weights
from benchmarks.peer.formats import write_ctranslate2_anew
from benchmarks.saturation import Saturation
from model.compute_options import ComputeOptions
from model.dims import N_FRAMES, SAMPLE_RATE, ModelDimensions
from model.mel import LogMel, MelSpan
from model.tokenizer import get_tokenizer

_SPREAD = 0.02
"""Of random weights where a library leaves memory as it finds it."""


class Peer(Protocol):
    """Something that decodes windows."""

    def decode(self, rows: int) -> int:
        """Decode so many windows; tokens made of each, of the one with fewest."""
        ...


class Ours:
    """The service's engine."""

    def __init__(self, size: str, device: torch.device, rows: int, tokens: int) -> None:
        options = ComputeOptions("float16" if device.type == "cuda" else "float32")
        transcriber = random_transcriber(size, str(device), options)
        self.dims, self._tokens = transcriber.dims, tokens
        encoded = 8 if device.type == "cuda" else 1
        self._engine = Saturation(transcriber, rows=rows, windows_per_encode=encoded, tokens=tokens)

    def decode(self, rows: int) -> int:
        """See `Peer.decode`."""
        self._engine.together(rows)
        return self._tokens


class Transformers:
    """transformers' `generate`, without what is Whisper's own in it: languages and timestamps."""

    def __init__(self, dims: ModelDimensions, device: torch.device, tokens: int) -> None:
        from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

        config = WhisperConfig(
            vocab_size=dims.n_vocab, num_mel_bins=dims.n_mels, d_model=dims.n_audio_state,
            encoder_layers=dims.n_audio_layer, encoder_attention_heads=dims.n_audio_head,
            encoder_ffn_dim=4 * dims.n_audio_state, decoder_layers=dims.n_text_layer,
            decoder_attention_heads=dims.n_text_head, decoder_ffn_dim=4 * dims.n_text_state,
            max_source_positions=dims.n_audio_ctx, max_target_positions=dims.n_text_ctx, attn_implementation="sdpa",
        )  # fmt: skip
        self._device, self._tokens = device, tokens
        self._model = _filled(WhisperForConditionalGeneration(config), device)
        self._features = WhisperFeatureExtractor(feature_size=dims.n_mels)
        self._prompt = torch.tensor([_prompt(dims)], device=device)
        self._sound = (made_sound().float() / 32768).numpy()

    def decode(self, rows: int) -> int:
        """See `Peer.decode`."""
        from transformers import GenerationMixin

        features = self._features(
            [self._sound] * rows, sampling_rate=SAMPLE_RATE, return_tensors="pt", device=str(self._device)
        )
        with torch.inference_mode():
            answer: Tensor = GenerationMixin.generate(
                self._model, features.input_features.to(self._device, self._model.dtype),
                decoder_input_ids=self._prompt.repeat(rows, 1),
                min_new_tokens=self._tokens, max_new_tokens=self._tokens, do_sample=False, num_beams=1,
                cache_implementation="static",
            )  # fmt: skip
        return int(answer.shape[1]) - self._prompt.shape[1]


class OpenaiWhisper:
    """The reference's `decode` of several windows at once, whose log-Mel it makes once."""

    def __init__(self, dims: ModelDimensions, device: torch.device, tokens: int) -> None:
        import whisper

        self._whisper, self._device, self._tokens = whisper, device, tokens
        self._model = _filled(whisper.model.Whisper(whisper.model.ModelDimensions(**asdict(dims))), device)
        eot = whisper.tokenizer.get_tokenizer(dims.is_multilingual).eot
        self._options = whisper.DecodingOptions(
            language="en", without_timestamps=True, temperature=0.0, sample_len=tokens, suppress_tokens=[-1, eot],
            fp16=device.type == "cuda",
        )  # fmt: skip
        self._sound = made_sound().float() / 32768

    def decode(self, rows: int) -> int:
        """See `Peer.decode`."""
        mel = self._whisper.log_mel_spectrogram(self._sound, self._model.dims.n_mels, device=self._device)
        windows = mel.repeat(rows, 1, 1).to(next(self._model.parameters()).dtype)
        answers = self._whisper.decode(self._model, windows, self._options)
        return min(len(answer.tokens) for answer in answers)


class FasterWhisper:
    """CTranslate2, which is what computes in faster-whisper: `encode` and `generate` of several windows at once.

    Without what faster-whisper does in Python around it, which is the same for a GPU as for a CPU and would need its
    codecs here: the log-Mel is ours, made once. What it opens is a folder, gone once it is read.
    """

    def __init__(self, size: str, device: torch.device, tokens: int) -> None:
        import ctranslate2

        weights = random_weights(size)
        self._views = ctranslate2.StorageView
        with tempfile.TemporaryDirectory() as folder:
            write_ctranslate2_anew(weights, Path(folder))
            self._model = ctranslate2.models.Whisper(
                folder, device=device.type, device_index=device.index or 0, intra_threads=torch.get_num_threads(),
                compute_type="float16" if device.type == "cuda" else "float32",
            )  # fmt: skip
        self._log_mel, self._sound = LogMel(weights.dims.n_mels, device), made_sound()
        self._prompt, self._eot = _prompt(weights.dims), get_tokenizer(weights.dims).eot
        # Of `max_length` it makes half, or what all of the prompt but its last token leaves where that is less.
        self._most = max(2 * tokens, tokens + len(self._prompt) - 1)

    def decode(self, rows: int) -> int:
        """See `Peer.decode`."""
        span = MelSpan(self._sound, 0, N_FRAMES, self._log_mel.maximum(self._sound))
        windows = self._log_mel.windows([span]).repeat(rows, 1, 1).cpu().numpy()
        features = self._model.encode(self._views.from_array(windows), to_cpu=False)
        answers = self._model.generate(
            features, [self._prompt] * rows, beam_size=1, max_length=self._most,
            suppress_tokens=[-1, self._eot],
        )  # fmt: skip
        return min(len(answer.sequences_ids[0]) for answer in answers)


def _prompt(dims: ModelDimensions) -> list[int]:
    tokenizer = get_tokenizer(dims)
    return [*tokenizer.sot_sequence("en", "transcribe"), tokenizer.no_timestamps]


def _filled(model: Any, device: torch.device) -> Any:
    """The model on a device, in its format, with random weights; norms as they are."""
    norms = {id(p) for module in model.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in norms:
            nn.init.normal_(parameter, std=_SPREAD)
    return model.eval().to(device, torch.float16 if device.type == "cuda" else torch.float32)

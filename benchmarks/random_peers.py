"""Ours, transformers and openai-whisper with random weights of one size on one device, in turn: speed, and no texts.

    python -m benchmarks.random_peers --random large-v3 --device cuda [--rows 64] [--tokens 110] [--rounds 3]

Each is given as many windows of 30 s as there are rows, at once, and makes 110 tokens of every one, greedily, in the
device's number format: ours through the service's engine, captured where the device captures; transformers with SDPA
and its static cache, which it compiles on a GPU; openai-whisper by its own batched `decode`. Log-Mel is part of it. A
round runs all of them, the next in the opposite order, and ratios are of one round. Who is not installed is named and
left out. What the texts are worth is `benchmarks.peers`, with the real weights of base. Prints a table and one JSON
line.
"""

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarks.card import TOKENS
from benchmarks.device import device_name, wait
from benchmarks.random_model import made_sound, random_transcriber
from benchmarks.saturation import Saturation
from model.dims import CHUNK_LENGTH, SAMPLE_RATE, ModelDimensions

OURS = "ours"
_SPREAD = 0.02
"""Of random weights where a library leaves memory as it finds it."""


class Peer(Protocol):
    """Something that decodes windows."""

    def decode(self, rows: int) -> int:
        """Decode so many windows; tokens made of each."""
        ...


class Ours:
    """The service's engine."""

    def __init__(self, size: str, device: torch.device, rows: int, tokens: int) -> None:
        transcriber = random_transcriber(size, str(device), "float16" if device.type == "cuda" else "float32")
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
        self._sound = (made_sound().float() / 32768).numpy()

    def decode(self, rows: int) -> int:
        """See `Peer.decode`."""
        from transformers import GenerationMixin

        features = self._features(
            [self._sound] * rows, sampling_rate=SAMPLE_RATE, return_tensors="pt", device=str(self._device)
        )
        prompt = torch.tensor([[50_258, 50_259, 50_359, 50_363]], device=self._device).repeat(rows, 1)
        with torch.inference_mode():
            answer: Tensor = GenerationMixin.generate(
                self._model, features.input_features.to(self._device, self._model.dtype), decoder_input_ids=prompt,
                min_new_tokens=self._tokens, max_new_tokens=self._tokens, do_sample=False, num_beams=1,
                cache_implementation="static",
            )  # fmt: skip
        return int(answer.shape[1]) - prompt.shape[1]


class OpenaiWhisper:
    """The reference's `decode` of several windows at once."""

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


def _filled(model: Any, device: torch.device) -> Any:
    """The model on a device, in its format, with random weights; norms as they are."""
    norms = {id(p) for module in model.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in norms:
            nn.init.normal_(parameter, std=_SPREAD)
    return model.eval().to(device, torch.float16 if device.type == "cuda" else torch.float32)


def peers(size: str, device: torch.device, rows: int, tokens: int) -> tuple[dict[str, Peer], dict[str, str]]:
    """Those that are installed, ours first; and why the others are not there."""
    ours = Ours(size, device, rows, tokens)
    makers: dict[str, tuple[str, Callable[[], Peer]]] = {
        "transformers": ("transformers", lambda: Transformers(ours.dims, device, tokens)),
        "openai-whisper": ("whisper", lambda: OpenaiWhisper(ours.dims, device, tokens)),
    }
    found: dict[str, Peer] = {OURS: ours}
    missing = {"faster-whisper": "its weights are files of their own: benchmarks.peers compares it with base"}
    for name, (package, make) in makers.items():
        try:
            importlib.import_module(package)
            found[name] = make()
        except Exception as error:  # not there, or of a version that wants to be asked otherwise
            missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return found, missing


def measure(
    found: dict[str, Peer], missing: dict[str, str], device: torch.device, rows: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds of every round; one before them warms up. A peer that raises becomes a missing one, with its reason."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    order = list(found)
    for number in range(rounds + 1):
        for name in list(order):
            wait(device)
            begin = time.perf_counter()
            try:
                found[name].decode(rows)
            except Exception as error:
                missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                order.remove(name)
                del seconds[name]
                continue
            wait(device)
            if number:
                seconds[name].append(time.perf_counter() - begin)
                # At once: who runs out of time keeps what was measured.
                told = {"bench": "random_peers", "round": number, "name": name, "seconds": seconds[name][-1]}
                sys.stdout.write(json.dumps(told) + "\n")
                sys.stdout.flush()
        order.reverse()
    return seconds


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 2 where the device is not there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.random_peers", description=__doc__)
    parser.add_argument("--random", metavar="SIZE", default="large-v3", help="published size")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.stderr.write("no CUDA device here: nothing was measured (--device cpu tries the path)\n")
        return 2
    device = torch.device(options.device)
    found, missing = peers(options.random, device, options.rows, options.tokens)
    seconds = measure(found, missing, device, options.rows, options.rounds)
    if OURS not in seconds:
        sys.stderr.write(f"ours failed: {missing[OURS]}\n")
        return 1
    run = {"bench": "random_peers", "model": options.random, "device": device_name(device), "rows": options.rows}
    run |= {"tokens": options.tokens, "seconds": seconds, "missing": missing}
    for name, times in seconds.items():
        ratio = statistics.median(their / our for their, our in zip(times, seconds[OURS], strict=True))
        speed = CHUNK_LENGTH * options.rows / statistics.median(times)
        sys.stdout.write(f"{name:16} {statistics.median(times):8.2f} s   RTFx {speed:8.1f}   {ratio:6.2f} x our time\n")
    sys.stdout.write("".join(f"not measured, {name}: {reason}\n" for name, reason in missing.items()))
    sys.stdout.write(json.dumps(run) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The peers as engines of `benchmarks.peer.worker`, each with its own packages, which are loaded where it is made.

Everybody decodes greedily at temperature 0 without a ladder of others, the language named, timestamps on and the text
before a window as its prompt where the engine can: what an engine cannot is said at its class. With `defaults` in the
load nothing but the language is named, and everybody decodes as it does for who asks for nothing: with its own beams,
ladder and guards. `many` is the engine's own way to serve several requests, as `setup` chooses: `workers` threads that
take one request each, or `batch` requests decoded side by side.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.peer.engine import RATE, Engine, Samples, Threaded


def openai_whisper(load: dict[str, Any]) -> Engine:
    """The reference."""
    import torch
    import whisper

    torch.set_num_threads(load["threads"])
    device = load.get("device", "cpu")
    model = whisper.load_model(load["path"], device=device)
    settings = {} if load.get("defaults") else {"temperature": 0.0}

    def transcribe(samples: Samples) -> str:
        return str(model.transcribe(samples, language="en", fp16=device == "cuda", **settings)["text"])

    # Its key-value cache hangs on the model by hooks: two requests cannot share one.
    return Threaded(lambda: transcribe, workers=1)


class FasterWhisper:
    """faster-whisper, sequential or by its batched pipeline (no timestamps, no text as prompt: its own defaults).

    `batch` decodes requests side by side: they are joined into one waveform and named as its `clip_timestamps`, the
    only way in which the library puts several recordings into one batch; each must fit a window.
    """

    def __init__(self, load: dict[str, Any]) -> None:
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        self._workers, self._batch = load.get("workers", 1), load.get("batch", 0)
        model = WhisperModel(
            load["path"], device=load.get("device", "cpu"), compute_type=load["compute_type"],
            cpu_threads=load["threads"] // self._workers, num_workers=self._workers, local_files_only=True,
        )  # fmt: skip
        self._pipeline = BatchedInferencePipeline(model) if load.get("pipeline") else None
        self._model = model
        self._settings: dict[str, Any] = {} if load.get("defaults") else {"beam_size": 1, "temperature": 0.0}
        self._threads = Threaded(lambda: self.one, workers=self._workers, shared=True)

    def one(self, samples: Samples) -> str:
        """See `Engine.one`."""
        if self._pipeline is not None:
            segments, _ = self._pipeline.transcribe(samples, language="en", batch_size=8, **self._settings)
        else:
            segments, _ = self._model.transcribe(samples, language="en", **self._settings)
        return "".join(segment.text for segment in segments)

    def many(self, requests: Sequence[Samples]) -> list[str]:
        """See `Engine.many`."""
        if not self._batch or self._pipeline is None:
            return self._threads.many(requests)
        texts: list[str] = []
        for first in range(0, len(requests), self._batch):
            texts += self._together(requests[first : first + self._batch])
        return texts

    def _together(self, requests: Sequence[Samples]) -> list[str]:
        ends = np.cumsum([len(samples) for samples in requests]) / RATE
        # Half a sample more, since the library cuts seconds down to samples.
        clips = [
            {"start": end - (len(samples) - 0.5) / RATE, "end": end + 0.5 / RATE}
            for samples, end in zip(requests, ends, strict=True)
        ]
        assert self._pipeline is not None
        segments, _ = self._pipeline.transcribe(
            np.concatenate(requests), clip_timestamps=clips, batch_size=self._batch, language="en", **self._settings
        )
        texts = [""] * len(requests)
        for segment in segments:
            texts[int(np.searchsorted(ends, (segment.start + segment.end) / 2))] += segment.text
        return texts


class Transformers:
    """transformers' `generate`; `batch` pads requests of one window into one call.

    float32 on a CPU; on a GPU float16 with its static cache, which it compiles.
    """

    def __init__(self, load: dict[str, Any]) -> None:
        import torch
        from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

        torch.set_num_threads(load["threads"])
        self._torch, self._batch, self._device = torch, load.get("batch", 1), load.get("device", "cpu")
        model = WhisperForConditionalGeneration.from_pretrained(load["path"], attn_implementation="sdpa").eval()
        self._model = model.to(self._device, torch.float16 if self._device == "cuda" else torch.float32)
        self._features = WhisperFeatureExtractor.from_pretrained(load["path"])
        self._tokenizer = AutoTokenizer.from_pretrained(load["path"])
        self._settings: dict[str, Any] = {} if load.get("defaults") else {"num_beams": 1, "do_sample": False}

    def one(self, samples: Samples) -> str:
        """See `Engine.one`."""
        if len(samples) <= 30 * RATE:
            return self._generate([samples])[0]
        return self._generate([samples], truncation=False, padding="longest", return_attention_mask=True)[0]

    def many(self, requests: Sequence[Samples]) -> list[str]:
        """See `Engine.many`."""
        texts: list[str] = []
        for first in range(0, len(requests), self._batch):
            texts += self._generate(requests[first : first + self._batch])
        return texts

    def _generate(self, requests: Sequence[Samples], **features: Any) -> list[str]:
        inputs = self._features(list(requests), sampling_rate=RATE, return_tensors="pt", **features)
        inputs = {
            name: value.to(self._device, self._model.dtype) if value.is_floating_point() else value.to(self._device)
            for name, value in inputs.items()
        }
        options = dict(self._settings)
        if features and options:
            options |= {"condition_on_prev_tokens": True, "temperature": 0.0}
        if self._device == "cuda":
            options["cache_implementation"] = "static"
        with self._torch.inference_mode():
            tokens = self._model.generate(**inputs, language="en", task="transcribe", return_timestamps=True, **options)
        return [str(text) for text in self._tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def openvino_genai(load: dict[str, Any]) -> Engine:
    """OpenVINO GenAI's pipeline (no text as prompt); `workers` pipelines share the threads."""
    import openvino_genai as genai

    workers = load.get("workers", 1)

    def make() -> Callable[[Samples], str]:
        pipeline = genai.WhisperPipeline(load["path"], "CPU", INFERENCE_NUM_THREADS=load["threads"] // workers)

        def transcribe(samples: Samples) -> str:
            answer = pipeline.generate(samples, language="<|en|>", task="transcribe", return_timestamps=True)
            return str(answer.texts[0])

        return transcribe

    return Threaded(make, workers=workers)


def whisper_cpp(load: dict[str, Any]) -> Engine:
    """whisper.cpp through pywhispercpp, 16-bit weights; `workers` contexts share the threads."""
    from pywhispercpp.model import Model

    workers = load.get("workers", 1)
    settings: dict[str, Any] = (
        {} if load.get("defaults")
        else {"temperature": 0.0, "temperature_inc": 0.0, "no_context": False, "greedy": {"best_of": 1}}
    )  # fmt: skip

    def make() -> Callable[[Samples], str]:
        model = Model(
            load["path"], params_sampling_strategy=0, redirect_whispercpp_logs_to=None,
            n_threads=load["threads"] // workers,
            language="en", print_progress=False, print_realtime=False, **settings,
        )  # fmt: skip
        return lambda samples: " ".join(segment.text for segment in model.transcribe(samples))

    return Threaded(make, workers=workers)

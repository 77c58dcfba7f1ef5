"""One engine in a process of its own, in its own environment: what `benchmarks.peers` starts and asks.

Standard library and numpy at the top, the engine's own packages where it is made. One JSON object a line: the first on
standard input says what to load, the answer how long that took; then `{"one": path}` or `{"many": [paths]}`, answered
with texts and seconds. Paths are 16 kHz mono WAV of 16 bits, read alike by all before the clock starts.

Everybody decodes greedily at temperature 0 without a ladder of others, the language named, timestamps on and the text
before a window as its prompt where the engine can: what an engine cannot is said at its class. `many` is the engine's
own way to serve several requests, as `setup` chooses: `workers` threads that take one request each, or `batch` requests
decoded side by side.
"""

import ctypes
import json
import os
import signal
import sys
import time
import wave
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from service.worker.engine import Engine as Service

Samples = NDArray[np.float32]
_RATE = 16_000
_STREAMS = 8


class Engine(Protocol):
    """Something that is loaded and transcribes."""

    def one(self, samples: Samples) -> str:
        """The text of one request that has the machine to itself."""
        ...

    def many(self, requests: Sequence[Samples]) -> list[str]:
        """Texts of requests of which at most eight are under way at once."""
        ...


class Threaded:
    """Requests taken by threads; an engine of its own in each where the library's is not safe to share."""

    def __init__(self, make: Callable[[], Callable[[Samples], str]], *, workers: int, shared: bool = False) -> None:
        engine = make()
        self._engines = [engine] + [engine if shared else make() for _ in range(workers - 1)]

    def one(self, samples: Samples) -> str:
        """See `Engine.one`."""
        return self._engines[0](samples)

    def many(self, requests: Sequence[Samples]) -> list[str]:
        """See `Engine.many`."""
        free = list(self._engines)

        def take(samples: Samples) -> str:
            engine = free.pop()
            try:
                return engine(samples)
            finally:
                free.append(engine)

        with ThreadPoolExecutor(len(self._engines)) as pool:
            return list(pool.map(take, requests))


class Ours:
    """This project: the library for one request, the service's engine of 16 rows for several (64 on a GPU)."""

    def __init__(self, load: dict[str, Any]) -> None:
        import torch

        from model.transcriber import Transcriber
        from model.transcriber import load as load_model

        torch.set_num_threads(load["threads"])
        self._options = load.get("options", {})
        device = load.get("device", "cpu")
        self._rows, self._windows_per_encode = (64, 8) if device == "cuda" else (16, 1)
        self._transcriber: Transcriber = load_model(
            "base", device, load["compute_type"], cross_kv=load.get("cross_kv", "auto")
        )
        # On a GPU it records its steps, which takes seconds, before anybody looks at the clock.
        self._service = self._make_service() if device == "cuda" else None

    def _make_service(self) -> "Service":
        """The service's engine, without processes around it."""
        from model.gpu.beside import SideStream
        from service.worker.engine import Engine as Service

        model = self._transcriber.model
        beside = SideStream(model.device) if model.captures_steps else None
        return Service(
            self._transcriber, max_rows=self._rows, windows_per_encode=self._windows_per_encode, beside=beside
        )

    def one(self, samples: Samples) -> str:
        """See `Engine.one`."""
        return self._transcriber.transcribe(samples, language="en", temperature=(0.0,), **self._options).text

    def many(self, requests: Sequence[Samples]) -> list[str]:
        """Eight streams: a stream sends its next request when its last is answered."""
        import torch

        from model.options import TranscribeOptions
        from service.wire.messages import Finished, Transcribe

        service = self._service = self._service or self._make_service()
        options = TranscribeOptions(language="en", temperature=(0.0,), **self._options)
        texts: dict[str, str] = {}
        waiting = list(enumerate(requests))[::-1]

        def send() -> None:
            number, samples = waiting.pop()
            request = Transcribe(str(number), "float32", len(samples), options, None)
            service.submit(request, torch.from_numpy(samples), time.monotonic())

        for _ in range(min(_STREAMS, len(waiting))):
            send()
        while len(texts) < len(requests):
            for message in service.iterate(time.monotonic()):
                if isinstance(message, Finished):
                    texts[message.request_id] = message.text
                    if waiting:
                        send()
        return [texts[str(number)] for number in range(len(requests))]


def openai_whisper(load: dict[str, Any]) -> Engine:
    """The reference."""
    import torch
    import whisper

    torch.set_num_threads(load["threads"])
    device = load.get("device", "cpu")
    model = whisper.load_model(load["path"], device=device)

    def transcribe(samples: Samples) -> str:
        return str(model.transcribe(samples, language="en", temperature=0.0, fp16=device == "cuda")["text"])

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
        self._threads = Threaded(lambda: self.one, workers=self._workers, shared=True)

    def one(self, samples: Samples) -> str:
        """See `Engine.one`."""
        settings = {"language": "en", "beam_size": 1, "temperature": 0.0}
        if self._pipeline is not None:
            segments, _ = self._pipeline.transcribe(samples, batch_size=8, **settings)
        else:
            segments, _ = self._model.transcribe(samples, **settings)
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
        ends = np.cumsum([len(samples) for samples in requests]) / _RATE
        # Half a sample more, since the library cuts seconds down to samples.
        clips = [
            {"start": end - (len(samples) - 0.5) / _RATE, "end": end + 0.5 / _RATE}
            for samples, end in zip(requests, ends, strict=True)
        ]
        assert self._pipeline is not None
        segments, _ = self._pipeline.transcribe(
            np.concatenate(requests), clip_timestamps=clips, batch_size=self._batch,
            language="en", beam_size=1, temperature=0.0,
        )  # fmt: skip
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

    def one(self, samples: Samples) -> str:
        """See `Engine.one`."""
        if len(samples) <= 30 * _RATE:
            return self._generate([samples])[0]
        return self._generate([samples], truncation=False, padding="longest", return_attention_mask=True)[0]

    def many(self, requests: Sequence[Samples]) -> list[str]:
        """See `Engine.many`."""
        texts: list[str] = []
        for first in range(0, len(requests), self._batch):
            texts += self._generate(requests[first : first + self._batch])
        return texts

    def _generate(self, requests: Sequence[Samples], **features: Any) -> list[str]:
        inputs = self._features(list(requests), sampling_rate=_RATE, return_tensors="pt", **features)
        inputs = {
            name: value.to(self._device, self._model.dtype) if value.is_floating_point() else value.to(self._device)
            for name, value in inputs.items()
        }
        options: dict[str, Any] = {"condition_on_prev_tokens": True, "temperature": 0.0} if features else {}
        if self._device == "cuda":
            options["cache_implementation"] = "static"
        with self._torch.inference_mode():
            tokens = self._model.generate(
                **inputs, language="en", task="transcribe", return_timestamps=True, num_beams=1, do_sample=False,
                **options,
            )  # fmt: skip
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

    def make() -> Callable[[Samples], str]:
        model = Model(
            load["path"], params_sampling_strategy=0, redirect_whispercpp_logs_to=None,
            n_threads=load["threads"] // workers,
            language="en", temperature=0.0, temperature_inc=0.0, no_context=False, print_progress=False,
            print_realtime=False, greedy={"best_of": 1},
        )  # fmt: skip
        return lambda samples: " ".join(segment.text for segment in model.transcribe(samples))

    return Threaded(make, workers=workers)


ENGINES: dict[str, Callable[[dict[str, Any]], Engine]] = {
    "ours": Ours,
    "openai-whisper": openai_whisper,
    "faster-whisper": FasterWhisper,
    "transformers": Transformers,
    "openvino-genai": openvino_genai,
    "whisper.cpp": whisper_cpp,
}


def read_wav(path: str) -> Samples:
    """(n,) float32 in [-1, 1) of a mono 16-bit file."""
    with wave.open(path, "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, _RATE), path
        data = file.readframes(file.getnframes())
    return np.frombuffer(data, np.int16).astype(np.float32) / np.float32(32768)


def answer(engine: Engine, request: dict[str, Any]) -> dict[str, Any]:
    """Texts and seconds of one line's request."""
    if "one" in request:
        samples = read_wav(request["one"])
        begin = time.perf_counter()
        texts = [engine.one(samples)]
    else:
        waveforms = [read_wav(path) for path in request["many"]]
        begin = time.perf_counter()
        texts = engine.many(waveforms)
    return {"texts": texts, "seconds": time.perf_counter() - begin, "device_bytes": _device_bytes()}


def _device_bytes() -> int:
    """Most memory of a GPU that torch held so far; 0 where an engine has none or allocates past torch."""
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_reserved() if torch and torch.cuda.is_available() else 0


def main() -> None:
    """Load, then answer lines until the input ends."""
    # The asker holds us by SIGSTOP: should it die, we would stay for ever (PR_SET_PDEATHSIG, prctl(2)).
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    # Libraries print; the answers keep the real standard output to themselves.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    begin = time.perf_counter()
    load = json.loads(sys.stdin.readline())
    engine = ENGINES[load["engine"]](load)
    answers.write(json.dumps({"seconds": time.perf_counter() - begin}) + "\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(answer(engine, json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

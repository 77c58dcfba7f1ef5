"""The library: one model on one device, and what a person wants from it.

Puts `model.audio`, `model.mel`, `model.decoding.batch` and `model.longform.transcript` together for recordings one at a
time; the service puts the same pieces together for many at once.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.capabilities import can_translate, check_detection, check_options
from model.compute import COMPUTE_TYPES
from model.compute_options import ComputeOptions
from model.decoding.batch import DecodingBatch, run_to_end
from model.decoding.step_check import settle_steps
from model.dims import HOP_LENGTH, N_FRAMES
from model.errors import OptionError
from model.gpu.cuda import prepare
from model.guards.missed import silences, silent_stretches
from model.guards.presence import is_doubtful
from model.longform.recording import Recording, needs_speech
from model.mel import LogMel, MelSpan
from model.native.quantize import quantise
from model.network.padding import shorten
from model.network.padding_store import PaddingStore
from model.network.whisper import Whisper
from model.options import MAX_WIDTH, TranscribeOptions
from model.samples import Audio, read_samples
from model.segments import Segment, Transcription
from model.tokenizer import get_tokenizer
from model.voice.vad import CHUNK, SpeechDetector
from model.weights import Weights
from model.window import DecodingResult, Window, written_tokens

_CPU_WINDOWS, _GPU_WINDOWS = 4, 16
"""Windows of one recording that are decoded together."""


class Transcriber:
    """A loaded model: `model.loading.load` makes one. Threads may share it, and take turns."""

    def __init__(self, model: Whisper, name: str) -> None:
        self.model, self.name = model, name
        self.left_out: Mapping[str, str] = {}
        """What might have been had and is not, and why: `native` on a CPU (`model.native.quantize`), on a GPU see
        `model.decoding.step_check.settle_steps`."""
        self.dims = model.dims
        self.tokenizer = get_tokenizer(model.dims)
        self.log_mel = LogMel(model.dims.n_mels, model.device)
        self._turn = threading.RLock()  # of who uses the batches; their memory knows one caller

    @cached_property
    def detector(self) -> SpeechDetector:
        """The voice activity detector, read when it is first needed; `WeightsError` where it is not installed."""
        return SpeechDetector(self.model.device)

    @cached_property
    def batch(self) -> DecodingBatch:
        """The batch of whoever goes window by window; not made for a service, which has its own."""
        return DecodingBatch(self.model, self.tokenizer, max_windows=1, max_rows=MAX_WIDTH)

    @cached_property
    def _side_by_side(self) -> DecodingBatch:
        """The batch of recordings whose parts are decoded together; made when there is the first one."""
        windows = _GPU_WINDOWS if self.model.device.type == "cuda" else _CPU_WINDOWS
        return DecodingBatch(self.model, self.tokenizer, max_windows=windows, max_rows=MAX_WIDTH)

    @classmethod
    def from_weights(
        cls,
        weights: Weights,
        device: torch.device,
        options: ComputeOptions,
        cache_dir: Path | None = None,
    ) -> "Transcriber":
        """The model of these weights on a device, laid out as `model.compute.choose` has it for that device.

        `OptionError` where something is asked for that cannot be had. `cache_dir`: where to keep what takes long to
        work out (`model.network.padding_store`); None for nowhere.
        """
        if device.type == "cuda":
            prepare()
        int8, dtype = options.compute_type == "int8", COMPUTE_TYPES[options.compute_type]
        model = Whisper.from_tensors(weights.dims, weights.tensors, device, dtype, weights.name, pack=not int8)
        outdated = quantise(model) if int8 else None
        if options.encoder_context == "short":
            shorten(model, PaddingStore(cache_dir, model, weights.sha256) if cache_dir and weights.sha256 else None)
        model.cross_kv = options.cross_kv
        made = cls(model, weights.name)
        made.left_out = settle_steps(
            model, made.tokenizer, cross_attention=options.cross_attention, cuda_graphs=options.cuda_graphs
        )
        if outdated is not None:
            made.left_out = {**made.left_out, "native": outdated}
        return made

    @property
    def can_translate(self) -> bool:
        """Whether the model was trained to translate into English."""
        return can_translate(self.dims)

    def transcribe(
        self,
        audio: Audio,
        *,
        progress: Callable[[int, int], None] | None = None,
        hear: Callable[[Sequence[Segment]], None] | None = None,
        **options: Any,
    ) -> Transcription:
        """Transcribe (or translate) a recording; `options` are the fields of `TranscribeOptions`.

        `progress` is called with frames (10 ms) done and frames in all after every window, `hear` with the segments
        that are final by then and were not before. Raises `OptionError` for an option, `AudioError` for a file that
        does not decode.
        """
        settings = self.options(**options)
        samples = read_samples(audio).to(self.model.device)
        heard = self.detector.scan(samples).finish() if needs_speech(settings, len(samples)) else ()
        recording = Recording(self.dims, self.tokenizer, settings, n_samples=len(samples), probabilities=heard)
        with self._turn:
            batch = self.batch if recording.is_sequential else self._side_by_side
            for segments in self._run(batch, recording, samples, settings):
                if hear is not None and segments:
                    hear(segments)
                if progress is not None:
                    progress(recording.frames_done, recording.n_frames)
        return recording.result()

    def detect_language(self, audio: Audio) -> dict[str, float]:
        """Probability of every language that the model knows, most probable first, from the first 30 s."""
        check_detection(self.dims, self.name)
        samples = read_samples(audio).to(self.model.device)
        span = MelSpan(samples, 0, min(N_FRAMES, max(1, len(samples) // HOP_LENGTH)), self.log_mel.maximum(samples))
        with self._turn:
            (slot,) = self.batch.encode(self.log_mel.windows([span]), [span.n_frames])
            try:
                return self.batch.detect_language(slot)
            finally:
                self.batch.release(slot)

    def decode(self, audio: Audio, **options: Any) -> DecodingResult:
        """Decode the first 30 s as one window, without the long-form logic around it."""
        settings = self.options(**options)
        samples = read_samples(audio).to(self.model.device)
        n_frames = min(N_FRAMES, max(1, len(samples) // HOP_LENGTH))
        prompt = written_tokens(self.tokenizer, settings.initial_prompt)
        window = Window(0, 0, n_frames, settings.language, prompt)
        with self._turn:
            return self._decode(MelSpan(samples, 0, n_frames, self.log_mel.maximum(samples)), window, settings)

    def options(self, **options: Any) -> TranscribeOptions:
        """`TranscribeOptions` from keyword arguments, held against what this model can do."""
        if isinstance(options.get("temperature"), Real):
            options["temperature"] = (float(options["temperature"]),)
        try:
            settings = TranscribeOptions(**options)
        except TypeError as error:
            unknown = ", ".join(sorted(options.keys() - TranscribeOptions.__dataclass_fields__.keys()))
            raise OptionError(unknown or "options", f"unknown option: {unknown or error}") from None
        return check_options(settings, self.name, self.model)

    def weigh(
        self, result: DecodingResult, window: Window, samples: Tensor, options: TranscribeOptions
    ) -> DecodingResult:
        """The result with what the detector hears in its window of `samples`, where it is doubtful or has long pauses.

        Some 40 ms of a CPU for 30 s of sound, and as much again where a pause is silent to it: a voice far below the
        others is heard by itself. Asked once: a result that has its speech stays as it is. ArithmeticError where the
        model's scores are no numbers, which no threshold would notice.
        """
        if not (math.isfinite(result.avg_logprob) and math.isfinite(result.no_speech_prob)):
            raise ArithmeticError("the model's scores are no numbers")
        if result.speech:
            return result
        begin = self.tokenizer.timestamp_begin
        passed = silent_stretches(result, window, begin) if options.guards else []
        if not passed and not is_doubtful(result, options):
            return result
        sound = samples[window.seek * HOP_LENGTH : (window.seek + window.n_frames) * HOP_LENGTH]
        speech = self.detector.scan(sound).finish()
        for first, last in silences(passed, speech):
            speech[first:last] = self.detector.scan(sound[first * CHUNK : last * CHUNK]).finish()
        return replace(result, speech=tuple(speech))

    def _run(
        self, batch: DecodingBatch, recording: Recording, samples: Tensor, settings: TranscribeOptions
    ) -> Iterator[tuple[Segment, ...]]:
        """Decode a recording to its end; after every window the segments that are final now."""
        maximum = self.log_mel.maximum(samples)
        lanes: dict[int, int] = {}
        try:
            while not recording.done:
                while batch.free_windows and batch.free_rows >= settings.width and (taken := recording.take()):
                    lane, window = taken
                    span = MelSpan(samples, window.seek, window.n_frames, maximum)
                    (slot,) = batch.encode(self.log_mel.windows([span]), [span.n_frames])
                    lanes[slot] = lane
                    if window.settles_language:
                        window = replace(window, language=recording.hear_language(batch.detect_language(slot)))
                    listen = partial(self.weigh, window=window, samples=samples, options=settings)
                    batch.start(slot, window, settings, listen)
                for slot, result in batch.step():
                    lane = lanes.pop(slot)
                    yield recording.feed(lane, self.weigh(result, recording.window(lane), samples, settings))
        finally:
            for slot in lanes:
                batch.drop(slot)

    def _decode(self, span: MelSpan, window: Window, settings: TranscribeOptions) -> DecodingResult:
        (slot,) = self.batch.encode(self.log_mel.windows([span]), [span.n_frames])
        try:
            self.batch.start(slot, window, settings)
            ((_, result),) = [*run_to_end(self.batch), *self.batch.step()]
        except BaseException:
            self.batch.drop(slot)
            raise
        return result

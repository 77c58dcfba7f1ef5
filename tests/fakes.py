"""Fakes of the pools, scripted by the upload itself, so that a test over a real socket can say what shall happen.

An upload is text, each word optional:
`seconds=5 decode_delay=0.2 queue_delay=0.1 windows=3 window_delay=0.1 error=invalid_audio fallback=logprob`.
The audio fake hands the script on as the "samples", the worker fake plays it. Both count what they did and what they
hold, so that a test can ask that nothing is left.
"""

import asyncio
import contextlib
import errno
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from model.segments import Segment, Skipped
from service.errors import DeadlineExceeded, InvalidAudio, ServiceError, TooLarge, Unavailable
from service.ports import Event
from service.wire import memory
from service.wire.audio_messages import SampleFormat
from service.wire.messages import (
    DetectLanguage,
    Finished,
    LanguageDetected,
    ModelInfo,
    SegmentsReady,
    Started,
    Transcribe,
    WindowTimes,
    WorkerStats,
)

BASE_MODEL = ModelInfo("base", ("en", "de", "fr", "ko"), True, "cpu", "float32", "0" * 64)
ENGLISH_MODEL = ModelInfo("tiny.en", ("en",), False, "cpu", "float32", None)
SKIPPED = (Skipped("no_speech", 1.5, 2.0),)


def script(**words: object) -> bytes:
    """An upload that makes the fakes do something."""
    return " ".join(f"{name}={value}" for name, value in words.items()).encode() or b"plain"


def read_script(fd: int) -> dict[str, str]:
    words = bytes(memory.read_all(fd)).decode("utf-8", "replace").split(" ")
    return dict(word.split("=", 1) for word in words if "=" in word)


@dataclass
class FakeAudio:
    """Samples that are a script."""

    fd: int
    n_samples: int
    pool: "FakeAudioPool"
    sample_format: SampleFormat = "int16"

    @property
    def seconds(self) -> float:
        return self.n_samples / 16_000

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self.pool.held -= 1


@dataclass
class FakeAudioPool:
    """Decodes nothing; `start_delay` seconds until it is ready."""

    start_delay: float = 0.0
    start_error: Exception | None = None
    ready: bool = False
    busy: int = 0
    restarts: int = 0
    held: int = 0
    """Samples given out and not closed."""
    decoded: int = 0
    uploads: list[bytes] = field(default_factory=list)

    async def start(self) -> None:
        await asyncio.sleep(self.start_delay)
        if self.start_error is not None:
            raise self.start_error
        self.ready = True

    async def stop(self) -> None:
        self.ready = False

    async def decode(self, upload_fd: int) -> FakeAudio:
        self.busy += 1
        try:
            self.uploads.append(bytes(memory.read_all(upload_fd)))
            words = read_script(upload_fd)
            await asyncio.sleep(float(words.get("decode_delay", 0)))
            if "error" in words:
                raise _error(words["error"])
            self.decoded += 1
            self.held += 1
            return FakeAudio(os.dup(upload_fd), int(float(words.get("seconds", 1)) * 16_000), self)
        finally:
            self.busy -= 1


@dataclass
class FakeWorkerPool:
    """Plays scripts window by window; every window is one step."""

    model_info: ModelInfo = BASE_MODEL
    warm_delay: float = 0.0
    failure: str | None = None
    start_error: Exception | None = None
    ready: bool = False
    restarts: int = 0
    steps: int = 0
    running: int = 0
    most_running: int = 0
    started: list[Transcribe | DetectLanguage] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    stopped_with: float | None = None
    raise_in_run: BaseException | None = None
    batch_rows: Counter[str] = field(default_factory=lambda: Counter({"1": 3, "4": 2}))
    fallbacks: Counter[str] = field(default_factory=lambda: Counter({"compression_ratio": 2}))
    guards: Counter[str] = field(default_factory=Counter)
    _warming: asyncio.Task[None] | None = None

    @property
    def model(self) -> ModelInfo | None:
        return self.model_info if self.ready else None

    async def start(self) -> None:
        if self.start_error is not None:
            raise self.start_error
        self._warming = asyncio.create_task(self._warm())

    async def _warm(self) -> None:
        await asyncio.sleep(self.warm_delay)
        self.ready = self.failure is None

    async def stop(self, grace_seconds: float) -> None:
        self.stopped_with = grace_seconds
        self.ready = False
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)

    def stats(self) -> dict[str, WorkerStats]:
        if not self.ready:
            return {}
        return {
            "cpu": WorkerStats(
                progress=self.steps,
                steps=self.steps,
                rows=self.running,
                tokens=self.steps,
                waiting_windows=0,
                audio_seconds=float(self.steps),
                fallbacks=dict(self.fallbacks),
                guards=dict(self.guards),
                batch_rows=dict(self.batch_rows),
                out_of_memory=0,
                memory_bytes={"resident": 1000},
                busy_seconds={"hear": 0.0, "encode": 2.5, "decode": 7.5},
            )
        }

    def in_hand(self) -> dict[str, int]:
        return {"cpu": self.running} if self.ready else {}

    async def run(self, job: Transcribe | DetectLanguage, fd: int) -> AsyncGenerator[Event, None]:
        self.started.append(job)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        words = read_script(fd)
        done = False
        try:
            if self.raise_in_run is not None:
                raise self.raise_in_run
            async with contextlib.aclosing(self._play(job, words)) as events:
                async for event in events:
                    yield event
            done = True
        finally:
            self.running -= 1
            (self.finished if done else self.cancelled).append(job.request_id)

    async def _play(self, job: Transcribe | DetectLanguage, words: dict[str, str]) -> AsyncGenerator[Event, None]:
        delay = float(words.get("window_delay", 0))
        if "worker_error" in words:
            raise _error(words["worker_error"])
        queue_delay = float(words.get("queue_delay", 0))
        await asyncio.sleep(queue_delay)
        yield Started(job.request_id, queue_delay)
        if isinstance(job, DetectLanguage):
            await self._step(delay)
            yield LanguageDetected(job.request_id, "ko", {"en": 0.02, "ko": 0.97, "de": 0.01, "fr": 0.0})
            return
        language = job.options.language
        if language is None:
            language = words.get("language", "en")
            if "noise" in words:
                yield LanguageDetected(job.request_id, words["noise"], {words["noise"]: 0.3})
            yield LanguageDetected(job.request_id, language, {language: 0.98})
        self.fallbacks.update(words.get("fallback", "").split())
        self.guards.update(words.get("guard", "").split())
        text = words.get("text", "hello")
        windows, begun = int(words.get("windows", 1)), time.monotonic()
        for number in range(windows):
            await self._step(delay)
            yield SegmentsReady(job.request_id, (segment(number, text), segment(number, "")))
        if "late_error" in words:
            raise _error(words["late_error"])
        if words.get("end") == "early":
            return
        times = tuple(
            WindowTimes(begun + n * delay, begun + n * delay, begun + (n + 1) * delay, 1) for n in range(windows)
        )
        yield Finished(job.request_id, language, f" {text}" * windows, 0.001, delay * windows, SKIPPED, times)

    async def _step(self, delay: float) -> None:
        await asyncio.sleep(delay)
        self.steps += 1
        self.batch_rows[str(self.running)] += 1


def segment(number: int, text: str) -> Segment:
    return Segment(
        id=number,
        seek=number * 3000,
        start=number * 30.0,
        end=number * 30.0 + 1.23456,
        text=f" {text}" if text else "",
        tokens=(50364, 400),
        temperature=0.0,
        avg_logprob=-0.25,
        compression_ratio=1.3,
        no_speech_prob=0.01,
    )


def _error(name: str) -> Exception:
    errors: dict[str, Exception] = {
        "invalid_audio": InvalidAudio("The file holds no sound.", param="file"),
        "audio_too_long": TooLarge("The recording is too long.", param="file", code="audio_too_long"),
        "no_worker": Unavailable("No worker.", code="no_worker"),
        "deadline": DeadlineExceeded("Too late."),
        "quarantined": ServiceError("This request crashed workers.", code="request_crashed_worker"),
        "bug": RuntimeError("secret words of a bug"),
        "memory": MemoryError("secret"),
        "descriptors": OSError(errno.EMFILE, "secret path"),
        "descriptors-on-their-way": OSError(errno.ETOOMANYREFS, "secret path"),
        "space": OSError(errno.ENOSPC, "secret path"),
        "file-size": OSError(errno.EFBIG, "secret path"),
    }
    return errors[name]

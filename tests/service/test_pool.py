"""The pool with real worker processes on a random model: what crosses the pipe, and what happens when one dies."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from model.options import TranscribeOptions
from model.transcriber import Transcriber
from service import memory
from service.errors import BadRequest, DeadlineExceeded, ServiceError, Unavailable
from service.messages import DetectLanguage, Finished, LanguageDetected, SegmentsReady, Transcribe
from service.pool import WorkerPool
from tests import tiny
from tests.serving import in_loop, make_settings

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("weights") / "tiny-random.pt")


@pytest.fixture(scope="module")
def model() -> Transcriber:
    return tiny.transcriber()


@contextlib.asynccontextmanager
async def running(model: Path | str, *, warm: bool = True, **settings: Any) -> AsyncIterator[WorkerPool]:
    values = {"devices": ("cpu",), "threads_per_worker": 1, "max_batch_rows": 4} | settings
    pool = WorkerPool(make_settings(model=str(model), **values))
    await pool.start()
    try:
        while warm and not pool.ready:
            assert pool.failure is None, pool.failure
            await asyncio.sleep(0.05)
        yield pool
    finally:
        await pool.stop(2.0)
        assert not psutil.Process().children()


def _request(name: str, seconds: float, deadline: float | None = None, **options: Any) -> Transcribe:
    values = {"language": "en", "temperature": (0.0,), "sample_len": 5, "no_speech_threshold": None} | options
    return Transcribe(name, "float32", int(seconds * 16_000), TranscribeOptions(**values), deadline)


@contextlib.contextmanager
def _waveform(seconds: float, seed: int = 0):
    fd = memory.create("waveform")
    memory.write_all(fd, tiny.speech(seconds, seed).numpy().tobytes())
    try:
        yield fd
    finally:
        os.close(fd)


async def _transcribe(pool: WorkerPool, request: Transcribe, seed: int = 0) -> tuple[str, list[Any]]:
    segments: list[Any] = []
    with _waveform(request.n_samples / 16_000, seed) as fd:
        async with contextlib.aclosing(pool.run(request, fd)) as events:
            async for event in events:
                if isinstance(event, SegmentsReady):
                    segments += event.segments
                elif isinstance(event, Finished):
                    return event.text, segments
    raise AssertionError("the events ended without a result")


async def _until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.05)


@in_loop
async def test_eight_requests_at_once_get_what_the_library_gives(checkpoint, model) -> None:
    sizes = [2.0, 33.0, 5.0, 61.0, 9.0, 30.0, 1.0, 4.0]
    options = {"sample_len": 12}
    async with running(checkpoint) as pool:
        assert pool.model is not None
        assert (pool.model.name, pool.model.compute_type, len(pool.model.languages)) == ("tiny-random", "float32", 99)
        work = [_transcribe(pool, _request(f"r{i}", s, **options), i) for i, s in enumerate(sizes)]
        answers = await asyncio.gather(*work)
        await asyncio.sleep(1.2)
        stats = pool.stats()["cpu"]
    for i, (seconds, (text, segments)) in enumerate(zip(sizes, answers, strict=True)):
        alone = model.transcribe(
            tiny.speech(seconds, i), language="en", temperature=0.0, no_speech_threshold=None, **options
        )
        assert text == alone.text
        assert [s.tokens for s in segments] == [s.tokens for s in alone.segments]
    assert stats.audio_seconds == pytest.approx(sum(sizes))
    assert max(int(rows) for rows in stats.batch_rows) > 1
    assert (stats.rows, stats.waiting_windows) == (0, 0)


@in_loop
async def test_language_refusals_and_deadlines_cross_the_pipe(checkpoint, model) -> None:
    async with running(checkpoint) as pool:
        with _waveform(3.0) as fd:
            (event,) = [e async for e in pool.run(DetectLanguage("d", "float32", 48_000, None), fd)]
        assert isinstance(event, LanguageDetected)
        assert event.language == next(iter(model.detect_language(tiny.speech(3.0))))
        with pytest.raises(BadRequest, match="Cantonese"):
            await _transcribe(pool, _request("y", 2.0, language="yue"))
        with pytest.raises(DeadlineExceeded):
            await _transcribe(pool, _request("late", 200.0, deadline=time.monotonic() + 0.2))


@in_loop
async def test_r22_closing_the_events_stops_the_work(checkpoint) -> None:
    async with running(checkpoint) as pool:
        with _waveform(3000.0) as fd:
            events = pool.run(_request("long", 3000.0), fd)
            await anext(events)
            await events.aclose()
        await asyncio.sleep(1.2)
        before = pool.stats()["cpu"].steps
        await asyncio.sleep(1.2)
        stats = pool.stats()["cpu"]
        assert (stats.steps, stats.rows, stats.waiting_windows) == (before, 0, 0)
        assert (await _transcribe(pool, _request("next", 2.0)))[0] is not None


@in_loop
async def test_r26_a_killed_worker_is_replaced_and_no_request_hangs(checkpoint) -> None:
    async with running(checkpoint) as pool:
        work = [asyncio.create_task(_transcribe(pool, _request(f"r{i}", 600.0))) for i in range(4)]
        await asyncio.sleep(0.5)
        (worker,) = psutil.Process().children()
        worker.send_signal(signal.SIGKILL)
        answers = await asyncio.wait_for(asyncio.gather(*work, return_exceptions=True), 30)
        assert all(isinstance(answer, Unavailable | tuple) for answer in answers)
        assert not pool.ready or pool.restarts == 1
        await _until(lambda: pool.ready)
        assert pool.restarts == 1
        assert (await _transcribe(pool, _request("after", 2.0)))[0] is not None


@in_loop
async def test_a_model_that_cannot_be_loaded_is_reported(tmp_path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no weights")
    async with running(broken, warm=False) as pool:
        await _until(lambda: pool.failure is not None)
        assert "broken.pt" in pool.failure
        with pytest.raises(ServiceError) as caught:
            await _transcribe(pool, _request("a", 1.0))
        assert (caught.value.status, caught.value.code) == (503, "no_worker")


@in_loop
async def test_stopping_ends_jobs_with_503(checkpoint) -> None:
    async with running(checkpoint) as pool:
        work = asyncio.create_task(_transcribe(pool, _request("long", 3000.0)))
        await asyncio.sleep(0.3)
        await pool.stop(1.0)
        with pytest.raises(Unavailable) as caught:
            await work
        assert caught.value.code == "draining"

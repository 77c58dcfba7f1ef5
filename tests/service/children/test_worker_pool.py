"""The pool with real worker processes on a random model: what crosses the pipe, and what happens when one dies."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from model.native.quantize import decoder_name, quantise
from model.transcriber import Transcriber
from service.children.worker_pool import WorkerPool
from service.errors import BadRequest, DeadlineExceeded, InternalError, ServiceError, Unavailable
from service.wire import memory
from service.wire.messages import DetectLanguage, Finished, LanguageDetected, SegmentsReady, Started, Transcribe
from tests import tiny
from tests.engines import alone, request_of
from tests.faulty_worker import Harm
from tests.serving import in_loop, make_settings

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("weights") / "tiny-random.pt")


@pytest.fixture(scope="module")
def model() -> Transcriber:
    return tiny.transcriber()


@contextlib.asynccontextmanager
async def running(
    model: Path | str, *, warm: bool = True, command: Sequence[str] | None = None, **settings: Any
) -> AsyncIterator[WorkerPool]:
    # float32 is what the tests compare with.
    fixed = {"devices": ("cpu",), "threads_per_worker": 1, "max_batch_rows": 4, "compute_type": "float32"}
    values = fixed | settings
    pool = WorkerPool(make_settings(model=str(model), **values), command=command)
    await pool.start()
    try:
        while warm and not pool.ready:
            assert pool.failure is None, pool.failure
            await asyncio.sleep(0.05)
        yield pool
    finally:
        await pool.stop(2.0)
        assert not psutil.Process().children()


@contextlib.contextmanager
def _waveform(seconds: float, seed: int = 0):
    fd = memory.create("waveform")
    memory.write_all(fd, tiny.speech(seconds, seed).numpy().tobytes())
    try:
        yield fd
    finally:
        os.close(fd)


async def _transcribe(
    pool: WorkerPool, request: Transcribe, seed: int = 0, heard: asyncio.Event | None = None
) -> tuple[str, list[Any]]:
    """Text and segments; `heard` is set when the first of them come, while the windows after them are in work."""
    segments: list[Any] = []
    with _waveform(request.n_samples / 16_000, seed) as fd:
        async with contextlib.aclosing(pool.run(request, fd)) as events:
            async for event in events:
                if isinstance(event, SegmentsReady):
                    segments += event.segments
                    if heard is not None:
                        heard.set()
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
        work = [_transcribe(pool, request_of(f"r{i}", s, **options), i) for i, s in enumerate(sizes)]
        answers = await asyncio.gather(*work)
        await _until(lambda: bool(pool.stats()) and round(pool.stats()["cpu"].audio_seconds) == sum(sizes))
        stats = pool.stats()["cpu"]
    for i, (seconds, (text, segments)) in enumerate(zip(sizes, answers, strict=True)):
        expected = alone(model, seconds, i, **options)
        assert text == expected.text
        assert [s.tokens for s in segments] == [s.tokens for s in expected.segments]
    assert max(int(rows) for rows in stats.batch_rows) > 1
    assert (stats.rows, stats.waiting_windows) == (0, 0)


@in_loop
async def test_language_refusals_and_deadlines_cross_the_pipe(checkpoint, model) -> None:
    async with running(checkpoint) as pool:
        with _waveform(3.0) as fd:
            started, event = [e async for e in pool.run(DetectLanguage("d", "float32", 48_000, None), fd)]
        assert isinstance(started, Started)
        assert isinstance(event, LanguageDetected)
        assert event.language == next(iter(model.detect_language(tiny.speech(3.0))))
        with pytest.raises(BadRequest, match="Cantonese") as refused:
            await _transcribe(pool, request_of("y", 2.0, language="yue"))
        assert refused.value.param == "language"
        with pytest.raises(DeadlineExceeded):
            await _transcribe(pool, request_of("late", 200.0, deadline=time.monotonic() + 0.2))


@in_loop
async def test_r22_closing_the_events_stops_the_work(checkpoint) -> None:
    async with running(checkpoint) as pool:
        with _waveform(3000.0) as fd:
            events = pool.run(request_of("long", 3000.0), fd)
            await anext(events)
            await events.aclose()
        seen, stats = -1, pool.stats()["cpu"]
        async with asyncio.timeout(30):
            while (stats.steps, stats.rows, stats.waiting_windows) != (seen, 0, 0):
                seen = stats.steps
                await asyncio.sleep(1.2)  # workers say twice a second how far they are
                stats = pool.stats()["cpu"]
        assert (await _transcribe(pool, request_of("next", 2.0)))[0] is not None


@in_loop
async def test_r26_a_killed_worker_is_replaced_and_its_requests_are_answered(checkpoint, model) -> None:
    async with running(checkpoint) as pool:
        heard = asyncio.Event()
        work = [asyncio.create_task(_transcribe(pool, request_of(f"r{i}", 300.0), i, heard)) for i in range(4)]
        await asyncio.wait_for(heard.wait(), 30)
        (worker,) = psutil.Process().children()
        worker.send_signal(signal.SIGKILL)
        answers = await asyncio.wait_for(asyncio.gather(*work), 120)
        assert (pool.ready, pool.restarts) == (True, 1)
    for i, (text, segments) in enumerate(answers):
        expected = alone(model, 300.0, i)
        assert text == expected.text
        assert [(s.id, s.tokens) for s in segments] == [(s.id, s.tokens) for s in expected.segments]


@in_loop
async def test_int8_is_what_the_worker_says_it_runs(checkpoint) -> None:
    async with running(checkpoint, compute_type="int8") as pool:
        assert pool.model is not None
        assert pool.model.compute_type == "int8"
        int8 = tiny.transcriber()
        quantise(int8.model)
        assert pool.model.decoder == decoder_name(int8.model)
        text, _ = await _transcribe(pool, request_of("r", 3.0, sample_len=12), seed=3)
    assert text == alone(Transcriber(int8.model, int8.name), 3.0, 3, sample_len=12).text


@in_loop
async def test_the_audio_is_kept_in_the_bits_that_were_asked_for(checkpoint) -> None:
    async with running(checkpoint, cross_kv="fp8") as pool:
        assert pool.model is not None
        assert (pool.model.compute_type, pool.model.cross_kv) == ("float32", "fp8")
        text, _ = await _transcribe(pool, request_of("r", 3.0, sample_len=12), seed=3)
    fp8 = tiny.transcriber()
    fp8.model.cross_kv = "fp8"
    assert text == alone(Transcriber(fp8.model, fp8.name), 3.0, 3, sample_len=12).text


@in_loop
async def test_two_workers_on_one_device_both_work_and_are_told_apart(checkpoint, model) -> None:
    command = [sys.executable, "-m", "tests.worker_without_gpu"]
    async with running(checkpoint, devices=("cuda:0", "cuda:0"), command=command) as pool:
        await _until(lambda: len(pool.stats()) == 2)
        assert set(pool.stats()) == {"cpu", "cpu/2"}
        work = [_transcribe(pool, request_of(f"r{i}", 4.0, sample_len=12), i) for i in range(2)]
        answers = await asyncio.gather(*work)
        await _until(lambda: all(stats.audio_seconds == 4.0 for stats in pool.stats().values()))
    assert [text for text, _ in answers] == [alone(model, 4.0, i, sample_len=12).text for i in range(2)]


FAULTY = [sys.executable, "-m", "tests.faulty_worker"]


def _harmful(name: str, harm: Harm) -> Transcribe:
    return request_of(name, harm / 16_000)


@in_loop
async def test_r27_a_worker_that_hangs_is_replaced_and_an_idle_one_is_not(checkpoint) -> None:
    async with running(checkpoint, command=FAULTY, stall_seconds=2.0) as pool:
        await asyncio.sleep(4.5)
        assert pool.restarts == 0
        with pytest.raises(InternalError) as caught:
            await asyncio.wait_for(_transcribe(pool, _harmful("hang", Harm.HANGS)), 60)
        assert caught.value.code == "request_crashed_worker"
        await _until(lambda: pool.ready)
        assert pool.restarts == 2
        assert (await _transcribe(pool, request_of("after", 2.0)))[0] is not None


@in_loop
async def test_r27_a_stopped_worker_is_replaced_and_its_request_is_answered(checkpoint) -> None:
    async with running(checkpoint, stall_seconds=2.0) as pool:
        heard = asyncio.Event()
        work = asyncio.create_task(_transcribe(pool, request_of("long", 300.0), heard=heard))
        await asyncio.wait_for(heard.wait(), 30)
        (worker,) = psutil.Process().children()
        worker.send_signal(signal.SIGSTOP)
        _, segments = await asyncio.wait_for(work, 120)
        assert [s.id for s in segments] == list(range(len(segments)))
        assert pool.restarts == 1


@in_loop
async def test_r28_a_poison_request_fails_alone_and_is_refused_afterwards(checkpoint) -> None:
    async with running(checkpoint, command=FAULTY) as pool:
        heard = asyncio.Event()
        innocent = [asyncio.create_task(_transcribe(pool, request_of(f"r{i}", 120.0), i, heard)) for i in range(3)]
        await asyncio.wait_for(heard.wait(), 30)
        with pytest.raises(InternalError) as caught:
            await asyncio.wait_for(_transcribe(pool, _harmful("poison", Harm.DIES)), 60)
        assert (caught.value.status, caught.value.code) == (500, "request_crashed_worker")
        assert len(await asyncio.wait_for(asyncio.gather(*innocent), 60)) == 3
        await _until(lambda: pool.ready)
        assert pool.restarts == 2
        with pytest.raises(InternalError):
            await asyncio.wait_for(_transcribe(pool, _harmful("again", Harm.DIES)), 5)
        assert pool.restarts == 2


@in_loop
async def test_a_request_that_was_only_near_a_crash_is_answered(checkpoint) -> None:
    checkpoint.with_suffix(".marker").unlink(missing_ok=True)
    async with running(checkpoint, command=FAULTY) as pool:
        text, _ = await asyncio.wait_for(_transcribe(pool, _harmful("once", Harm.DIES_ONCE)), 60)
        assert text is not None
        assert pool.restarts == 1


@in_loop
async def test_r26_a_request_is_not_blamed_for_workers_that_others_kill(checkpoint) -> None:
    async with running(checkpoint, command=FAULTY) as pool:
        with pytest.raises(Unavailable) as caught:
            await asyncio.wait_for(_transcribe(pool, _harmful("unlucky", Harm.IS_KILLED)), 120)
        assert caught.value.retry_after_seconds is not None
        assert pool.restarts >= 3
        await _until(lambda: pool.ready)
        assert (await _transcribe(pool, request_of("next", 2.0)))[0] is not None
        work = asyncio.create_task(_transcribe(pool, _harmful("unlucky", Harm.IS_KILLED)))
        await _until(lambda: pool.restarts >= 4)  # it is tried again, not refused
        work.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="nobody else limits another process")
@in_loop
async def test_r29_a_recording_for_which_there_is_no_memory_ends_no_worker(checkpoint) -> None:
    async with running(checkpoint) as pool:
        (worker,) = psutil.Process().children()
        before = worker.rlimit(psutil.RLIMIT_AS)
        worker.rlimit(psutil.RLIMIT_AS, (worker.memory_info().vms, before[1]))
        with pytest.raises(Unavailable) as caught:
            await _transcribe(pool, request_of("large", 3000.0))
        assert caught.value.code == "overloaded"
        worker.rlimit(psutil.RLIMIT_AS, before)
        assert (await _transcribe(pool, request_of("next", 2.0)))[0] is not None
        assert pool.restarts == 0


@in_loop
async def test_r28_a_request_that_uses_up_the_memory_is_to_blame(checkpoint, monkeypatch) -> None:
    monkeypatch.setattr("service.wire.process.oom_kills", lambda: -1)  # not what it said before
    async with running(checkpoint, command=FAULTY) as pool:
        with pytest.raises(InternalError) as caught:
            await asyncio.wait_for(_transcribe(pool, _harmful("huge", Harm.IS_KILLED)), 60)
        assert caught.value.code == "request_crashed_worker"


@in_loop
@pytest.mark.parametrize("death", ["os._exit(9)", "os.kill(os.getpid(), 9)"])
async def test_r30_a_worker_that_dies_at_every_start_is_not_started_in_a_hurry(checkpoint, death) -> None:
    async with running(checkpoint, warm=False, command=[sys.executable, "-c", f"import os; {death}"]) as pool:
        await asyncio.sleep(3.0)
        assert 1 <= pool.restarts <= 4
        assert (pool.ready, pool.failure) == (False, None)
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await _transcribe(pool, request_of("a", 1.0))
        assert time.monotonic() - started < 1.0


def test_r31_no_worker_outlives_a_killed_parent(checkpoint) -> None:
    program = (
        "import asyncio, sys\n"
        "from service.children.worker_pool import WorkerPool\n"
        "from tests.serving import make_settings\n"
        "async def main():\n"
        f"    pool = WorkerPool(make_settings(model={str(checkpoint)!r}, devices=('cpu',)))\n"
        "    await pool.start()\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = psutil.Popen([sys.executable, "-c", program])
    end = time.monotonic() + 20
    while not parent.children() and time.monotonic() < end:
        time.sleep(0.05)
    (worker,) = parent.children()
    parent.kill()
    parent.wait()
    worker.wait(5)


@in_loop
async def test_a_model_that_cannot_be_loaded_is_reported(tmp_path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no weights")
    async with running(broken, warm=False) as pool:
        await _until(lambda: pool.failure is not None)
        assert "broken.pt" in pool.failure
        with pytest.raises(ServiceError) as caught:
            await _transcribe(pool, request_of("a", 1.0))
        assert (caught.value.status, caught.value.code) == (503, "no_worker")


@in_loop
async def test_stopping_ends_jobs_with_503(checkpoint) -> None:
    async with running(checkpoint) as pool:
        heard = asyncio.Event()
        work = asyncio.create_task(_transcribe(pool, request_of("long", 3000.0), heard=heard))
        await asyncio.wait_for(heard.wait(), 30)
        await pool.stop(1.0)
        with pytest.raises(Unavailable) as caught:
            await work
        assert caught.value.code == "draining"

"""Whose fault it is that a worker ended, and what the pool does where it cannot start one."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator

import pytest

from model.options import TranscribeOptions
from service.children import worker_pool as pool
from service.children.quarantine import fingerprint
from service.children.worker_pool import WorkerPool
from service.children.worker_process import WorkerProcess
from service.errors import InternalError, Unavailable
from service.wire import memory
from service.wire.messages import DetectLanguage, Finished, LanguageDetected, Transcribe
from tests import audio_pools
from tests.audio_pools import until
from tests.serving import in_loop, make_settings
from tests.sounds import float_wav, speechlike

COMMAND = [sys.executable, "-m", "tests.scripted_worker"]
FAILS_ONCE = """
import socket
from pathlib import Path
from service.wire.channel import Channel
from service.wire.messages import StartFailed
from service.worker.__main__ import parse
from tests.scripted_worker import main
marker = Path({marker!r})
if marker.exists():
    main()
else:
    marker.touch()
    Channel(socket.socket(fileno=parse().fd)).send(StartFailed("no room"))
"""

REFUSES_CUDA = """
import socket
import time
from service.wire.channel import Channel
from service.wire.messages import StartFailed
from service.worker.__main__ import parse
from tests.scripted_worker import main
if parse().device.startswith("cuda"):
    time.sleep({"cuda:1": 0.5}.get(parse().device, 0.0))
    Channel(socket.socket(fileno=parse().fd)).send(StartFailed("no such device"))
else:
    main()
"""


@contextlib.asynccontextmanager
async def running(**settings) -> AsyncIterator[WorkerPool]:
    clock, command = settings.pop("clock", time.monotonic), settings.pop("command", COMMAND)
    workers = WorkerPool(make_settings(**{"devices": ("cpu",), **settings}), command=command, clock=clock)
    await workers.start()
    try:
        await until(lambda: workers.ready)
        yield workers
    finally:
        await workers.stop(1.0)


@contextlib.contextmanager
def recording(words: str | bytes):
    fd = memory.create("waveform")
    memory.write_all(fd, words.encode().ljust(32_000) if isinstance(words, str) else words)
    try:
        yield fd
    finally:
        os.close(fd)


async def ask(workers: WorkerPool, words: str) -> str:
    """The answer to a recording that says these words."""
    job = Transcribe(words, "int16", 16_000, TranscribeOptions(), None)
    with recording(words) as fd:
        async for event in workers.run(job, fd):
            if isinstance(event, Finished):
                return event.text
    raise AssertionError("no answer")


async def language(workers: WorkerPool, words: str) -> str:
    """The language of such a recording."""
    with recording(words) as fd:
        async for event in workers.run(DetectLanguage(words, "int16", 16_000, None), fd):
            if isinstance(event, LanguageDetected):
                return event.language
    raise AssertionError("no answer")


async def refused(workers: WorkerPool, words: str) -> str:
    with pytest.raises((InternalError, Unavailable)) as caught:
        await ask(workers, words)
    return caught.value.code


@in_loop
@pytest.mark.parametrize("leaves_after", [0, 1])
async def test_r28_who_leaves_is_to_blame_all_the_same_and_who_stays_is_answered(leaves_after) -> None:
    async with running(stall_seconds=1.5) as workers:
        guilty = asyncio.create_task(ask(workers, "hang 1"))
        innocent = asyncio.create_task(ask(workers, "innocent 1"))
        await until(lambda: workers.restarts >= leaves_after)
        await until(lambda: workers.ready and any(one.in_hand for one in workers._workers.values()))
        await asyncio.sleep(0.3)  # now it is stuck in the guilty one
        guilty.cancel()
        assert await asyncio.wait_for(innocent, 30) == "said"
        with recording("hang 1") as poison, recording("innocent 1") as fine:
            assert workers._dispatcher._quarantine.holds(fingerprint(poison), time.monotonic()) == bool(leaves_after)
            assert not workers._dispatcher._quarantine.holds(fingerprint(fine), time.monotonic())
        assert not any(one.in_hand for one in workers._workers.values())


@in_loop
async def test_r28_a_client_that_never_waits_for_the_verdict_cannot_go_on_crashing_workers() -> None:
    async with running() as workers:
        for restarts in (1, 2):
            guilty = asyncio.create_task(ask(workers, "crash"))
            await until(lambda: not workers.ready)
            guilty.cancel()
            await asyncio.wait([guilty])
            await until(lambda count=restarts: workers.ready and workers.restarts == count)
            assert await ask(workers, "innocent") == "said"
        assert await refused(workers, "crash") == "request_crashed_worker"
        assert workers.restarts == 2


@in_loop
@pytest.mark.parametrize(("asked", "answer"), [(ask, "said"), (language, "en")])
async def test_a_suspect_that_comes_back_and_is_answered_is_one_no_more(asked, answer) -> None:
    async with running() as workers:
        both = [asyncio.create_task(ask(workers, words)) for words in ("innocent", "crash")]
        await until(lambda: not workers.ready)
        for one in both:
            one.cancel()
        await until(lambda: workers.ready)
        with recording("innocent") as fine:
            assert workers._dispatcher._suspected.holds(fingerprint(fine), time.monotonic())
            assert await asked(workers, "innocent") == answer
            assert not workers._dispatcher._suspected.holds(fingerprint(fine), time.monotonic())


@in_loop
async def test_a_worker_that_stands_still_while_it_starts_is_replaced() -> None:
    settings = make_settings(devices=("cpu",), start_seconds=0.5)
    silent = (sys.executable, "-c", "import time; time.sleep(3600)")
    workers = WorkerPool(settings, command=silent, clock=time.monotonic)
    await workers.start()
    try:
        await until(lambda: workers.restarts >= 1)
        assert not workers.ready
    finally:
        await workers.stop(1.0)


@in_loop
async def test_a_worker_that_hangs_is_replaced_though_nobody_waits_any_more() -> None:
    async with running(stall_seconds=1.0) as workers:
        alone = asyncio.create_task(ask(workers, "hang"))
        await asyncio.sleep(0.3)
        alone.cancel()
        await until(lambda: workers.restarts == 1 and workers.ready)
        assert await ask(workers, "next") == "said"


@in_loop
async def test_who_leaves_in_time_is_dropped_and_gives_its_waveform_back() -> None:
    async with running() as workers:
        leaver = asyncio.create_task(ask(workers, "wait"))
        (worker,) = workers._workers.values()
        await until(lambda: worker.in_hand)
        (job,) = worker.in_hand
        leaver.cancel()
        await until(lambda: not worker.in_hand)
        assert job.fd == -1
        assert await ask(workers, "next") == "said"
        assert workers.restarts == 0


@in_loop
async def test_r28_what_a_worker_had_not_read_did_not_end_it(monkeypatch) -> None:
    monkeypatch.setattr(pool, "_BACK_OFF_SECONDS", (0.05,))
    async with running() as workers:
        assert await refused(workers, "drop") == "no_worker"
        await until(lambda: workers.ready)
        assert await refused(workers, "crash") == "request_crashed_worker"
        with recording("drop") as unread, recording("crash") as read:
            assert not workers._dispatcher._quarantine.holds(fingerprint(unread), time.monotonic())
            assert workers._dispatcher._quarantine.holds(fingerprint(read), time.monotonic())


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
@in_loop
async def test_r26_a_request_is_not_blamed_for_workers_that_others_stop() -> None:
    async with running(stall_seconds=1.0) as workers:
        unlucky = asyncio.create_task(ask(workers, "unlucky"))
        for restarts in (0, 1):
            await until(lambda count=restarts: workers.restarts == count and workers.ready)
            (worker,) = workers._workers.values()
            await until(lambda one=worker: any(job.received for job in one.in_hand))
            os.kill(worker.process.pid, signal.SIGSTOP)
        assert await asyncio.wait_for(unlucky, 30) == "said"
        with recording("unlucky") as fine:
            for held in (workers._dispatcher._quarantine, workers._dispatcher._suspected):
                assert not held.holds(fingerprint(fine), time.monotonic())


@in_loop
@pytest.mark.parametrize("worked", [False, True])
async def test_r30_a_worker_that_others_kill_is_replaced_at_once_only_if_it_had_worked(worked) -> None:
    workers = WorkerPool(make_settings(devices=("cpu",)), command=COMMAND)
    life = asyncio.create_task(workers._life("cpu"))
    await until(lambda: workers.ready)
    if worked:
        assert await ask(workers, "well") == "said"
    (worker,) = workers._workers.values()
    os.kill(worker.process.pid, signal.SIGKILL)
    assert await life is worked
    await workers.stop(1.0)


@in_loop
async def test_r30_a_pool_without_descriptors_goes_on_when_there_are_some(monkeypatch, caplog) -> None:
    failures = iter([OSError(errno.EMFILE, "Too many open files")] * 2)
    start = WorkerProcess.__init__

    def starting(self, *arguments) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        start(self, *arguments)

    monkeypatch.setattr(WorkerProcess, "__init__", starting)
    async with running() as workers:
        assert workers.restarts == 2
        lines = [record.fields for record in caplog.records if record.message == "worker_not_started"]
        assert [line["reason"] for line in lines] == ["Too many open files"] * 2
        assert await ask(workers, "well") == "said"

        def full(*_) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        for name in ("service.children.dispatcher.os.dup", "service.children.worker_process.WorkerProcess.submit"):
            with monkeypatch.context() as patch:
                patch.setattr(name, full)
                with pytest.raises(OSError, match="Too many open files"):
                    await ask(workers, "late")
        assert await ask(workers, "better") == "said"


@in_loop
async def test_r30_the_service_starts_if_one_of_its_devices_can(caplog) -> None:
    async with running(devices=("cpu", "cuda:0"), command=[sys.executable, "-c", REFUSES_CUDA]) as workers:
        await until(lambda: workers.restarts >= 2)
        assert (workers.ready, workers.failure) == (True, None)
        assert await ask(workers, "well") == "said"
    details = {record.fields["detail"] for record in caplog.records if record.message == "worker_ended"}
    assert details == {"no such device"}


@in_loop
async def test_r30_the_service_gives_up_once_each_of_its_devices_has_refused() -> None:
    workers = WorkerPool(make_settings(devices=("cuda:0", "cuda:1")), command=[sys.executable, "-c", REFUSES_CUDA])
    await workers.start()
    try:
        await until(lambda: len(workers._refusals) == 1)
        assert workers.failure is None
        await until(lambda: workers.failure == "no such device")
    finally:
        await workers.stop(1.0)


@pytest.mark.parametrize(
    ("present", "listed", "devices"),
    [
        (4, None, ("cuda:0", "cuda:1", "cuda:2", "cuda:3")),
        (4, "2,3", ("cuda:0", "cuda:1")),
        (4, "", ("auto",)),
        (2, "0,1,2", ("cuda:0", "cuda:1")),
        (1, None, ("auto",)),
        (0, None, ("auto",)),
    ],
)
def test_all_gpus_that_kernel_and_environment_show_get_a_worker(tmp_path, monkeypatch, present, listed, devices):
    for name in ("nvidiactl", "nvidia-uvm", *(f"nvidia{i}" for i in range(present))):
        (tmp_path / name).touch()
    monkeypatch.setattr(pool, "Path", lambda _: tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert WorkerPool(make_settings(devices=("auto",)))._devices() == devices


def test_r30_why_a_worker_could_not_start_is_told_of_that_one_only(tmp_path, caplog) -> None:
    program = FAILS_ONCE.format(marker=str(tmp_path / "started"))

    async def scenario() -> None:
        async with running(command=[sys.executable, "-c", program]) as workers:
            assert await refused(workers, "crash") == "request_crashed_worker"

    with caplog.at_level(logging.ERROR, "service"):
        asyncio.run(scenario())
    ends = [record.fields for record in caplog.records if record.message == "worker_ended"]
    assert [end["detail"] for end in ends] == ["no room", None, None]


@in_loop
@pytest.mark.parametrize(("words", "status"), [("crash", 3), ("hang", None)])
async def test_the_log_has_the_exit_status_of_a_worker_that_ended_by_itself(words, status, caplog) -> None:
    async with running(stall_seconds=1.0) as workers:
        assert await refused(workers, words) == "request_crashed_worker"
        await until(lambda: workers.restarts == 2)
    ends = [record.fields["exit_status"] for record in caplog.records if record.message == "worker_ended"]
    assert ends[:2] == [status, status]


@in_loop
async def test_r30_a_pool_without_threads_replaces_its_workers_all_the_same(monkeypatch) -> None:
    async def none_left(*_) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(asyncio, "to_thread", none_left)
    async with running() as workers:
        assert await asyncio.wait_for(refused(workers, "crash"), 30) == "request_crashed_worker"
        await until(lambda: workers.ready)
        assert await ask(workers, "well") == "said"
        assert await refused(workers, "crash") == "request_crashed_worker"
        assert workers.restarts == 2


@in_loop
async def test_r27_time_that_this_process_stood_still_is_not_held_against_a_worker() -> None:
    offset = 0.0
    async with running(stall_seconds=5.0, clock=lambda: time.monotonic() + offset) as workers:
        work = asyncio.create_task(ask(workers, "patience"))
        await asyncio.sleep(0.05)
        offset = 100.0
        assert await work == "said"
        assert workers.restarts == 0


@in_loop
async def test_r27_who_waits_for_a_worker_that_stands_still_is_in_nobodys_way() -> None:
    async with audio_pools.running(audio_pools.new_pool()) as audio, running(stall_seconds=3600) as workers:
        waiting = [asyncio.create_task(ask(workers, words)) for words in ("hang", *map(str, range(100)))]
        (worker,) = workers._workers.values()
        await until(lambda: any(job.received for job in worker.in_hand))
        with recording(float_wav(speechlike(1.0))) as file:
            (await audio.decode(file)).close()
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
        assert len([job for job in worker.in_hand if job.fd != -1]) < 20

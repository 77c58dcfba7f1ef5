"""R14: whatever a file does to its decoder, that file is 400 `invalid_audio`, and the next one is decoded."""

import asyncio
import os
import signal
import sys
import time
from unittest import mock

import pytest

from service.errors import InvalidAudio, Unavailable
from service.wire import process
from service.wire.process import oom_kills
from tests.audio_pools import SCRIPTED, children, new_pool, outcome, running, until

pytestmark = pytest.mark.fault


@pytest.mark.parametrize(
    ("upload", "words"),
    [
        (b"segfault", "could not be decoded"),
        (b"abort", "could not be decoded"),
        (b"leave", "could not be decoded"),
        (b"spin", "took too long to decode"),
        (b"stop", "took too long to decode"),
        (b"allocate 4000000000", "could not be decoded"),
    ],
    ids=["segfault", "abort", "exit", "spin", "stop", "4 GB"],
)
def test_R14_a_fatal_file_costs_itself_only(monkeypatch: pytest.MonkeyPatch, upload: bytes, words: str) -> None:
    monkeypatch.setattr(process, "processor_seconds", lambda pid: time.monotonic())  # however busy the machine is

    async def scenario() -> None:
        async with running(new_pool(SCRIPTED, decode_seconds=1.0, memory_bytes=2**28)) as pool:
            for number in range(2):
                start = time.monotonic()
                refused = await outcome(pool, upload)
                assert isinstance(refused, InvalidAudio)
                assert (refused.status, refused.code) == (400, "invalid_audio")
                assert words in refused.message
                assert time.monotonic() - start < 10
                assert await outcome(pool, b"samples") == 0.01
                assert pool.restarts == number + 1
                assert pool.ready

    asyncio.run(scenario())


def test_R14_flooding_stderr_blocks_nobody() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            assert await outcome(pool, b"flood") == 0.01
            assert pool.restarts == 0

    asyncio.run(scenario())


def test_R14_a_child_killed_at_work_costs_its_file_only() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            (child,) = children()
            work = asyncio.create_task(outcome(pool, b"sleep 60"))
            await asyncio.sleep(0.2)
            others = [asyncio.create_task(outcome(pool, b"samples")) for _ in range(5)]
            os.kill(child, signal.SIGSEGV)
            assert isinstance(await work, InvalidAudio)
            assert await asyncio.gather(*others) == [0.01] * 5
            assert pool.restarts == 1

    asyncio.run(scenario())


@pytest.mark.skipif(oom_kills() is None, reason="the kernel does not say whom it kills for memory")
def test_R14_a_child_killed_by_somebody_else_is_not_the_fault_of_its_file() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            for kills, seconds, ends in ((1, 1, False), (2, 60, True)):
                before = pool.restarts
                work = asyncio.create_task(outcome(pool, b"sleep %d" % seconds))
                for kill in range(kills):
                    await until(lambda before=before + kill: pool.busy == 1 and pool.restarts == before)
                    (child,) = children()
                    os.kill(child, signal.SIGKILL)
                refused = await work
                assert isinstance(refused, Unavailable) == ends, refused
                assert not isinstance(refused, InvalidAudio)
            assert refused.retry_after_seconds
            assert await outcome(pool, b"samples") == 0.01

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_R14_a_child_that_somebody_holds_still_is_not_the_fault_of_its_file() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED, decode_seconds=1.0)) as pool:
            (child,) = children()
            os.kill(child, signal.SIGSTOP)
            assert await outcome(pool, b"samples") == 0.01
            assert pool.restarts == 1

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_R14_a_child_that_a_busy_machine_starves_is_not_the_fault_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "processor_seconds", lambda pid: 7.0)  # it gets no more

    async def scenario() -> None:
        async with running(new_pool(SCRIPTED, decode_seconds=1.0)) as pool:
            refused = await outcome(pool, b"spin")
            assert isinstance(refused, Unavailable)
            await until(lambda: pool.restarts == 2)  # it was decoded again
            assert refused.retry_after_seconds
            assert isinstance(await outcome(pool, b"stop"), InvalidAudio)  # that one waits, and not for a processor

    asyncio.run(scenario())


def test_R14_a_service_that_is_held_still_does_not_blame_the_file() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED, decode_seconds=0.5)) as pool:
            work = asyncio.create_task(outcome(pool, b"sleep 0.2"))
            await until(lambda: pool.busy == 1)
            time.sleep(4.0)  # noqa: ASYNC251  nothing of this process goes on
            assert await work == 0.01

    asyncio.run(scenario())


@pytest.mark.skipif(oom_kills() is None, reason="the kernel does not say whom it kills for memory")
def test_R14_a_child_killed_for_memory_is() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            (child,) = children()
            work = asyncio.create_task(outcome(pool, b"sleep 60"))
            await until(lambda: pool.busy == 1)
            with mock.patch("service.wire.process.oom_kills", return_value=-1):  # not what it said before
                os.kill(child, signal.SIGKILL)
                assert isinstance(await work, InvalidAudio)

    asyncio.run(scenario())


def test_R14_many_fatal_files_at_once_leave_the_pool_whole() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED, children=2)) as pool:
            uploads = [b"segfault", b"samples", b"leave", b"samples"] * 3
            results = await asyncio.gather(*(outcome(pool, upload) for upload in uploads))
            for upload, result in zip(uploads, results, strict=True):
                assert result == 0.01 if upload == b"samples" else isinstance(result, InvalidAudio)
            assert await outcome(pool, b"samples") == 0.01

    asyncio.run(scenario())

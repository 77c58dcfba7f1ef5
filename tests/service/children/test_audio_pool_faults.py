"""What the pool of audio children does where threads or descriptors are used up, or a child dies as we kill it."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.wire import memory
from tests.audio_pools import CHILD_COMMAND, SCRIPTED, children, decode, new_pool, outcome, running, until
from tests.sounds import float_wav, speechlike


@contextlib.contextmanager
def recorded(upload: bytes) -> Iterator[int]:
    fd = memory.create("upload")
    memory.write_all(fd, upload)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def descriptors_left(number: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(number + 1)]
    for fd in free:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(free), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_child_for_which_there_is_no_thread_is_started_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    execute = asyncio.create_subprocess_exec
    failures = iter([RuntimeError("can't start new thread")])

    async def start(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        if (failure := next(failures, None)) is not None:
            raise failure
        return await execute(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)

    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            await until(lambda: pool.restarts == 1 and pool.ready)
            (await decode(pool, b"samples")).close()

    asyncio.run(scenario())


def test_a_file_for_which_there_is_no_descriptor_costs_no_child() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            for _ in range(3):
                with recorded(b"samples") as upload, descriptors_left(0), pytest.raises(OSError, match="open files"):
                    await pool.decode(upload)
            (await decode(pool, b"samples")).close()
            assert pool.restarts == 0

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /dev/full")
def test_a_file_for_whose_samples_the_machine_has_no_memory_is_not_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = float_wav(speechlike(1.0))

    async def scenario() -> None:
        async with running(new_pool()) as pool:
            with recorded(sound) as upload, monkeypatch.context() as patch:
                patch.setattr(memory, "create", lambda _: os.open("/dev/full", os.O_RDWR))
                with pytest.raises(OSError, match="memory") as caught:
                    await pool.decode(upload)
                assert caught.value.errno == errno.ENOSPC
            (await decode(pool, sound)).close()
            assert pool.restarts == 0

    asyncio.run(scenario())


def test_a_file_whose_samples_are_larger_than_files_may_be_is_not_to_blame() -> None:
    sound = float_wav(speechlike(1.0))
    limited = ("sh", "-c", 'ulimit -f 8 && exec "$@"', "sh", *CHILD_COMMAND)

    async def scenario() -> None:
        async with running(new_pool(limited)) as pool:
            with recorded(sound) as upload, pytest.raises(OSError, match="memory"):
                await pool.decode(upload)
            assert pool.restarts == 0

    asyncio.run(scenario())


def test_a_file_that_the_kernel_does_not_let_pass_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.ETOOMANYREFS, "Too many references: cannot splice")

    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            with monkeypatch.context() as patch:
                patch.setattr(socket, "send_fds", refuse)
                with pytest.raises(OSError, match="Too many references"):
                    await decode(pool, b"samples")
            (await decode(pool, b"samples")).close()
            assert pool.restarts == 0

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_child_that_dies_as_its_caller_leaves_keeps_its_exit_status(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            work = asyncio.create_task(outcome(pool, b"sleep 60"))
            await until(lambda: pool.busy == 1)
            (child,) = children()
            os.kill(child, signal.SIGSEGV)
            while (Path("/proc") / str(child) / "stat").read_text().split()[2] != "Z":
                pass  # nothing but the child's end goes on
            work.cancel()
            await until(lambda: pool.restarts == 1 and pool.ready)

    if sys.version_info < (3, 12):  # later ones collect exit statuses in the event loop anyway, and not in a thread
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    try:
        with caplog.at_level(logging.WARNING):
            asyncio.run(scenario())
    finally:
        if sys.version_info < (3, 12):
            asyncio.set_child_watcher(None)
    (line,) = caplog.records
    assert (line.message, line.fields) == ("audio_child_ended", {"exit_status": -signal.SIGSEGV})

"""Audio pools for tests: started, watched, stopped, and nothing left behind."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from service.children.audio_pool import CHILD_COMMAND, AudioPool, DecodedAudio
from service.errors import ServiceError
from service.wire import memory

SCRIPTED = (sys.executable, "-m", "tests.scripted_audio_child")
PATIENCE_SECONDS = 30.0


def new_pool(
    command: Sequence[str] = CHILD_COMMAND,
    *,
    children: int = 1,
    max_seconds: float = 600.0,
    max_decoded_bytes: int = 10**9,
    decode_seconds: float = PATIENCE_SECONDS,
    memory_bytes: int = 2**30,
) -> AudioPool:
    return AudioPool(
        children=children,
        max_seconds=max_seconds,
        max_decoded_bytes=max_decoded_bytes,
        decode_seconds=decode_seconds,
        memory_bytes=memory_bytes,
        command=command,
    )


@asynccontextmanager
async def running(pool: AudioPool) -> AsyncIterator[AudioPool]:
    """The pool with its first child warm; at the end no child, no descriptor and no busy file is left."""
    descriptors = open_descriptors()
    await pool.start()
    try:
        await until(lambda: pool.ready)
        yield pool
    finally:
        await pool.stop()
    assert children() == []
    assert pool.busy == 0
    assert open_descriptors() == descriptors


async def until(condition: object) -> None:
    """Wait for `condition()` to hold."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.01)


async def decode(pool: AudioPool, upload: bytes) -> DecodedAudio:
    fd = memory.create("upload")
    try:
        memory.write_all(fd, upload)
        return await pool.decode(fd)
    finally:
        os.close(fd)


async def outcome(pool: AudioPool, upload: bytes) -> ServiceError | float:
    """The seconds that were decoded, or the error; the samples are given back."""
    try:
        decoded = await decode(pool, upload)
    except ServiceError as error:
        return error
    decoded.close()
    return decoded.seconds


def read_samples(decoded: DecodedAudio) -> bytes:
    data = bytes(memory.read_all(decoded.fd))
    decoded.close()
    return data


def children() -> list[int]:
    """This process's children that have not been reaped."""
    return sorted(int(pid) for task in Path("/proc/self/task").iterdir() for pid in _words(task / "children"))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []

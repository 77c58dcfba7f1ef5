"""One audio child as the HTTP process sees it: a process, the channel to it, and whether it still lives.

Used by `service.children.audio_pool` alone. The child gets an empty environment (no keys), no terminal, and one socket.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from service.wire import channel as channels
from service.wire import process as processes
from service.wire.audio_messages import ChildReady
from service.wire.channel import AsyncChannel, ChannelClosed
from service.wire.messages import StartFailed
from service.wire.process import murdered, oom_kills

_START_SECONDS = 60.0
_EXIT_SECONDS = 1.0
"""A process closes its channel a little before it is gone."""
_LATE_SECONDS = 3.0
"""A deadline that comes so late says more about this process than about the child."""
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
"""No more threads than one: a child may not start any, and a user namespace cannot be entered by several."""


class ChildStartError(Exception):
    """A child that did not come to the point of saying it is ready."""


class AudioProcess:
    """A child that has been started."""

    def __init__(self, process: asyncio.subprocess.Process, channel: AsyncChannel) -> None:
        self._process = process
        self.channel = channel
        self.sandbox: tuple[str, ...] = ()
        """The measures that hold in it; see `service.audio_child.sandbox`."""
        self.used = False
        """Whether it was ever given a file."""
        self._killed = False
        self._oom_kills: int | None = None
        self._busy_since = self._processor_seconds = 0.0

    @classmethod
    async def start(cls, command: Sequence[str]) -> "AudioProcess":
        """Start `command` with `--fd` and `--parent` added, and wait until it is ready, or `ChildStartError`."""
        try:
            ours, theirs = channels.pair()
        except OSError as error:
            raise ChildStartError(str(error)) from error
        with theirs, contextlib.ExitStack() as on_error:
            on_error.callback(ours.close)
            process = await _execute(
                (*command, "--fd", str(theirs.fileno()), "--parent", str(os.getpid())), theirs.fileno()
            )
            on_error.pop_all()
        child = cls(process, AsyncChannel(ours))
        try:
            child.sandbox = await child._readiness()
        except BaseException:
            child.kill()
            await child.ended()
            raise
        return child

    async def _readiness(self) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(_START_SECONDS):
                message = await self.channel.receive()
        except TimeoutError:
            raise ChildStartError(f"it was not ready after {_START_SECONDS:g} seconds") from None
        except ChannelClosed as error:
            raise ChildStartError(f"it ended: {error}") from error
        if isinstance(message, ChildReady):
            return message.sandbox
        raise ChildStartError(message.message if isinstance(message, StartFailed) else "it spoke out of turn")

    @property
    def alive(self) -> bool:
        """Whether it has not exited yet, asked of the kernel: the event loop learns of an exit only later."""
        if not hasattr(os, "waitid"):  # a Mac, before Python 3.13
            return self._process.returncode is None
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def take_file(self) -> None:
        """It is given a file now."""
        self.used, self._oom_kills, self._busy_since = True, oom_kills(), time.monotonic()
        self._processor_seconds = processes.processor_seconds(self._process.pid)

    def held_still(self, seconds: float) -> bool:
        """Whether its `seconds` for a file ran out because somebody stopped it, or us, and not for the file.

        Or because a busy machine gave it less than half of them.
        """
        late = time.monotonic() - self._busy_since > seconds + _LATE_SECONDS
        return late or processes.stopped(self._process.pid) or self._starved(seconds)

    def _starved(self, seconds: float) -> bool:
        pid = self._process.pid
        had = processes.processor_seconds(pid) - self._processor_seconds
        return processes.wants_processor(pid) and had < seconds / 2  # never where it is NaN

    async def murdered(self) -> bool:
        """Whether others killed it, and its file cannot have done it; see `service.wire.process`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_SECONDS):
                await self._process.wait()
        return not self._killed and murdered(self._process.returncode, self._oom_kills)

    @property
    def overran(self) -> bool:
        """Whether it ended because its file took more processor time than it may (`service.audio_child.allowance`)."""
        return self._process.returncode == -signal.SIGXCPU

    def kill(self) -> None:
        """End it at once; harmless if it has ended."""
        self._killed = True
        if self.alive:  # else `subprocess` would collect its exit status, for which the event loop waits
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def ended(self) -> int:
        """Wait for its end and close the channel; its exit status. Cancelling this kills it first."""
        try:
            return await self._process.wait()
        except asyncio.CancelledError:
            self.kill()
            await self._process.wait()
            raise
        finally:
            self.channel.close()


async def _execute(command: Sequence[str], fd: int) -> asyncio.subprocess.Process:
    null = asyncio.subprocess.DEVNULL  # codecs write what they like to stderr; a pipe could fill up and block them
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdin=null, stdout=null, stderr=null, env=_ENVIRONMENT, pass_fds=(fd,)
        )
    except (OSError, RuntimeError) as error:  # Python 3.11 waits for each in a thread, and there may be none left
        raise ChildStartError(str(error)) from error

"""The pool of audio children: an upload in, a waveform out, whatever the upload does to the child.

Gets an upload's descriptor from `service.http.jobs`, passes it to a warm `service.audio_child`, and gives back the
descriptor of the samples. No byte of the upload is looked at in this process, which holds no codec. The memory for the
samples is made here, so that a child sends no descriptor: while more are on their way among a user's processes than a
child may hold, as they are to a worker that is busy, the kernel refuses to take one from it.

- A child that dies, works on one file for longer than `decode_seconds`, or takes more processor time than is allowed
  for such a file (`service.audio_child.allowance`), costs that file a 400 and nothing more: the child is killed and
  replaced, and the next file waits for the new one. So does a caller that goes away. Where somebody else killed the
  child (SIGKILL, and not for memory) or held it still, or a busy machine gave it less than half of those seconds, the
  file is not to blame: it is decoded again, once.
- Free children go to those who wait in the order in which they came (`service.children.free_children`).
- A child that cannot start, or dies again and again without a file, is replaced ever more slowly. While that holds for
  all of them nobody waits: `ready` is false and `decode` answers 503 at once.
- What a child says is not trusted: the samples must be there, and no more of them than were allowed.
"""

import asyncio
import contextlib
import errno
import logging
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from model.dims import SAMPLE_RATE
from service import logs
from service.children.audio_process import AudioProcess, ChildStartError
from service.children.free_children import FreeChildren
from service.errors import InvalidAudio, ServiceError, TooLarge, Unavailable
from service.wire import memory
from service.wire.audio_messages import MEASURES, AudioDecoded, AudioRefused, DecodeAudio, SampleFormat
from service.wire.channel import ChannelClosed
from service.wire.messages import Message

CHILD_COMMAND = (sys.executable, "-m", "service.audio_child")
_SAMPLE_BYTES: dict[SampleFormat, int] = {"int16": 2, "float32": 4}
_FIRST_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 30.0
_MAX_MESSAGE_CHARACTERS = 300
_RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """Mono 16 kHz samples in anonymous memory; the owner calls `close` once."""

    fd: int
    sample_format: SampleFormat
    n_samples: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.n_samples / SAMPLE_RATE

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.fd)


class DecoderLost(Unavailable):
    """Others killed the child, held it still or left it no processor, not the file: that may come again."""


class AudioPool:
    """`children` warm processes that decode one file each at a time. Used from one event loop."""

    def __init__(
        self,
        *,
        children: int,
        max_seconds: float,
        max_decoded_bytes: int,
        decode_seconds: float,
        memory_bytes: int,
        command: Sequence[str] = CHILD_COMMAND,
    ) -> None:
        self._request = DecodeAudio(max_seconds, max_decoded_bytes)
        self._decode_seconds = decode_seconds
        self._max_samples = math.ceil(max_seconds * SAMPLE_RATE) + 1
        self._command = (
            *command,
            *("--memory-bytes", str(memory_bytes)),
            *("--output-bytes", str(self._max_samples * 4)),
            *("--cpu-seconds", str(decode_seconds)),
        )
        self._size = children
        self._keepers: list[asyncio.Task[None]] = []
        self._free = FreeChildren()
        self._failed: dict[int, bool] = {}
        """By slot, whether the last start of its child failed; empty until the first start is over."""
        self._stopping = False
        self.busy = 0
        """Files that are being decoded."""
        self.restarts = 0
        """Children that died or could not start, for whatever reason."""
        self.sandbox: tuple[str, ...] | None = None
        """The measures that hold in the children (`service.audio_child.sandbox`), once one has started."""

    @property
    def _hopeless(self) -> bool:
        """Whether no child is there or about to be."""
        return len(self._failed) == self._size and all(self._failed.values())

    @property
    def ready(self) -> bool:
        """Whether at least one child's last start succeeded."""
        return not self._stopping and not all(self._failed.values())

    async def start(self) -> None:
        """Begin to start the children; returns at once, `ready` tells when the first one is warm."""
        self._keepers = [asyncio.create_task(self._keep(slot)) for slot in range(self._size)]

    async def stop(self) -> None:
        """End every child and return when they are gone; whoever waits or decodes gets `Unavailable`."""
        self._stopping = True
        self._free.refuse(self._unavailable)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def decode(self, upload_fd: int) -> DecodedAudio:
        """Decode the file in `upload_fd`, which stays the caller's.

        Raises `InvalidAudio`, `TooLarge` (code `audio_too_long`), `Unavailable` when no child can start, others ended
        or starved two of them, or the pool stops, `OSError` where no descriptor or memory is left. May be cancelled at
        any point: a child that was at work is killed and replaced.
        """
        try:
            return await self._attempt(upload_fd)
        except DecoderLost:
            return await self._attempt(upload_fd)

    async def _attempt(self, upload_fd: int) -> DecodedAudio:
        child = await self._acquire()
        with contextlib.ExitStack() as on_error:
            outcome = await self._decode(child, upload_fd, on_error)
            if isinstance(outcome, ServiceError):
                raise outcome
            on_error.pop_all()
            return outcome

    async def _decode(
        self, child: AudioProcess, upload_fd: int, on_error: contextlib.ExitStack
    ) -> DecodedAudio | ServiceError:
        """What comes of the file; the child is free or dead afterwards, the memory closed by `on_error`."""
        child.take_file()
        outcome: DecodedAudio | ServiceError | None = None
        well = False
        self.busy += 1
        try:
            output = memory.create("waveform")
            on_error.callback(os.close, output)
            child.channel.send(self._request, upload_fd, output)
            async with asyncio.timeout(self._decode_seconds):
                outcome = self._outcome(output, await child.channel.receive())
        except TimeoutError:
            if child.held_still(self._decode_seconds):
                raise DecoderLost(
                    "The audio decoder was stopped, or starved.", retry_after_seconds=_RETRY_SECONDS
                ) from None
            raise InvalidAudio("The file took too long to decode.", param="file") from None
        except OSError:  # no descriptor is left, to make or to send, or no memory; the child is done with the file
            well = True
            raise
        except ChannelClosed as error:
            if self._stopping:
                raise self._unavailable() from error
            if await child.murdered():
                raise DecoderLost("The audio decoder was killed.", retry_after_seconds=_RETRY_SECONDS) from error
            words = "took too long to decode" if child.overran else "could not be decoded"
            raise InvalidAudio(f"The file {words}.", param="file") from error
        finally:
            self.busy -= 1
            if outcome is not None or well:
                self._free.give(child)
            else:
                child.kill()
        return outcome

    def _outcome(self, output: int, answer: Message) -> DecodedAudio | ServiceError:
        """What the child's answer means; `OSError` if no memory is left, `ChannelClosed` if it makes no sense."""
        match answer:
            case AudioRefused() if answer.code == "no_memory":
                raise OSError(errno.ENOSPC, answer.message)
            case AudioRefused():
                text = "".join(filter(str.isprintable, answer.message))[:_MAX_MESSAGE_CHARACTERS]
                if answer.code == "audio_too_long":
                    return TooLarge(text, param="file", code="audio_too_long")
                return InvalidAudio(text, param="file")
            case AudioDecoded():
                size = answer.n_samples * _SAMPLE_BYTES[answer.sample_format]
                if 0 < answer.n_samples <= self._max_samples and memory.size(output) == size:
                    return DecodedAudio(output, answer.sample_format, answer.n_samples)
        raise ChannelClosed("the child's answer makes no sense")

    async def _acquire(self) -> AudioProcess:
        """A live child; whoever came first has the next one that is free."""
        while True:
            if self._stopping or self._hopeless or not self._keepers:
                raise self._unavailable()
            child = await self._free.take()
            if child.alive:
                return child

    def _unavailable(self) -> Unavailable:
        if self._stopping:
            return Unavailable("The service is stopping.", code="draining", retry_after_seconds=_RETRY_SECONDS)
        code = "starting" if len(self._failed) < self._size else "no_worker"
        return Unavailable("No audio decoder is running.", code=code, retry_after_seconds=_RETRY_SECONDS)

    async def _keep(self, slot: int) -> None:
        """Keep one child alive, for ever."""
        failures = 0
        while True:
            child = await self._started()
            if child is not None:
                self._failed[slot] = False
                self._free.give(child)
                status = await child.ended()
                self._free.remove(child)
                logs.event("audio_child_ended", level=logging.WARNING, exit_status=status)
            self.restarts += 1
            failures = 0 if child is not None and child.used else failures + 1
            if child is None or failures > 1:
                self._failed[slot] = True
                if self._hopeless:
                    self._free.refuse(self._unavailable)
                await asyncio.sleep(min(_FIRST_BACKOFF_SECONDS * 2 ** (failures - 1), _MAX_BACKOFF_SECONDS))

    async def _started(self) -> AudioProcess | None:
        try:
            child = await AudioProcess.start(self._command)
        except ChildStartError as error:
            logs.event("audio_child_not_started", level=logging.ERROR, reason=str(error))
            return None
        if child.sandbox != self.sandbox:
            self.sandbox = child.sandbox
            _tell_sandbox(child.sandbox)
        return child


def _tell_sandbox(held: Sequence[str]) -> None:
    """Log what the children cannot do, and which measure the machine did not permit."""
    missing = " ".join(name for name in MEASURES if name not in held)
    level = logging.WARNING if missing else logging.INFO
    logs.event("audio_sandbox", level=level, held=" ".join(held), missing=missing or None)

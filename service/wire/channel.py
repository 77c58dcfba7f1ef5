"""Two processes that talk over a Unix socket: whole messages with file descriptors (`service.wire.frames`).

`Channel` blocks and serves the children; `AsyncChannel` serves the HTTP process. End of file means that the other side
is gone, whatever killed it.
"""

import asyncio
import os
import select
import socket
from collections import deque
from collections.abc import Sequence

from service.wire.frames import ChannelClosed, FrameReader, duplicates, frame, receive_some
from service.wire.messages import Message

__all__ = ["AsyncChannel", "Channel", "ChannelClosed", "pair"]

_AGAIN_SECONDS = 0.05
"""Where the kernel has no room for what waits to be sent, nobody is told when it has."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; neither is inherited unless it is passed on."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


class Channel:
    """The blocking end, for the children."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._reader = FrameReader()
        self._poll = select.poll()  # and not `select`, which knows no descriptor above 1023
        self._poll.register(sock, select.POLLIN)

    def send(self, message: Message, *fds: int) -> None:
        """Write one message; descriptors are duplicated into the other process, the caller keeps its own."""
        data = frame(message)
        try:
            sent = socket.send_fds(self._sock, [data], list(fds)) if fds else 0
            self._sock.sendall(data[sent:])
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self, timeout_seconds: float | None = None) -> Message | None:
        """The next message; None when none came within `timeout_seconds`; `ChannelClosed` at the end."""
        while (message := self._reader.next_message()) is None:
            if not self._poll.poll(None if timeout_seconds is None else timeout_seconds * 1000):
                return None
            try:
                data, fds = receive_some(self._sock, 65_536)
            except OSError as error:
                raise ChannelClosed(str(error)) from error
            if not data:
                raise ChannelClosed("end of file")
            self._reader.feed(data, fds)
        return message

    def take_fd(self) -> int:
        """The descriptor that came with the last received message; the caller closes it."""
        return self._reader.take_fd()

    def close(self) -> None:
        """Close the socket and every descriptor nobody took."""
        self._reader.close()
        self._sock.close()


class AsyncChannel:
    """The event loop's end, for the HTTP process. One task receives; any task of the loop may send."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._reader = FrameReader()
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._again: asyncio.TimerHandle | None = None
        self._closed = False
        self._readable = asyncio.Event()
        self._loop.add_reader(sock, self._readable.set)

    def send(self, message: Message, *fds: int) -> None:
        """Send or queue one message; descriptors are duplicated at once, so the caller may close its own.

        `OSError` where none are left, or too many of this user's are on their way: nothing of it is sent then.
        """
        if self._closed:
            raise ChannelClosed("the channel is closed")
        data = frame(message)
        try:
            sent = 0 if self._unsent else self._take(data, fds)
        except OSError:
            if fds:
                raise
            sent = 0
        if sent == len(data):
            return
        self._unsent.append((data[sent:], [] if sent else duplicates(fds)))
        if len(self._unsent) == 1:
            self._loop.add_writer(self._sock, self._flush)

    def _take(self, data: bytes, fds: Sequence[int]) -> int:
        """Bytes that the kernel takes, all of them if nobody is there: the receiver learns of it as end of file."""
        try:
            return socket.send_fds(self._sock, [data], fds) if fds else self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except ConnectionError:
            return len(data)

    def _flush(self) -> None:
        """Send what waits, now that there may be room for it."""
        self._loop.remove_writer(self._sock)
        while self._unsent:
            data, fds = self._unsent[0]
            try:
                sent = self._take(data, fds)
            except OSError:
                self._again = self._loop.call_later(_AGAIN_SECONDS, self._flush)
                return
            if not sent:
                self._loop.add_writer(self._sock, self._flush)
                return
            for fd in fds:
                os.close(fd)
            self._unsent.popleft()
            if sent < len(data):
                self._unsent.appendleft((data[sent:], []))

    async def receive(self) -> Message:
        """The next message; `ChannelClosed` at the end, or when the other side breaks the protocol."""
        while True:
            try:
                message = self._reader.next_message()
            except ValueError as error:  # pydantic.ValidationError is one
                raise ChannelClosed(f"the other side sent no message of ours: {type(error).__name__}") from error
            if message is not None:
                return message
            if self._closed:
                raise ChannelClosed("the channel is closed")
            try:
                data, fds = receive_some(self._sock, 65_536)
            except (BlockingIOError, InterruptedError):
                self._readable.clear()
                await self._readable.wait()
                continue
            except OSError as error:
                raise ChannelClosed(str(error)) from error
            if not data:
                raise ChannelClosed("end of file")
            self._reader.feed(data, fds)

    def close(self) -> None:
        """Stop watching, close the socket and every descriptor in flight; a waiting `receive` ends."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        if self._again is not None:
            self._again.cancel()
        self._drop_unsent()
        self._reader.close()
        self._sock.close()
        self._readable.set()

    def _drop_unsent(self) -> None:
        while self._unsent:
            for fd in self._unsent.popleft()[1]:
                os.close(fd)

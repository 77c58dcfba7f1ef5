"""Messages and file descriptors as bytes on a Unix socket: four bytes of length, then JSON (`service.wire.messages`).

Used by both ends of `service.wire.channel`. Descriptors ride on a message's first byte. What comes is not trusted:
a length or a number of descriptors that nobody of ours would send is the end of the channel.
"""

import array
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence

from service.wire.messages import Message, decode, encode

_HEADER = struct.Struct("!I")
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_MAX_FDS = 4
_MAX_WAITING_FDS = 16
"""A child that sends descriptors without messages shall not use up its parent's."""


class ChannelClosed(Exception):
    """The other side closed the channel, or died."""


def frame(message: Message) -> bytes:
    """A message as it goes over the socket."""
    body = encode(message)
    return _HEADER.pack(len(body)) + body


def receive_some(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Up to `size` bytes and the descriptors with them, marked close-on-exec."""
    space = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, ancillary, _, _ = sock.recvmsg(size, space, flags)
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array.array("i")
            received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
            fds.extend(received)
    return data, fds


def duplicates(fds: Sequence[int]) -> list[int]:
    """As many new descriptors of the same files, or `OSError` and none."""
    copies: list[int] = []
    try:
        copies.extend(os.dup(fd) for fd in fds)
    except OSError:
        for copy in copies:
            os.close(copy)
        raise
    return copies


class FrameReader:
    """Bytes in, whole messages out. Descriptors are handed out in the order in which they came."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._fds: deque[int] = deque()

    def feed(self, data: bytes, fds: list[int]) -> None:
        """Take in what `receive_some` gave; `ChannelClosed` for more descriptors than anybody would send."""
        self._buffer += data
        self._fds.extend(fds)
        if len(self._fds) > _MAX_WAITING_FDS:
            raise ChannelClosed("more file descriptors came than messages that ask for one")

    def next_message(self) -> Message | None:
        """The next message that is whole, or None; `ChannelClosed` for one too long, `ValidationError` for nonsense."""
        if len(self._buffer) < _HEADER.size:
            return None
        (size,) = _HEADER.unpack_from(self._buffer)
        if size > MAX_MESSAGE_BYTES:
            raise ChannelClosed(f"a message of {size} bytes was announced")
        if len(self._buffer) < _HEADER.size + size:
            return None
        body = bytes(self._buffer[_HEADER.size : _HEADER.size + size])
        del self._buffer[: _HEADER.size + size]
        return decode(body)

    def take_fd(self) -> int:
        """The oldest descriptor not yet taken; the caller closes it. `ChannelClosed` where there is none."""
        if not self._fds:
            raise ChannelClosed("a message came without its file descriptor")
        return self._fds.popleft()

    def close(self) -> None:
        """Close every descriptor that nobody took."""
        while self._fds:
            os.close(self._fds.popleft())

import asyncio
import errno
import fcntl
import math
import os
import resource
import socket
import struct
import threading
from pathlib import Path

import pytest

from model.segments import Skipped
from service.wire import memory
from service.wire.audio_messages import AudioRefused, DecodeAudio
from service.wire.channel import AsyncChannel, Channel, ChannelClosed, pair
from service.wire.messages import Cancel, Failed, Finished, LanguageDetected, Message, Stop
from tests.serving import in_loop

MESSAGES: list[Message] = [
    DecodeAudio(10.0, 1000),
    AudioRefused("invalid_audio", "no sound ✓ \u0000 </script>"),
    Finished("id", "en", "x" * 300_000, 0.1, 0.2, (Skipped("no_speech", 0.0, 30.0),)),
    Cancel("id"),
    LanguageDetected("id", "en", {"en": math.inf}),
]


def _file(content: bytes) -> int:
    fd = memory.create("test")
    memory.write_all(fd, content)
    return fd


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_messages_and_descriptors_arrive_in_order() -> None:
    left, right = (Channel(sock) for sock in pair())
    files = [_file(b"one"), _file(b"two")]

    def speak() -> None:
        for message in MESSAGES:
            left.send(message)
        left.send(Stop(), files[0])
        left.send(Stop(), files[1])

    thread = threading.Thread(target=speak)
    thread.start()
    assert [right.receive() for _ in MESSAGES] == MESSAGES
    for content in (b"one", b"two"):
        assert right.receive() == Stop()
        fd = right.take_fd()
        assert memory.read_all(fd) == content
        os.close(fd)
    thread.join()
    assert right.receive(0.0) is None
    left.close()
    with pytest.raises(ChannelClosed):
        right.receive()
    right.close()
    for fd in files:
        os.close(fd)


def test_a_channel_may_have_any_descriptor_that_a_process_may_have() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1100:
        pytest.skip("no more descriptors than `select` knows")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    try:
        left, right = pair()
        with left, right:
            high = socket.socket(fileno=fcntl.fcntl(right.fileno(), fcntl.F_DUPFD_CLOEXEC, 1050))
        # The other end is closed: it is the waiting that counts.
        channel = Channel(high)
        with pytest.raises(ChannelClosed):
            channel.receive(1.0)
        channel.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_message_without_its_descriptor_is_a_broken_channel() -> None:
    left, right = (Channel(sock) for sock in pair())
    left.send(Stop())
    right.receive()
    with pytest.raises(ChannelClosed):
        right.take_fd()
    left.close()
    right.close()


@in_loop
async def test_the_event_loop_speaks_with_a_blocking_child_and_leaks_no_descriptor() -> None:
    before = _descriptors()
    ours, theirs = pair()
    parent, child = AsyncChannel(ours), Channel(theirs)
    fd = _file(b"samples")

    def echo() -> None:
        for _ in range(50):
            message = child.receive()
            received = child.take_fd()
            assert memory.read_all(received) == b"samples"
            os.close(received)
            assert message is not None
            child.send(message)

    thread = threading.Thread(target=echo)
    thread.start()
    big = Failed("id", "internal_error", "y" * 100_000)
    for _ in range(50):
        parent.send(big, fd)
    for _ in range(50):
        assert await parent.receive() == big
    await asyncio.to_thread(thread.join)
    parent.close()
    parent.close()
    child.close()
    os.close(fd)
    assert _descriptors() == before


@in_loop
async def test_where_too_many_descriptors_are_on_their_way_a_message_is_refused_or_waits(monkeypatch) -> None:
    before = _descriptors()
    ours, theirs = pair()
    parent, child, fd = AsyncChannel(ours), Channel(theirs), _file(b"samples")
    send_fds = socket.send_fds

    def refuse(*_) -> int:
        raise OSError(errno.ETOOMANYREFS, "Too many references: cannot splice")

    monkeypatch.setattr(socket, "send_fds", refuse)
    with pytest.raises(OSError, match="Too many references"):
        parent.send(Stop(), fd)
    parent.send(MESSAGES[2])  # more than the kernel takes at once: what follows waits
    for _ in range(3):
        parent.send(MESSAGES[2])
    parent.send(Cancel("a"), fd)
    parent.send(Cancel("b"))
    assert [await asyncio.to_thread(child.receive) for _ in range(4)] == [MESSAGES[2]] * 4
    await asyncio.sleep(0.1)
    assert await asyncio.to_thread(child.receive, 0.0) is None
    monkeypatch.setattr(socket, "send_fds", send_fds)
    assert [await asyncio.to_thread(child.receive, 5.0) for _ in range(2)] == [Cancel("a"), Cancel("b")]
    received = child.take_fd()
    assert memory.read_all(received) == b"samples"
    for one in (received, fd):
        os.close(one)
    parent.close()
    child.close()
    assert _descriptors() == before


@in_loop
async def test_a_channel_that_is_closed_while_a_message_waits_for_room_tries_no_more(monkeypatch) -> None:
    ours, theirs = pair()
    parent = AsyncChannel(ours)

    def refuse(*_) -> int:
        raise OSError(errno.ENOBUFS, "No buffer space available")

    monkeypatch.setattr(parent, "_take", refuse)
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    parent.send(Stop())
    await asyncio.sleep(0.01)
    parent.close()
    await asyncio.sleep(0.1)
    assert not complaints
    theirs.close()


@in_loop
async def test_the_end_of_the_child_ends_a_waiting_receive() -> None:
    ours, theirs = pair()
    parent = AsyncChannel(ours)
    waiting = asyncio.create_task(parent.receive())
    await asyncio.sleep(0.01)
    theirs.close()
    with pytest.raises(ChannelClosed):
        await asyncio.wait_for(waiting, 5)
    parent.close()
    with pytest.raises(ChannelClosed):
        parent.send(Stop())


@in_loop
async def test_closing_our_end_ends_a_waiting_receive() -> None:
    ours, theirs = pair()
    parent = AsyncChannel(ours)
    waiting = asyncio.create_task(parent.receive())
    await asyncio.sleep(0.01)
    parent.close()
    with pytest.raises(ChannelClosed):
        await asyncio.wait_for(waiting, 5)
    theirs.close()


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!I", 0xFFFF_FFFF),
        struct.pack("!I", 4) + b"null",
        struct.pack("!I", 17) + b'{"kind":"no_such"}'[:17],
        struct.pack("!I", 2) + b"\xff\xfe",
    ],
)
def test_a_child_that_breaks_the_protocol_is_a_closed_channel(data: bytes) -> None:
    async def listen(sock: socket.socket) -> None:
        parent = AsyncChannel(sock)
        try:
            await asyncio.wait_for(parent.receive(), 5)
        finally:
            parent.close()

    ours, theirs = pair()
    theirs.sendall(data)
    with pytest.raises(ChannelClosed):
        asyncio.run(listen(ours))
    theirs.close()

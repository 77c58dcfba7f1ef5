"""An audio child whose decoder does what the upload says: the real loop and the real sandbox around a scripted fault.

`python -m tests.scripted_audio_child --fd N ...`. An upload is a word and its arguments.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from service.audio_child.__main__ import main
from service.wire import memory
from service.wire.audio_messages import AudioDecoded, AudioRefused, DecodeAudio

Answer = tuple[AudioDecoded, bytes] | AudioRefused


def decode(request: DecodeAudio, upload: int, output: int, found: Callable[[int], None]) -> AudioDecoded | AudioRefused:
    word, *arguments = memory.read_all(upload).decode().split(maxsplit=1)
    match SCRIPTS[word](*arguments):
        case AudioRefused() as refused:
            return refused
        case (decoded, sound):
            memory.write_all(output, sound)
            return decoded


def samples(count: str = "160") -> Answer:
    return AudioDecoded("int16", int(count)), bytes(2 * int(count))


def sleep(seconds: str) -> Answer:
    time.sleep(float(seconds))
    return samples()


def lie(count: str) -> Answer:
    return AudioDecoded("int16", int(count)), bytes(320)


def segfault() -> Answer:
    ctypes.string_at(0)
    return samples()


def abort() -> Answer:
    os.abort()


def leave() -> Answer:
    raise SystemExit(0)


def spin() -> Answer:
    while True:
        pass


def stop() -> Answer:
    signal.pause()
    return samples()


def allocate(size: str) -> Answer:
    bytearray(int(size))
    return samples()


def flood() -> Answer:
    for _ in range(1_000):
        os.write(2, bytes(65_536))
    return samples()


def garbage() -> Answer:
    os.write(int(sys.argv[sys.argv.index("--fd") + 1]), b"\0\0\0\4oops")
    return samples()


def refuse(message: str) -> Answer:
    return AudioRefused("invalid_audio", message)


def environment() -> Answer:
    return AudioRefused("invalid_audio", " ".join(sorted(os.environ)))


def attempt(action: str) -> Answer:
    """Try what a sandbox forbids, and say how it went."""
    try:
        ATTEMPTS[action]()
    except (OSError, RuntimeError) as error:
        return AudioRefused("invalid_audio", f"{action}: {type(error).__name__}")
    return AudioRefused("invalid_audio", f"{action}: done")


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


ATTEMPTS: dict[str, Callable[[], object]] = {
    "read": lambda: Path("/etc/hostname").read_bytes(),
    "write": lambda: Path("/tmp/canary").write_bytes(b""),
    "connect": lambda: socket.create_connection(("127.0.0.1", 9)),
    "socket": socket.socket,
    "fork": os.fork,
    "execute": lambda: os.execv("/bin/true", ["true"]),
    "thread": lambda: threading.Thread(target=int).start(),
    "kill": lambda: os.kill(os.getppid(), signal.SIGTERM),
    "delete": lambda: Path("/tmp/canary").unlink(),
    "empty": lambda: os.truncate("/tmp/canary", 0),
    "touch": lambda: os.utime("/tmp/canary", (0, 0)),
    "mark": lambda: os.setxattr("/tmp/canary", "user.canary", b""),
    "limit": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE),
    "pin": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "hurry": lambda: os.setpriority(os.PRIO_PROCESS, 0, 10),
    "share": lambda: _call("shmget", 0x5EED, 4096, 0o1600),
}

SCRIPTS: dict[str, Callable[..., Answer]] = {
    "samples": samples,
    "sleep": sleep,
    "lie": lie,
    "segfault": segfault,
    "abort": abort,
    "leave": leave,
    "spin": spin,
    "stop": stop,
    "allocate": allocate,
    "flood": flood,
    "garbage": garbage,
    "refuse": refuse,
    "environment": environment,
    "attempt": attempt,
}

if __name__ == "__main__":
    main(load=lambda: decode)

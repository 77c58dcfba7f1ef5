"""A worker without a model, whose recordings say what happens to it; started in the place of `service.worker`.

The waveform's first word: `hang` and `crash` once the request is read, `drop` ends the worker before it reads one,
`wait` is not answered, anything else is after 0.2 s.
"""

import math
import os
import socket
import time

from service.wire.channel import Channel, ChannelClosed
from service.wire.memory import read_all
from service.wire.messages import (
    Cancel,
    Cancelled,
    DetectLanguage,
    Finished,
    LanguageDetected,
    Message,
    ModelInfo,
    Received,
    Stop,
    Transcribe,
    WorkerStats,
)
from service.worker.__main__ import parse

_ANSWER_SECONDS = 0.2


class ScriptedWorker:
    """Single-threaded like the real one: a request that hangs it keeps it from reading anything."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._due: dict[str, tuple[float, Message]] = {}
        self._progress = 0

    def run(self) -> None:
        self._channel.send(ModelInfo("base", ("en", "de"), True, "cpu", "float32", None, max_rows=4))
        while not isinstance(message := self._channel.receive(0.05), Stop):
            if message is not None:
                self._take(message)
            for request_id, (due, answer) in list(self._due.items()):
                if time.monotonic() >= due:
                    del self._due[request_id]
                    self._progress += 1
                    self._channel.send(answer)
            self._channel.send(WorkerStats(self._progress, 0, 0, 0, 0, 0.0, {}, {}, {}, 0, {}, {}))

    def _take(self, message: Message) -> None:
        if isinstance(message, Cancel):
            self._due.pop(message.request_id, None)
            self._channel.send(Cancelled(message.request_id))
        if not isinstance(message, Transcribe | DetectLanguage):
            return
        fd = self._channel.take_fd()
        word = bytes(read_all(fd)).split(maxsplit=1)[0]
        os.close(fd)
        if word == b"drop":
            os._exit(3)
        self._channel.send(Received(message.request_id))
        if word == b"hang":
            time.sleep(3600)
        if word == b"crash":
            os._exit(3)
        answer: Message = Finished(message.request_id, "en", "said", 0.0, 0.1)
        if isinstance(message, DetectLanguage):
            answer = LanguageDetected(message.request_id, "en", {"en": 1.0})
        due = math.inf if word == b"wait" else time.monotonic() + _ANSWER_SECONDS
        self._due[message.request_id] = due, answer


def main() -> None:
    channel = Channel(socket.socket(fileno=parse().fd))
    try:
        ScriptedWorker(channel).run()
    except ChannelClosed:
        return


if __name__ == "__main__":
    main()

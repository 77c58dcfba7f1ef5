"""One engine in a process of its own, in its own environment: what `benchmarks.peers` starts and asks.

One JSON object a line: the first on standard input says what to load, the answer how long that took; then
`{"one": path}` or `{"many": [paths]}`, answered with texts and seconds. Paths are 16 kHz mono WAV of 16 bits, read
alike by all before the clock starts.
"""

import ctypes
import json
import os
import signal
import sys
import time
import wave
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peer.engine import RATE, Engine, Samples
from benchmarks.peer.engines import FasterWhisper, Transformers, openai_whisper, openvino_genai, whisper_cpp
from benchmarks.peer.ours import Ours

ENGINES: dict[str, Callable[[dict[str, Any]], Engine]] = {
    "ours": Ours,
    "openai-whisper": openai_whisper,
    "faster-whisper": FasterWhisper,
    "transformers": Transformers,
    "openvino-genai": openvino_genai,
    "whisper.cpp": whisper_cpp,
}


def read_wav(path: str) -> Samples:
    """(n,) float32 in [-1, 1) of a mono 16-bit file."""
    with wave.open(path, "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE), path
        data = file.readframes(file.getnframes())
    return np.frombuffer(data, np.int16).astype(np.float32) / np.float32(32768)


def answer(engine: Engine, request: dict[str, Any]) -> dict[str, Any]:
    """Texts and seconds of one line's request."""
    if "one" in request:
        samples = read_wav(request["one"])
        begin = time.perf_counter()
        texts = [engine.one(samples)]
    else:
        waveforms = [read_wav(path) for path in request["many"]]
        begin = time.perf_counter()
        texts = engine.many(waveforms)
    return {"texts": texts, "seconds": time.perf_counter() - begin, "device_bytes": _device_bytes()}


def _device_bytes() -> int:
    """Most memory of a GPU that torch held so far; 0 where an engine has none or allocates past torch."""
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_reserved() if torch and torch.cuda.is_available() else 0


def main() -> None:
    """Load, then answer lines until the input ends."""
    # The asker holds us by SIGSTOP: should it die, we would stay for ever (PR_SET_PDEATHSIG, prctl(2)).
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    # Libraries print; the answers keep the real standard output to themselves.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    begin = time.perf_counter()
    load = json.loads(sys.stdin.readline())
    engine = ENGINES[load["engine"]](load)
    answers.write(json.dumps({"seconds": time.perf_counter() - begin}) + "\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(answer(engine, json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

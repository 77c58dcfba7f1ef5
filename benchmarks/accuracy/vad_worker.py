"""faster-whisper in a process and an environment of its own: what `benchmarks.accuracy.vad_peer` starts and asks.

One JSON object a line. The first says which weights to load on how many threads, the answer which version runs; then
`{"path": FILE.npy, "language": code or null}`, answered with text and language. Its own defaults (five beams, its
ladder) and `vad_filter`, which its users switch on against invention.
"""

import json
import os
import sys
from importlib.metadata import version
from typing import Any

import numpy as np


def main() -> None:
    """Load, then answer lines until the input ends."""
    # Libraries print, some while they are imported; the answers keep the real standard output to themselves.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from faster_whisper import WhisperModel

    load = json.loads(sys.stdin.readline())
    settings = {"device": "cpu", "compute_type": "int8", "local_files_only": True}
    model = WhisperModel(load["path"], cpu_threads=load["threads"], **settings)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    say({"version": f"{version('faster-whisper')}, CTranslate2 {version('ctranslate2')}"})
    for line in sys.stdin:
        asked = json.loads(line)
        segments, info = model.transcribe(np.load(asked["path"]), language=asked["language"], vad_filter=True)
        say({"text": "".join(segment.text for segment in segments), "language": info.language})


if __name__ == "__main__":
    main()

"""What the detector is asked about a window: voices far below their neighbours are heard by themselves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.audio import decode_audio
from model.options import TranscribeOptions
from model.voice.speech import CHUNK_SECONDS, THRESHOLD
from model.window import DecodingResult, Window
from tests import tiny

TINY = tiny.transcriber()


def _samples(path: Path, seconds: int) -> np.ndarray:
    samples = decode_audio(path).samples[: seconds * 16_000]
    return samples.astype(np.float32) / (32768.0 if samples.dtype == np.int16 else 1.0)


@pytest.mark.parametrize("logprob", [-0.3, -0.8])
def test_a_voice_far_below_its_neighbours_is_heard_in_a_pause_by_itself(clips, logprob) -> None:
    loud, low = _samples(clips / "en-jfk.flac", 8), _samples(clips / "en-printing.ogg", 6)
    samples = torch.from_numpy(np.concatenate([loud, 0.01 * low]))
    plain = TINY.detector.scan(samples).finish()
    begin = TINY.tokenizer.timestamp_begin
    tokens = (begin, *TINY.tokenizer.encode(" And so my fellow Americans"), begin + 400)
    result = DecodingResult("en", tokens, "", logprob, 0.0, 0.0, 1.0)
    window, options = Window(0, 0, 1400, "en"), TranscribeOptions(language="en")
    heard = TINY.weigh(result, window, samples, options).speech
    quiet = slice(round(8 / CHUNK_SECONDS), None)
    assert sum(one > THRESHOLD for one in plain[quiet]) * CHUNK_SECONDS < 1.0
    assert sum(one > THRESHOLD for one in heard[quiet]) * CHUNK_SECONDS > 3.0
    assert heard[: quiet.start] == tuple(plain[: quiet.start])
    assert TINY.weigh(result, window, samples, replace(options, guards=False)).speech == ()
    known = replace(result, speech=(0.5,))
    assert TINY.weigh(known, window, samples, options) is known

"""FLAC files whose head says something else than their frames."""

import io

import numpy as np
import pytest

from model.audio import decode_audio
from model.audio.flac import contradicts_itself
from tests.sounds import floats, silent_flac, sndfile, speechlike

SPEECH = speechlike(6.0)
FILE = sndfile(SPEECH, 16_000, "FLAC")


def stating(rate: int, frames: int, file: bytes = FILE) -> bytes:
    """The file with another rate in Hz and another count in its head (RFC 9639, 8.2)."""
    rest = int.from_bytes(file[18:26], "big") & (0xFF << 36)
    return file[:18] + (rate << 44 | rest | frames).to_bytes(8, "big") + file[26:]


@pytest.mark.parametrize(("rate", "frames"), [(16_000, 48_000), (16_000, 1), (16_000, 95_000), (8_000, 96_000)])
def test_what_the_frames_say_is_believed(rate: int, frames: int) -> None:
    whole = floats(decode_audio(FILE))
    assert len(whole) == len(SPEECH)
    for tail in (b"", b"TAG" + bytes(125)):
        np.testing.assert_array_equal(floats(decode_audio(stating(rate, frames) + tail)), whole)


@pytest.mark.parametrize("rate", [8_000, 12_345, 16_000, 44_100, 192_000, 300_000])
def test_whole_files_agree_with_themselves(rate: int) -> None:
    for file in (sndfile(speechlike(2.5, rate), rate, "FLAC"), silent_flac(3.0, rate=rate)):
        assert not contradicts_itself(io.BytesIO(file))
        assert not contradicts_itself(io.BytesIO(file + b"\xff\xf8" * 1000))
    unknown = stating(rate, 0, sndfile(speechlike(2.5, rate), rate, "FLAC"))
    assert not contradicts_itself(io.BytesIO(unknown))


@pytest.mark.parametrize("size", [0, 3, 41, 42, 60])
def test_what_is_no_whole_head_contradicts_nothing(size: int) -> None:
    assert not contradicts_itself(io.BytesIO(FILE[:size]))

"""WAV's 64-bit kinds as programs write them to a pipe, and heads without end."""

import struct

import numpy as np
import pytest

from model.audio import decode_audio
from tests.sounds import as_int16, floats, sndfile, speechlike, wav

SPEECH = as_int16(speechlike(2.0))
MOST = 2**63 - 1
ONES = 2**64 - 1


def w64(whole: int, data: int) -> bytes:
    """A Wave64 file with these sizes in its head."""
    file = bytearray(sndfile(SPEECH, 16_000, "W64"))
    at = file.find(b"data\xf3\xac\xd3\x11") + 16
    file[16:24], file[at : at + 8] = whole.to_bytes(8, "little"), data.to_bytes(8, "little")
    return bytes(file)


def rf64(kind: bytes, size: int, stub: int = 2**32 - 1) -> bytes:
    """An RF64 or BW64 file with this size for everything in ds64, and `stub` in its data chunk."""
    file = wav(SPEECH.tobytes(), data_bytes=stub)
    ds64 = struct.pack("<4sIQQQI", b"ds64", 28, size, size, size, 0)
    return kind + b"\xff\xff\xff\xffWAVE" + ds64 + file[12:]


PIPED = {
    "rf64 by ffmpeg": rf64(b"RF64", 0),
    "rf64 with ones": rf64(b"RF64", ONES),
    "rf64 without a size": rf64(b"RF64", 0, stub=0),
    "bw64": rf64(b"BW64", 0),
    "bw64 with ones": rf64(b"BW64", ONES),
    "w64 by ffmpeg": w64(ONES, MOST),
    "w64 with ones": w64(ONES, ONES),
    "w64 without sizes": w64(0, 0),
    "w64 of an empty chunk": w64(0, 24),
}


@pytest.mark.parametrize("kind", PIPED)
def test_what_was_written_to_a_pipe_is_heard_to_its_end(kind: str) -> None:
    np.testing.assert_array_equal(decode_audio(PIPED[kind]).samples, SPEECH)


def test_a_size_that_is_there_is_believed() -> None:
    whole = rf64(b"RF64", SPEECH.nbytes)
    for file in (whole + b"LIST" + struct.pack("<I", 4) + b"INFO", sndfile(SPEECH, 16_000, "W64") + bytes(100)):
        np.testing.assert_array_equal(decode_audio(file).samples, SPEECH)


def test_wave64_by_sox_in_a_pipe_is_heard_with_the_second_head_that_stands_before_its_sound() -> None:
    file = w64(0, 23)
    start = file.find(b"data\xf3\xac\xd3\x11") + 24
    decoded = floats(decode_audio(file[:start] + file))
    np.testing.assert_array_equal(decoded[-len(SPEECH) :], SPEECH / np.float32(32_768))


def test_sound_is_found_behind_however_many_chunks() -> None:
    file = wav(SPEECH.tobytes())
    for count in (100, 20_000):
        np.testing.assert_array_equal(decode_audio(file[:36] + b"JUNK\0\0\0\0" * count + file[36:]).samples, SPEECH)

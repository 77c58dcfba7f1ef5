"""FLAC files whose head says something else than their frames."""

import io

import numpy as np
import pytest

from model.audio import AudioLimits, decode_audio, flac
from model.audio.flac import contradicts_itself
from model.errors import AudioTooLongError, InvalidAudioError
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


def test_every_recording_of_a_joined_file_is_heard() -> None:
    high, narrow = speechlike(3.0, 44_100), speechlike(2.0, 8_000)
    parts = [FILE, sndfile(np.stack([high, high], axis=1), 44_100, "FLAC"), sndfile(narrow, 8_000, "FLAC")]
    for files in (parts, parts[::-1], [FILE, FILE], [stating(16_000, 0), *parts]):
        apart = np.concatenate([floats(decode_audio(file)) for file in files])
        np.testing.assert_array_equal(floats(decode_audio(b"".join(files))), apart)
    with pytest.raises(AudioTooLongError, match=r"limit of 9\.5 seconds"):
        decode_audio(b"".join(parts), AudioLimits(max_seconds=9.5))
    broken = FILE + parts[1][:100] + parts[2]  # none is lost for its neighbour
    assert decode_audio(broken).duration == pytest.approx(8.0)


@pytest.mark.parametrize("padding", [0, 2**20 - 54, 2**20 - 50, 2**20 - 46])
def test_a_recording_is_found_wherever_it_begins(padding: int) -> None:
    """At the end of what is searched at once, too."""
    block = b"\1" + padding.to_bytes(3, "big") + bytes(padding)  # behind the first, which is 38 bytes with its head
    narrow = sndfile(speechlike(6.0, 8_000), 8_000, "FLAC")
    assert decode_audio(FILE[:42] + block + narrow + FILE).duration == pytest.approx(12.0)
    alone = narrow[:4] + b"\x80" + narrow[5:42]  # no block but the first
    assert decode_audio(FILE + alone + narrow[narrow.index(b"\xff\xf8") :]).duration == pytest.approx(12.0)


def test_a_file_of_nothing_but_heads_is_refused() -> None:
    with pytest.raises(InvalidAudioError, match="in more than 5000 pieces"):
        decode_audio(FILE[:42] * 6_000)


def test_of_what_looks_like_frames_only_the_last_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file of nothing else, and there are thousands of files in one."""
    asked = []
    monkeypatch.setattr(flac, "_frame", lambda header, _: asked.append(header))
    assert not contradicts_itself(io.BytesIO(FILE[:42] + b"\xff\xf8\0\0" * 10_000 + b"\xff\xf9\1\1"))
    assert len(asked) == 200
    assert asked[-1] == b"\xff\xf9\1\1"

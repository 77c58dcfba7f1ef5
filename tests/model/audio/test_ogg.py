"""Ogg files with several recordings in them, whole ones and such as broke off."""

import time

import numpy as np
import pytest

from model.audio import AudioLimits, decode_audio
from model.errors import AudioTooLongError, InvalidAudioError
from tests.sounds import ffmpeg, floats, sndfile, speechlike

SPEECH = speechlike(2.0)
LONG = speechlike(10.0)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_every_link_of_a_chained_ogg_file_is_heard(subtype: str) -> None:
    high = speechlike(3.0, 48_000)
    links = [
        sndfile(SPEECH, 16_000, "OGG", subtype),
        sndfile(np.stack([high, high], axis=1), 48_000, "OGG", "VORBIS"),
        ffmpeg(SPEECH, 16_000, "ogg", "flac"),
    ]
    apart = [floats(decode_audio(link)) for link in links]
    joined = floats(decode_audio(b"".join(links)))
    np.testing.assert_array_equal(joined, np.concatenate(apart))
    with pytest.raises(AudioTooLongError, match="limit of 6 seconds"):
        decode_audio(b"".join(links), AudioLimits(max_seconds=6.0))
    broken = links[0] + links[1][:200] + links[2]  # no link is lost for its neighbour
    assert decode_audio(broken).duration == pytest.approx((len(apart[0]) + len(apart[2])) / 16_000)


@pytest.mark.parametrize(
    "file",
    [sndfile(LONG, 16_000, "OGG", "VORBIS"), sndfile(LONG, 16_000, "OGG", "OPUS"), ffmpeg(LONG, 16_000, "ogg", "flac")],
    ids=["vorbis", "opus", "flac"],
)
def test_a_recording_that_broke_off_does_not_hide_the_one_behind_it(file: bytes) -> None:
    last_page = file.rindex(b"OggS")
    for cut in (last_page, last_page - 100):  # without the page that says it is the last, and in the middle of a page
        apart = [floats(decode_audio(part)) for part in (file[:cut], file)]
        assert len(apart[0]) < len(apart[1])
        np.testing.assert_array_equal(floats(decode_audio(file[:cut] + file)), np.concatenate(apart))


@pytest.mark.parametrize("file", [b"OggS\0" * 400_000, sndfile(SPEECH[:1], 16_000, "OGG", "VORBIS") * 6_000])
def test_a_file_of_nothing_but_beginnings_is_refused_quickly(file: bytes) -> None:
    started = time.process_time()
    with pytest.raises(InvalidAudioError, match="in more than 5000 pieces"):
        decode_audio(file)
    assert time.process_time() - started < 2.0

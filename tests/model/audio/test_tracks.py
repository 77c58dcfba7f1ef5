"""Which of a file's sound tracks is heard, and from where."""

import io
from typing import Any

import av
import numpy as np
import pytest

from model.audio import decode_audio
from model.errors import InvalidAudioError
from tests.sounds import ffmpeg, floats, likeness, sndfile, speechlike

SPEECH = speechlike(2.0)


def movie_of(*tracks: Any) -> bytes:
    """An MP4 file with a sound track for each of these samples, (n,) at 16 kHz."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        streams = [output.add_stream("aac", rate=16_000, layout="mono") for _ in tracks]
        for stream, samples in zip(streams, tracks, strict=True):
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate = 16_000
            output.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def test_a_track_in_an_unknown_codec_does_not_hide_the_one_that_can_be_heard() -> None:
    """As in videos of telephones whose spatial sound is a track of its own."""
    first = movie_of(SPEECH, SPEECH).replace(b"mp4a", b"apac", 1).replace(b"esds", b"free", 1)
    assert likeness(floats(decode_audio(first)), SPEECH) > 0.97
    with pytest.raises(InvalidAudioError, match="codec that is not supported"):
        decode_audio(first.replace(b"mp4a", b"apac").replace(b"esds", b"free"))


def test_a_silent_main_track_does_not_hide_one_that_speaks() -> None:
    """As where a screen was recorded: the machine's own sound, of which there was none, and the microphone."""
    silence, other = np.zeros_like(SPEECH), speechlike(2.0, seed=1)
    for tracks in ((silence, SPEECH), (silence, silence, SPEECH, other), (SPEECH, other)):
        assert likeness(floats(decode_audio(movie_of(*tracks))), SPEECH) > 0.97
    for tracks in ((silence,), (silence, silence)):
        assert not decode_audio(movie_of(*tracks)).samples.any()


def test_a_silent_first_track_of_an_ogg_file_does_not_hide_one_that_speaks() -> None:
    """libsndfile hears the first one, FFmpeg the one that begins."""
    high = speechlike(2.0, 44_100)
    voice = ogg_pages(sndfile(np.stack([high, high], axis=1), 44_100, "OGG", "VORBIS"))
    silence = ogg_pages(sndfile(np.zeros(32_000, np.float32), 16_000, "OGG", "VORBIS"))
    for first, second in ((silence, voice), (voice, silence)):
        file = b"".join([first[0], second[0], first[1], second[1], *second[2:], *first[2:]])
        assert likeness(floats(decode_audio(file)), SPEECH) > 0.97


def ogg_pages(file: bytes) -> list[bytes]:
    """Pages of an Ogg file (RFC 3533)."""
    return [b"OggS\0" + rest for rest in file.split(b"OggS\0")[1:]]


@pytest.mark.parametrize("container", ["mpegts", "mpeg"])
def test_sound_that_begins_long_after_the_pictures_is_heard(container: str) -> None:
    """FFmpeg has seen nothing of it when the file is open."""
    file = ffmpeg(speechlike(2.0, 48_000), 48_000, container, "mp2", video=True, start=20.0)
    decoded = floats(decode_audio(file))
    assert len(decoded) / 16_000 == pytest.approx(2.0, abs=0.15)
    assert likeness(decoded, SPEECH) > 0.97


def test_a_movie_whose_end_is_missing_is_told_so() -> None:
    whole = movie_of(SPEECH)
    assert whole.rindex(b"moov") > len(whole) / 2
    with pytest.raises(InvalidAudioError, match=r"does not say where its sound is \(moov\): its end is missing"):
        decode_audio(whole[: len(whole) // 2])
    with pytest.raises(InvalidAudioError, match="damaged, ends early, or"):  # it does, and there is nothing
        decode_audio(whole[: whole.index(b"free") - 4] + whole[whole.rindex(b"moov") - 4 :])

"""How long a file says it is, and how long it is."""

import av
import numpy as np
import pytest

from model.audio import AudioLimits, decode_audio
from model.errors import AudioTooLongError
from tests.sounds import ffmpeg, sndfile, speechlike


class Pipe:
    """What a program writes to that cannot go back to its header."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def piped(container: str) -> bytes:
    """10 s of MP3 of a variable bit rate that begins with silence, in a file whose header states no duration."""
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 160_000).astype(np.float32)
    sound[:32_000] = 0
    pipe = Pipe()
    with av.open(pipe, "w", format=container) as output:
        options = {"flags": "+qscale", "global_quality": "0"}
        stream = output.add_stream("libmp3lame", rate=16_000, layout="mono", options=options)
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        output.mux([*stream.encode(frame), *stream.encode(None)])
    return bytes(pipe.data)


@pytest.mark.parametrize("container", ["matroska", "asf", "avi"])
def test_a_length_that_is_only_estimated_refuses_nothing(container: str) -> None:
    file = piped(container)
    whole = decode_audio(file)
    assert whole.duration == pytest.approx(10.0, abs=0.2)
    limited = decode_audio(file, AudioLimits(max_seconds=11.0))
    np.testing.assert_array_equal(limited.samples, whole.samples)
    with pytest.raises(AudioTooLongError):
        decode_audio(file, AudioLimits(max_seconds=9.0))


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("webm", "libopus")])
def test_a_length_that_is_stated_and_true_is_refused_before_all_of_it_is_decoded(
    container: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ffmpeg(speechlike(10.0, 48_000), 48_000, container, codec)
    monkeypatch.setattr("model.audio.ffmpeg.AvReader.blocks", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(AudioTooLongError):
        decode_audio(file, AudioLimits(max_seconds=9.0))


def test_whoever_bounds_time_is_told_of_all_sound_as_it_is_found() -> None:
    stereo = np.stack([speechlike(3.0, 8_000)] * 2, axis=1)
    one = sndfile(stereo, 8_000, "FLAC")
    mono = sndfile(speechlike(5.0), 16_000, "WAV")
    for file, samples in ((one, stereo.size), (one + one, 2 * stereo.size), (mono, 80_000)):
        told: list[int] = []
        decode_audio(file, AudioLimits(found=told.append))
        assert sum(told) == samples
    told = []
    with pytest.raises(AudioTooLongError):
        decode_audio(ffmpeg(speechlike(20.0), 16_000, "adts", "aac"), AudioLimits(max_seconds=10.0, found=told.append))
    assert 0 < sum(told) <= 160_000

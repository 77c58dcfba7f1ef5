"""Recordings in which sound is missing for a while."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from model.audio import AudioLimits, decode_audio
from model.audio.containers import MATROSKA, MP4, MPEG_TS
from model.audio.gaps import Gaps
from model.errors import AudioTooLongError
from tests.sounds import Floats, ffmpeg, floats, likeness, speechlike


def without(file: bytes, container: str, begin: float, end: float) -> bytes:
    """The file without the packets that are heard between these seconds; those behind keep their times."""
    result = io.BytesIO()
    with av.open(io.BytesIO(file)) as source, av.open(result, "w", format=container) as output:
        stream = output.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.pts is not None and not begin <= packet.pts * packet.time_base < end:
                packet.stream = stream
                output.mux(packet)
    return result.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "rate", "channels"),
    [
        ("webm", "libopus", 48_000, 1),
        ("matroska", "pcm_s16le", 16_000, 1),
        ("matroska", "flac", 44_100, 2),
        ("mp4", "aac", 16_000, 1),
        ("matroska", "pcm_u8", 16_000, 2),
    ],
)
def test_what_is_behind_a_gap_keeps_its_time(container: str, codec: str, rate: int, channels: int) -> None:
    speech = speechlike(8.0, rate)
    samples = speech if channels == 1 else np.stack([speech, speech], axis=1)
    layout = "mono" if channels == 1 else "stereo"
    whole = ffmpeg(samples, rate, container, codec, layout=layout)
    heard, expected = (floats(decode_audio(file)) for file in (without(whole, container, 2.0, 6.0), whole))
    assert len(heard) == pytest.approx(len(expected), abs=200)
    assert not heard[2 * 16_000 + 4_000 : 6 * 16_000 - 4_000].any()
    for part in (slice(0, 2 * 16_000 - 4_000), slice(6 * 16_000 + 4_000, 8 * 16_000 - 400)):
        assert likeness(heard[part], expected[part]) > 0.95
        assert aligned(heard[part], expected[part])


def aligned(a: Floats, b: Floats) -> bool:
    """Whether two sounds have their syllables at the same times, to a hundredth of a second."""
    envelopes = [np.convolve(np.abs(sound), np.ones(400), "same") for sound in (a, b)]
    shifts = range(-1600, 1601, 40)
    scores = [float(np.dot(np.roll(envelopes[0], shift), envelopes[1])) for shift in shifts]
    return abs(shifts[int(np.argmax(scores))]) <= 160


def test_pauses_that_a_telephone_sends_as_no_data_keep_their_length() -> None:
    speech, pause = ffmpeg(speechlike(2.0, 8_000), 8_000, "amr", "libopencore_amrnb", bit_rate=12_200), b"\x7c"  # 20 ms
    alone = floats(decode_audio(speech))
    file = speech[:6] + pause * 50 + speech[6:] + pause * 3_000 + speech[6:]
    heard = floats(decode_audio(file))
    assert len(heard) == len(alone) * 2 + 61 * 16_000
    for start in (16_000, 61 * 16_000 + len(alone)):
        assert likeness(heard[start : start + 30_000], alone[:30_000]) > 0.95
        assert aligned(heard[start : start + 30_000], alone[:30_000])
    assert not heard[:15_000].any()
    forever = decode_audio(speech + pause * 300_000 + speech[6:])  # more than an hour is damage
    assert len(forever.samples) == 2 * len(alone)


def test_a_gap_counts_as_the_silence_that_it_is() -> None:
    file = without(ffmpeg(speechlike(8.0, 48_000), 48_000, "webm", "libopus"), "webm", 2.0, 6.0)
    assert decode_audio(file, AudioLimits(max_seconds=8.5)).duration == pytest.approx(8.0, abs=0.1)
    with pytest.raises(AudioTooLongError):
        decode_audio(file, AudioLimits(max_seconds=7.0))


def frames(*begins: int | None, samples: int = 320) -> list[av.AudioFrame]:
    """Frames at 16 kHz that begin at these samples."""
    result = []
    for begin in begins:
        frame = av.AudioFrame("s16", "mono", samples)
        frame.sample_rate, frame.pts = 16_000, begin
        if begin is not None:
            frame.time_base = Fraction(1, 16_000)
        result.append(frame)
    return result


@pytest.mark.parametrize(
    ("begins", "silence"),
    [
        ((0, 320, 640), [0, 0, 0]),
        ((80_000, 80_320, 90_640), [0, 0, 10_000]),  # not before the first
        ((0, 5_000, 10_000), [0, 0, 9_360]),  # what is small counts when it is no longer
        ((0, None, 640, None, 11_280), [0, 0, 0, 0, 10_000]),
        ((80_000, 0, 320, 91_280), [0, 0, 0, 10_320]),  # times that start anew
        ((0, 320, 2**40, 2**40 + 320, 960), [0, 0, 0, 0, 0]),  # a bit that is wrong
        ((0, 16_000, 320, 640, 16_960), [0, 15_680, 0, 0, 0]),
    ],
)
def test_silence_is_what_the_times_leave_over(begins: tuple[int | None, ...], silence: list[int]) -> None:
    for container in (MATROSKA, MP4):
        gaps = Gaps(container)
        assert [round(gaps.before(frame) * 16_000) for frame in frames(*begins)] == silence
    elsewhere = Gaps(MPEG_TS)
    assert not any(elsewhere.before(frame) for frame in frames(*begins))

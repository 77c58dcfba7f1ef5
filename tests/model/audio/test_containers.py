"""Which files are recognised, by content alone."""

import io
import random
import struct

import numpy as np
import pytest
from av.format import ContainerFormat

from model.audio import containers, decode, decode_audio
from model.audio.containers import Container, identify
from model.audio.ffmpeg import AvReader
from tests.sounds import ffmpeg, silent_flac, sndfile, speechlike, wav

SPEECH = speechlike(1.0)
MP3 = sndfile(SPEECH, 16_000, "MP3")
ADTS = ffmpeg(SPEECH, 16_000, "adts", "aac")
LOAS = ffmpeg(SPEECH, 16_000, "latm", "aac")


def identified(data: bytes) -> Container | None:
    return identify(io.BytesIO(data))


def id3(size: int, flags: int = 0) -> bytes:
    return (
        b"ID3\x04\x00" + bytes([flags, size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + bytes(size)
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (wav(bytes(10)), containers.WAV),
        (sndfile(SPEECH, 16_000, "RF64"), containers.WAV),
        (sndfile(SPEECH, 16_000, "W64"), containers.W64),
        (sndfile(SPEECH, 16_000, "AIFF"), containers.AIFF),
        (silent_flac(1.0), containers.FLAC),
        (sndfile(SPEECH, 16_000, "OGG"), containers.OGG),
        (MP3, containers.MP3),
        (ADTS, containers.AAC),
        (ffmpeg(SPEECH, 16_000, "mp4", "aac"), containers.MP4),
        (ffmpeg(SPEECH, 48_000, "webm", "libopus"), containers.MATROSKA),
        (ffmpeg(SPEECH, 48_000, "mpegts", "aac"), containers.MPEG_TS),
        (ffmpeg(SPEECH, 48_000, "avi", "mp2"), containers.AVI),
        (ffmpeg(SPEECH, 48_000, "mxf_opatom", "pcm_s16le"), containers.MXF),
        (ffmpeg(SPEECH, 16_000, "tta", "tta"), containers.TTA),
        (b"\x7f\xfe\x80\x01" + bytes(100), containers.DTS),
        (LOAS, containers.LOAS),
        (ffmpeg(SPEECH, 48_000, "nut", "libopus"), containers.NUT),
        (ffmpeg(SPEECH, 8_000, "rm", "real_144"), containers.REALMEDIA),
        (ffmpeg(SPEECH, 48_000, "wtv", "mp2"), containers.WTV),
    ],
    ids=lambda value: value.name if isinstance(value, Container) else "",
)
def test_files_of_every_kind(data: bytes, expected: Container) -> None:
    assert identified(data) is expected


def test_every_demuxer_named_is_one() -> None:
    """FFmpeg's binding guesses the format where it is given the name of a muxer only."""
    named = [value for value in vars(containers).values() if isinstance(value, Container)]
    assert len(named) > 20
    for container in named:
        assert ContainerFormat(container.demuxer, "r").is_input


def test_tags_before_the_sound_are_passed_over() -> None:
    tag = id3(200_000)  # a cover picture
    assert identified(tag + MP3) is containers.MP3
    assert identified(tag + ADTS) is containers.AAC
    assert identified(tag + silent_flac(1.0)) is containers.FLAC
    assert identified(id3(30) + id3(30) + MP3) is containers.MP3


@pytest.mark.parametrize(
    "file",
    [
        *(sndfile(SPEECH, 16_000, kind) for kind in ("WAV", "AIFF", "CAF", "FLAC", "OGG")),
        ffmpeg(SPEECH, 16_000, "mp4", "aac"),
        ffmpeg(SPEECH, 48_000, "webm", "libopus"),
        ffmpeg(SPEECH, 16_000, "asf", "wmav2", bit_rate=64_000),
    ],
    ids=["wav", "aiff", "caf", "flac", "ogg", "mp4", "webm", "wma"],
)
def test_tags_cost_no_sound_where_they_do_not_belong(file: bytes) -> None:
    np.testing.assert_array_equal(decode_audio(id3(20_000) + file).samples, decode_audio(file).samples)


@pytest.mark.parametrize("file", [MP3, ADTS], ids=["mp3", "aac"])
def test_ffmpeg_sees_no_tags_before_the_sound(file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It compares every frame of a tag with all before it: of a small file with 80,000 it took a minute."""
    seen = []

    def reader(source: io.BytesIO, container: Container, **options: int) -> AvReader:
        seen.append(source.getvalue())
        return AvReader(source, container, **options)

    monkeypatch.setattr(decode, "AvReader", reader)
    decode.decode_audio(id3(20_000) + file)
    assert seen == [file]


@pytest.mark.parametrize("options", [{}, {"mpegts_m2ts_mode": "1"}], ids=["ts", "m2ts"])
@pytest.mark.parametrize("begin", [0, 1, 100, 187, 3000])
def test_a_transport_stream_may_begin_anywhere(options: dict[str, str], begin: int) -> None:
    file = ffmpeg(speechlike(4.0), 16_000, "mpegts", "mp2", options=options)
    assert identified(file[begin:]) is containers.MPEG_TS
    assert decode_audio(file[begin:]).duration > 3.5


@pytest.mark.parametrize("junk", [bytes(1_000), b"<p>Not found.</p>" * 2_000], ids=["zeros", "a page"])
def test_junk_before_the_first_frame_is_passed_over(junk: bytes) -> None:
    for file, container in ((MP3, containers.MP3), (ADTS, containers.AAC)):
        assert identified(junk + file) is container
        assert decode_audio(junk + file).duration == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"R",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"FORM\0\0\0\0ILBM",
        b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        b"[playlist]\nFile1=http://127.0.0.1/\n",
        b'<?xml version="1.0"?><MPD></MPD>',
        b"\xff\xd8\xff\xe0" + bytes(500),
        b"%PDF-1.7\n" + bytes(500),
        b"\x7fELF" + bytes(500),
        b"\xff\xfe" + "Ein Brief.".encode("utf-16-le"),
        LOAS[:200],
        b"\x56\xe0" + bytes(500),
        b"nut/multimedia",
        b".RMF",
        b"rtsp://127.0.0.1/a.rm\n",
        b"ID3",
        id3(100),
    ],
)
def test_other_files_are_not(data: bytes) -> None:
    assert identified(data) is None


def test_a_program_is_no_sound() -> None:
    """Its table of jumps holds `ff ff 25` every 16 bytes, which are frames of MPEG audio in layer I, 64 bytes long."""
    jumps = b"".join(
        b"\xff\x25" + struct.pack("<I", 0x2FC2 - 8 * n) + b"\x68" + struct.pack("<IBi", n, 0xE9, -16 * n - 32)
        for n in range(40)
    )
    assert identified(b"\x7fELF" + bytes(8_000) + jumps + bytes(8_000)) is None


def test_random_bytes_are_no_sound() -> None:
    source = random.Random(5)
    assert [n for n in range(200) if identified(source.randbytes(4_096)) is not None] == []

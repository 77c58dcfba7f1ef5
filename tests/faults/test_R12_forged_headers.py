"""R12: headers that lie about rate, channels, width or length are 400, 413, or the sound that is there; never more."""

import asyncio
import struct

import pytest

from service.errors import InvalidAudio, TooLarge
from tests.audio_pools import new_pool, outcome, running
from tests.sounds import as_int16, ffmpeg, silent_flac, sndfile, speechlike, wav

pytestmark = pytest.mark.fault

PCM = as_int16(speechlike(0.5)).tobytes()


def w64(data_bytes: int) -> bytes:
    """A Wave64 file whose 64-bit data size is forged."""
    file = bytearray(sndfile(as_int16(speechlike(0.5)), 16_000, "W64"))
    at = file.find(b"data\xf3\xac\xd3\x11") + 16
    file[at : at + 8] = struct.pack("<Q", data_bytes)
    return bytes(file)


def caf(frames_bytes: int) -> bytes:
    """A CAF file whose 64-bit data size is forged."""
    file = bytearray(sndfile(as_int16(speechlike(0.5)), 16_000, "CAF"))
    at = file.rfind(b"data") + 4
    file[at : at + 8] = struct.pack(">q", frames_bytes)
    return bytes(file)


def mp4(field: bytes, offset: int, value: bytes) -> bytes:
    """An MP4 file with bytes replaced at an offset behind a box's name."""
    file = bytearray(ffmpeg(speechlike(0.5), 16_000, "mp4", "aac"))
    at = file.find(field) + 4 + offset
    file[at : at + len(value)] = value
    return bytes(file)


FORGED = {
    "rate 655350 x 8": silent_flac(1.0, rate=655_350, channels=8),
    "rate 0": wav(PCM, rate=0),
    "rate 1": wav(PCM, rate=1),
    "rate 2^32-1": wav(PCM, rate=0xFFFF_FFFF),
    "flac rate 0": silent_flac(1.0, rate=16_000).replace(b"\x03\xe8\x00\xf0", b"\x00\x00\x00\xf0"),
    "channels 0": wav(PCM, channels=0),
    "channels 65535": wav(PCM, channels=65_535),
    "bits 0": wav(PCM, bits=0),
    "bits 65535": wav(PCM, bits=65_535),
    "data size 0xFFFFFFF0": wav(PCM, data_bytes=0xFFFF_FFF0),
    "data size 0xFFFFFFFF": wav(PCM, data_bytes=0xFFFF_FFFF),
    "data size 0": wav(PCM, data_bytes=0),
    "64-bit size 2^63": w64(2**63),
    "64-bit size 2^64-1": w64(2**64 - 1),
    "caf size 2^63-1": caf(2**63 - 1),
    "caf size -2": caf(-2),
    "flac frames 2^36-1": silent_flac(1.0, declared_frames=2**36 - 1),
    "flac frames 1": silent_flac(1.0, declared_frames=1),
    "mp4 duration 2^32-1": mp4(b"mvhd", 16, b"\xff\xff\xff\xff"),
    "mp4 sample sizes 2^31": mp4(b"stsz", 4, b"\x7f\xff\xff\xff"),
    "mp4 sample count 2^32-1": mp4(b"stsz", 8, b"\xff\xff\xff\xff"),
    "mp4 chunk offset 2^32-1": mp4(b"stco", 8, b"\xff\xff\xff\xff"),
    "mp4 box of 0 bytes": mp4(b"trak", -8, bytes(4)),
}
MUST_REFUSE = {
    "rate 655350 x 8",
    "rate 0",
    "rate 1",
    "rate 2^32-1",
    "channels 0",
    "channels 65535",
    "bits 0",
    "bits 65535",
}


def test_R12_forged_headers_are_never_our_fault() -> None:
    async def scenario() -> None:
        async with running(new_pool(max_seconds=60, max_decoded_bytes=50_000_000, memory_bytes=2**29)) as pool:
            for name, file in FORGED.items():
                answer = await outcome(pool, file)
                if isinstance(answer, float):
                    assert name not in MUST_REFUSE
                    assert 0 < answer < 5, name
                else:
                    assert isinstance(answer, InvalidAudio | TooLarge), name
                    assert "could not be decoded" not in answer.message, f"{name}: the child died"
            assert pool.restarts == 0

    asyncio.run(scenario())

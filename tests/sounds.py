"""Sound files made on the spot: honest ones by the codecs, dishonest ones byte by byte."""

import io
import math
import struct
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
import soundfile

from model.audio import Waveform

Floats = npt.NDArray[np.float32]

_CHUNK = 65_536  # one big write crashes the Vorbis encoder of libsndfile 1.2.2


def speechlike(seconds: float, rate: int = 16_000, seed: int = 0) -> Floats:
    """A buzz of harmonics below 3.4 kHz with syllables and pauses, (n,), peak 0.5: telephone codecs can carry it."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = 110 + 30 * seed
    voice = sum(
        random.uniform(0.2, 1.0) / k**0.5 * np.sin(2 * np.pi * k * pitch * time + random.uniform(0, 6))
        for k in range(1, int(min(3_400, rate * 0.4) / pitch))
    )
    syllables = np.clip(np.sin(2 * np.pi * (2.5 + 0.3 * seed) * time + seed), 0, 1)
    sound = voice * syllables
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def likeness(a: Floats, b: Floats) -> float:
    """The best correlation of two sounds over all shifts and in either polarity: 1.0 for the same sound."""
    size = 1 << (len(a) + len(b)).bit_length()
    shifted = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    return float(np.abs(shifted).max() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))


def floats(waveform: Waveform) -> Floats:
    """The samples within [-1, 1], whatever type they came in."""
    if waveform.samples.dtype == np.int16:
        return (waveform.samples / 32_768).astype(np.float32)
    assert waveform.samples.dtype == np.float32
    return waveform.samples


def as_int16(samples: Floats) -> npt.NDArray[np.int16]:
    return np.round(samples * 32_767).astype(np.int16)


def sndfile(samples: npt.NDArray[np.generic], rate: int, kind: str, subtype: str | None = None) -> bytes:
    """A file by libsndfile; `samples` (n,) or (n, channels)."""
    file = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(file, "w", rate, channels, format=kind, subtype=subtype) as writer:
        for start in range(0, len(samples), _CHUNK):
            writer.write(samples[start : start + _CHUNK])
    return file.getvalue()


def ffmpeg(
    samples: Floats,
    rate: int,
    container: str,
    codec: str,
    *,
    layout: str = "mono",
    bit_rate: int | None = None,
    video: bool = False,
    attachment: bytes | None = None,
    start: float = 0.0,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
) -> bytes:
    """A file by FFmpeg; `samples` (n,) or (n, channels); `video` puts a black picture track before the sound.

    `start`: seconds at which the sound begins by its own time; until then there are pictures.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options or {}) as output:
        pictures = output.add_stream("mpeg4", rate=5, width=64, height=48, pix_fmt="yuv420p") if video else None
        sound = output.add_stream(codec, rate=rate, layout=layout, options=codec_options or {}) if codec else None
        if sound is not None and bit_rate is not None:
            sound.bit_rate = bit_rate
        if attachment is not None:
            output.add_attachment("list.txt", "text/plain", attachment)
        if pictures is not None:
            for _ in range(5 * max(1, round(start))):
                output.mux(pictures.encode(av.VideoFrame(64, 48, "yuv420p")))
            output.mux(pictures.encode(None))
        if sound is not None:
            converter = av.AudioResampler(format=sound.codec_context.format, layout=layout, rate=rate)
            for frame in _frames(samples, rate, layout):
                for converted in converter.resample(frame):
                    converted.pts += round(start * rate)
                    output.mux(sound.encode(converted))
            output.mux(sound.encode(None))
    return file.getvalue()


def _frames(samples: Floats, rate: int, layout: str) -> Iterator[av.AudioFrame]:
    interleaved = samples.reshape(1, -1).astype(np.float32)
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    for start in range(0, interleaved.shape[1], 1024 * channels):
        part = np.ascontiguousarray(interleaved[:, start : start + 1024 * channels])
        frame = av.AudioFrame.from_ndarray(part, format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start // channels, Fraction(1, rate)
        yield frame


def wav(
    data: bytes,
    *,
    rate: int = 16_000,
    channels: int = 1,
    bits: int = 16,
    tag: int = 1,
    data_bytes: int | None = None,
) -> bytes:
    """A WAV file whose header says exactly what it is told to say."""
    size = len(data) if data_bytes is None else data_bytes
    align = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * align & 0xFFFF_FFFF, align & 0xFFFF, bits)
    riff = min(36 + size, 0xFFFF_FFFF)
    return b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack(
        "<I", size
    ) + data  # fmt: skip


def float_wav(samples: npt.NDArray[np.generic], rate: int = 16_000) -> bytes:
    """A WAV file of 32-bit floats, taken as they are."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    return wav(samples.astype("<f4").tobytes(), rate=rate, channels=channels, bits=32, tag=3)


def oki_adpcm(samples: Floats) -> bytes:
    """Steps in 4 bits each, an even number of them, as telephone systems store speech (Dialogic's note 00-1366-001)."""
    sizes = [math.floor(16 * 1.1**number) for number in range(49)]
    value = index = 0
    codes = []
    for sample in np.round(samples * 2047).astype(int).tolist():
        code = min(abs(sample - value) * 4 // sizes[index], 7)
        sign = -1 if sample < value else 1
        value = max(-2048, min(2047, value + sign * (sizes[index] * (2 * code + 1) // 8)))
        index = max(0, min(48, index + (-1, -1, -1, -1, 2, 4, 6, 8)[code]))
        codes.append(code | (8 if sign < 0 else 0))
    return bytes(first << 4 | second for first, second in zip(codes[::2], codes[1::2], strict=True))


def silent_flac(seconds: float, rate: int = 16_000, channels: int = 1, *, declared_frames: int | None = None) -> bytes:
    """A FLAC file of digital silence, some 13 bytes for every 4 s: `declared_frames` 0 means unknown (RFC 9639)."""
    block = 65_535
    blocks = math.ceil(seconds * rate / block)
    declared = blocks * block if declared_frames is None else declared_frames
    info = rate << 44 | (channels - 1) << 41 | 15 << 36 | declared & (1 << 36) - 1
    head = b"fLaC\x80\x00\x00\x22" + struct.pack(">HH", block, block) + bytes(6) + info.to_bytes(8, "big") + bytes(16)
    body = bytearray()
    for number in range(blocks):
        # sync; block size in 16 bits at the end, rate from the stream's header; channels, 16 bits a sample; number
        frame = b"\xff\xf8\x70" + bytes([(channels - 1) << 4 | 8]) + _utf8(number) + struct.pack(">H", block - 1)
        frame += bytes([_crc(frame, 8, 0x07)]) + bytes(3 * channels)  # a constant subframe of zero for every channel
        body += frame + _crc(frame, 16, 0x8005).to_bytes(2, "big")
    return head + bytes(body)


def _utf8(number: int) -> bytes:
    return chr(number).encode("utf-8", "surrogatepass")


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    value, top = 0, 1 << bits - 1
    for byte in data:
        value ^= byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value & top else 0)) & (1 << bits) - 1
    return value

"""What `tests.fuzz.target` asks of `model.audio`: any file becomes sound within the limits, or is refused."""

import numpy as np

from model.audio import AudioLimits, decode_audio
from model.dims import SAMPLE_RATE
from model.errors import AudioError
from tests.sounds import as_int16, ffmpeg, float_wav, silent_flac, sndfile, speechlike, wav

MAX_BYTES = 65_536
LIMITS = AudioLimits(max_seconds=60.0, max_decoded_bytes=50_000_000)


def seeds() -> list[bytes]:
    """Small files of the formats whose headers differ most."""
    short = speechlike(0.1)
    stereo = np.stack([short, -short], axis=1)
    ogg = sndfile(short, 16_000, "OGG")
    return [
        wav(as_int16(short[:400]).tobytes()),
        float_wav(short[:400]),
        silent_flac(1.0),
        sndfile(short, 16_000, "FLAC"),
        sndfile(stereo, 44_100, "FLAC"),
        sndfile(short, 16_000, "MP3"),
        sndfile(short, 16_000, "AIFF"),
        sndfile(short, 16_000, "CAF"),
        ogg,
        ogg + ogg,
        ffmpeg(short, 16_000, "mp4", "aac"),
        ffmpeg(short, 16_000, "adts", "aac"),
        ffmpeg(short, 48_000, "webm", "libopus"),
        ffmpeg(short[::2], 8_000, "amr", "libopencore_amrnb", bit_rate=12_200),
        b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + wav(as_int16(short[:400]).tobytes()),
    ]


def check(data: bytes) -> None:
    """Raises what is a finding."""
    try:
        samples = decode_audio(data, LIMITS).samples
    except (AudioError, MemoryError):  # what the audio child answers for, see `service.audio_child`
        return
    assert samples.ndim == 1
    assert 0 < len(samples) <= LIMITS.max_seconds * SAMPLE_RATE + 1
    if samples.dtype != np.int16:
        assert samples.dtype == np.float32
        assert np.isfinite(samples).all()
        assert np.abs(samples).max() <= 1.0

"""R11: a small file that unpacks to a day of silence is 413 within two seconds, and costs neither process memory."""

import asyncio
import io
import resource
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from model.audio.containers import _mpeg_frame_bytes
from service.errors import TooLarge
from tests.audio_pools import children, new_pool, outcome, running
from tests.sounds import silent_flac, sndfile

pytestmark = pytest.mark.fault

HOUR = 3600.0
MEMORY_BYTES = 512 * 2**20


def mp3_bomb(seconds: float) -> bytes:
    """One silent frame, over and over."""
    file = sndfile(np.zeros(32_000, np.float32), 16_000, "MP3")
    start = file.find(b"\xff\xf3", len(file) // 2)
    size = _mpeg_frame_bytes(file[start : start + 4])
    assert size > 0
    return file[start : start + size] * round(seconds * 16_000 / 576)


def opus_bomb(seconds: float, container: str) -> bytes:
    """One silent packet, over and over."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "mono", "s16"
    encoder.time_base = Fraction(1, 48_000)
    silence = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), "s16", "mono")
    silence.sample_rate = 48_000
    (packet, *_) = encoder.encode(silence) + encoder.encode(None)
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream("libopus", rate=48_000, layout="mono")
        for index in range(round(seconds * 50)):
            copy = av.Packet(bytes(packet))
            copy.stream, copy.time_base, copy.pts, copy.dts = stream, Fraction(1, 48_000), 960 * index, 960 * index
            copy.duration = 960
            output.mux_one(copy)
    return file.getvalue()


BOMBS = {
    "flac": lambda: silent_flac(20 * HOUR),
    "flac of unknown length": lambda: silent_flac(20 * HOUR, declared_frames=0),
    "flac of 8 channels": lambda: silent_flac(4 * HOUR, channels=8, declared_frames=0),
    "mp3": lambda: mp3_bomb(20 * HOUR),
    "opus in ogg": lambda: opus_bomb(HOUR, "ogg"),
    "opus in webm": lambda: opus_bomb(HOUR, "webm"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_R11_a_bomb_is_refused_quickly_and_costs_no_memory(kind: str) -> None:
    bomb = BOMBS[kind]()

    async def scenario() -> None:
        async with running(new_pool(max_seconds=600, memory_bytes=MEMORY_BYTES)) as pool:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            (child,) = children()
            start = time.monotonic()
            refused = await outcome(pool, bomb)
            elapsed = time.monotonic() - start
            assert isinstance(refused, TooLarge)
            assert (refused.status, refused.code) == (413, "audio_too_long")
            assert elapsed < 2.0
            assert resident_peak(child) < MEMORY_BYTES
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024 + len(bomb) // 1024
            assert pool.restarts == 0

    asyncio.run(scenario())


def resident_peak(process: int) -> int:
    """Bytes, from /proc."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

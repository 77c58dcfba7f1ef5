"""R13: empty, tiny, truncated and random files are 400 or 200; no child dies, none hangs."""

import asyncio
import io
import random

import pytest

from model.audio.containers import identify
from service.errors import InvalidAudio
from tests.audio_pools import new_pool, outcome, running
from tests.sounds import as_int16, ffmpeg, silent_flac, sndfile, speechlike, wav

pytestmark = pytest.mark.fault

SHORT = speechlike(0.1)
FILES = {
    "wav": wav(as_int16(SHORT[:400]).tobytes()),
    "flac": sndfile(SHORT, 16_000, "FLAC"),
    "vorbis": sndfile(SHORT, 16_000, "OGG"),
    "mp3": sndfile(SHORT, 16_000, "MP3"),
    "mp4": ffmpeg(SHORT, 16_000, "mp4", "aac"),
    "webm": ffmpeg(SHORT, 48_000, "webm", "libopus"),
    "amr": ffmpeg(SHORT[::2], 8_000, "amr", "libopencore_amrnb", bit_rate=12_200),
}
SPAN = 4_096
"""Longer files are cut at every offset of their first and last this many bytes."""


async def answers(uploads: list[bytes]) -> None:
    async with running(new_pool(children=2, decode_seconds=10.0)) as pool:
        queue = iter(uploads)

        async def work() -> None:
            for upload in queue:
                answer = await outcome(pool, upload)
                assert isinstance(answer, float | InvalidAudio)
                assert isinstance(answer, float) or answer.message != "The file could not be decoded."

        await asyncio.gather(*(work() for _ in range(3)))
        assert pool.restarts == 0


@pytest.mark.parametrize("kind", FILES)
def test_R13_cut_at_every_byte(kind: str) -> None:
    file = FILES[kind]
    cuts = [n for n in range(len(file)) if n < SPAN or n > len(file) - SPAN]
    asyncio.run(answers([file[:n] for n in cuts]))


def test_R13_empty_and_one_sample() -> None:
    one = as_int16(SHORT[:1])
    asyncio.run(answers([b"", b"\0", wav(one.tobytes()), sndfile(one, 44_100, "WAV"), sndfile(one, 8_000, "FLAC")]))


def test_R13_random_bytes() -> None:
    source = random.Random(13)
    heads = [file[: source.randrange(4, 64)] for file in (*FILES.values(), silent_flac(1.0))]
    noise = [source.randbytes(source.randrange(1, 3_000)) for _ in range(2_000)]
    behind_a_head = [source.choice(heads) + source.randbytes(2_000) for _ in range(1_000)]
    asyncio.run(answers(noise + behind_a_head))


def test_R13_flipped_bits() -> None:
    source = random.Random(14)
    damaged = []
    for file in FILES.values():
        for _ in range(150):
            copy = bytearray(file)
            for _ in range(source.choice((1, 4, 16))):
                copy[source.randrange(min(len(copy), source.choice((64, 100_000))))] ^= 1 << source.randrange(8)
            damaged.append(bytes(copy))
    uploads = [file for file in damaged if file]
    asyncio.run(flipped(uploads))


async def flipped(uploads: list[bytes]) -> None:
    """As `answers`, but a flipped length may also be too long."""
    async with running(new_pool(children=2, decode_seconds=10.0)) as pool:
        for upload in uploads:
            answer = await outcome(pool, upload)
            assert isinstance(answer, float) or answer.status in (400, 413)
        assert pool.restarts == 0


def test_R13_the_corpus_of_this_test_is_recognised() -> None:
    assert [kind for kind, file in FILES.items() if identify(io.BytesIO(file)) is None] == []

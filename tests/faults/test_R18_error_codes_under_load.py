"""R18: undecodable files from eight sides at once are 400, every one of them, each with its own reason."""

import asyncio

import pytest

from service.errors import InvalidAudio
from tests.audio_pools import new_pool, outcome, running
from tests.sounds import wav

pytestmark = pytest.mark.fault

UNDECODABLE = {
    b"": "is empty",
    b"not a sound": "not in a recognised audio format",
    wav(bytes(100), tag=0x4321): "codec is not supported",
    wav(b""): "holds no sound",
    wav(bytes(100), rate=7): "claims a rate of 7 Hz",
}


def test_R18_every_answer_is_400_and_its_own() -> None:
    async def scenario() -> None:
        async with running(new_pool(children=2)) as pool:

            async def side(shift: int) -> None:
                files = list(UNDECODABLE.items())
                for number in range(500):
                    file, words = files[(number + shift) % len(files)]
                    refused = await outcome(pool, file)
                    assert isinstance(refused, InvalidAudio)
                    assert refused.status == 400
                    assert words in refused.message

            await asyncio.gather(*(side(shift) for shift in range(8)))
            assert pool.restarts == 0

    asyncio.run(scenario())

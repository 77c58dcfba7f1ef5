"""R16: NaN and infinite samples are 400; finite ones beyond full scale are clipped."""

import asyncio

import numpy as np
import pytest

from service.errors import InvalidAudio
from tests.audio_pools import decode, new_pool, outcome, read_samples, running
from tests.sounds import float_wav, speechlike

pytestmark = pytest.mark.fault


def test_R16_no_such_sample_leaves_the_decoder() -> None:
    speech = speechlike(0.5)

    async def scenario() -> None:
        async with running(new_pool()) as pool:
            for bad in (np.nan, np.inf, -np.inf):
                for place in (0, len(speech) // 2, len(speech) - 1):
                    sound = speech.copy()
                    sound[place] = bad
                    for file in (float_wav(sound), float_wav(sound, 44_100), float_wav(np.stack([speech, sound], 1))):
                        refused = await outcome(pool, file)
                        assert isinstance(refused, InvalidAudio)
                        assert "not numbers" in refused.message
            for huge in (1e30, -1e30, 3e38):
                for channels in (1, 8):
                    sound = np.repeat(speech[:, None], channels, axis=1)
                    sound[1_000] = huge
                    for rate in (16_000, 44_100):
                        samples = np.frombuffer(read_samples(await decode(pool, float_wav(sound, rate))), np.float32)
                        assert np.isfinite(samples).all()
                        assert np.abs(samples).max() <= 1.0
            assert pool.restarts == 0

    asyncio.run(scenario())

"""R16: NaN and infinite samples are 400; finite ones beyond full scale are clipped; neighbours notice neither."""

import asyncio
import concurrent.futures

import numpy as np
import pytest
import torch

from model.options import TranscribeOptions
from service.errors import InvalidAudio
from service.wire.messages import Failed, Finished, Message, SegmentsReady, Transcribe
from service.worker.engine import Engine
from tests import tiny
from tests.audio_pools import decode, new_pool, outcome, read_samples, running
from tests.serving import error_of, real_service
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


def _transcribed(neighbour: torch.Tensor) -> tuple[dict[str, list[Message]], list[Message]]:
    """What three requests got beside a neighbour, and what the neighbour got."""
    engine = Engine(tiny.transcriber(), max_rows=4, windows_per_encode=1)
    options = TranscribeOptions(
        language="en", temperature=(0.0,), sample_len=30, no_speech_threshold=None, guards=False
    )
    samples = {"poison": neighbour} | {name: tiny.speech(4.0, seed) for seed, name in enumerate("abc")}
    for name, sound in samples.items():
        engine.submit(Transcribe(name, "float32", len(sound), options, None), sound, 0.0)
    messages: dict[str, list[Message]] = {name: [] for name in samples}
    while engine.busy:
        for message in engine.iterate(0.0):
            if isinstance(message, SegmentsReady | Finished | Failed):
                messages[message.request_id].append(message)
    return messages, messages.pop("poison")


def test_R16_samples_that_slipped_through_would_not_reach_the_neighbours() -> None:
    healthy, _ = _transcribed(tiny.speech(4.0, seed=9))
    for bad in (float("nan"), float("inf"), 3e38):
        sound = tiny.speech(4.0, seed=9)
        sound[20_000:30_000] = bad
        beside, poisoned = _transcribed(sound)
        assert isinstance(poisoned[-1], Finished | Failed)
        for name, messages in healthy.items():
            for ours, theirs in zip(messages, beside[name], strict=True):
                assert isinstance(ours, SegmentsReady | Finished)
                assert ours == theirs  # every token, time and probability, to the last bit


def test_R16_through_the_whole_service(checkpoint) -> None:
    innocent, loud, bad = speechlike(3.0), speechlike(3.0, seed=1), speechlike(3.0, seed=2)
    loud[7_000] = 1e30
    bad[7_000] = np.nan
    greedy = {"temperature": "0", "response_format": "text", "guards": "false"}
    with real_service(checkpoint) as server, concurrent.futures.ThreadPoolExecutor(6) as threads:
        alone = server.post(float_wav(innocent), data=greedy).text
        files = [float_wav(sound) for sound in (innocent, loud, bad, innocent, bad, innocent)]
        answers = list(threads.map(lambda file: server.post(file, data=greedy), files))
        assert [answer.status_code for answer in answers] == [200, 200, 400, 200, 400, 200]
        assert error_of(answers[2], 400)["code"] == "invalid_audio"
        assert {answers[i].text for i in (0, 3, 5)} == {alone}

"""What a file may cost: in proportion to its bytes, and to the sound in it."""

import asyncio
import logging
import signal

import pytest

from service.audio_child import allowance
from service.audio_child.allowance import Allowance
from service.errors import InvalidAudio
from tests.audio_pools import SCRIPTED, new_pool, outcome, running, until


def test_bytes_and_samples_are_worth_time_up_to_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float] = []
    now = 100.0
    monkeypatch.setattr(allowance, "limit_cpu", left.append)
    monkeypatch.setattr("time.process_time", lambda: now)
    ours = Allowance(60.0, 20_000_000)
    now = 102.0
    ours.found(4_000_000)
    ours.found(1_000_000_000)
    Allowance(0.5, 0)
    assert left == pytest.approx([5.0, 7.0, 58.0, 0.5])


def test_r14_a_file_without_sound_does_not_get_all_the_time_there_is(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED, decode_seconds=600.0)) as pool:
            refused = await outcome(pool, b"spin")
            assert isinstance(refused, InvalidAudio)
            assert refused.message == "The file took too long to decode."
            await until(lambda: pool.restarts == 1)
            assert await outcome(pool, b"samples") == 0.01

    with caplog.at_level(logging.WARNING, "service"):
        asyncio.run(asyncio.wait_for(scenario(), 60))
    ends = [record.fields["exit_status"] for record in caplog.records if record.message == "audio_child_ended"]
    assert ends[0] == -signal.SIGXCPU

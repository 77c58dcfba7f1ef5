"""The open loop: its schedule, its clock, and its sums."""

import asyncio
import itertools
import json

import httpx
import pytest

from benchmarks.concurrency import Reply, Upload
from benchmarks.load import Arrival, Outcome, main, offer, percentiles, schedule, summarise
from tests.fakes import script
from tests.serving import service

FILES = [Upload("a.wav", b"a"), Upload("b.wav", b"b")]


def test_arrivals_are_poisson_and_repeatable() -> None:
    arrivals = schedule(FILES, rate=50.0, seconds=100.0, seed=3)
    assert arrivals == schedule(FILES, rate=50.0, seconds=100.0, seed=3)
    assert 4600 < len(arrivals) < 5400
    gaps = [b.due - a.due for a, b in itertools.pairwise(arrivals)]
    # An exponential's deviation is its mean; a constant rate would have none.
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.1)
    assert {arrival.file.name for arrival in arrivals} == {"a.wav", "b.wav"}


def test_a_slow_answer_delays_nobody_and_latency_counts_from_when_it_was_due() -> None:
    answered = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if b"a.wav" in await request.aread():
            await asyncio.wait_for(answered.wait(), 30)
        else:
            answered.set()
        return httpx.Response(200, json={"text": "", "duration": 1.0})

    async def run() -> list[Outcome]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://test") as client:
            return await offer(client, [Arrival(0.0, FILES[0]), Arrival(0.2, FILES[1])], {})

    slow, quick = asyncio.run(run())
    assert [outcome.reply.status for outcome in (slow, quick) if outcome.reply] == [200, 200]
    assert slow.latency >= 0.19  # answered after the other one, which came 0.2 s later


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentiles([float(i) for i in range(1, 201)]) == {"p50": 100.0, "p95": 190.0, "p99": 198.0, "max": 200.0}
    assert percentiles([5.0]) == {"p50": 5.0, "p95": 5.0, "p99": 5.0, "max": 5.0}
    assert percentiles([]) == {}


def test_refusals_and_failures_count_against_goodput_only() -> None:
    outcomes = [
        Outcome(Reply(200, "x", 10.0, 1.0), 0.0, 2.0),
        Outcome(Reply(200, "x", 10.0, 1.0), 0.0, 9.0),
        Outcome(Reply(503, "full", 0.0, 0.05), 0.0, 0.05),
        Outcome(None, 0.0, 3.0),
    ]
    result = summarise(outcomes, seconds=10.0, slo_factor=0.5)
    assert result["statuses"] == {"200": 2, "503": 1, "failed": 1}
    assert (result["audio_seconds_per_second"], result["goodput_per_second"]) == (2.0, 0.1)
    assert (result["latency_s"]["max"], result["refusal_s"]["max"]) == (9.0, 0.05)


def test_a_running_service_is_measured_with_a_key(tmp_path, capsys) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(script(seconds=2, window_delay=0.05))
    with service(WHISPER_API_KEYS="key-of-a-test") as server:
        load = [str(file), "--url", server.url, "--rate", "10", "--seconds", "1"]
        assert main(load) == 1  # 401
        capsys.readouterr()
        assert main([*load, "--key", "key-of-a-test"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["statuses"]) == {"200"}
    assert 0.0 < result["first_segment_s"]["p50"] <= result["first_segment_s"]["p99"] < 60.0
    assert result["audio_seconds_per_second"] > 0.0

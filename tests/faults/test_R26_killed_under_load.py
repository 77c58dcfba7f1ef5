"""R26 with the real model: the worker is killed under load, every answer is 200 with the right text or 503."""

import argparse
import asyncio

import pytest

from benchmarks.concurrency import AUDIO, Upload
from benchmarks.kills import measure
from benchmarks.service import running

pytestmark = [pytest.mark.fault, pytest.mark.weights]


def test_r26_real_workers_are_killed_under_load() -> None:
    files = [Upload("en-stereo.flac", (AUDIO / "en-stereo.flac").read_bytes())]
    options = argparse.Namespace(clients=2, kills=2, within_seconds=1.0, seed=1, timeout_seconds=120.0)
    with running(compute_type="float32", drain_notice_seconds=0) as service:
        result = asyncio.run(measure(service, files, options))
        assert service.count("worker_ended") == 2
    assert service.process.returncode == 0
    assert result["wrong"] == []
    assert result["texts_afterwards_equal"]
    assert result["statuses"].keys() <= {"200", "503"}
    assert result["statuses"]["200"] > 0
    assert (
        not result["ready_again_s"] or result["ready_again_s"]["max"] < 30.0
    )  # 10 s on a machine with nothing else to do

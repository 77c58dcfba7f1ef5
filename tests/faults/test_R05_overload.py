"""R05: ten times the load: the accepted keep their deadline, the refused hear at once, nothing grows or falls off.

The server is real, its model is a fake that takes 0.8 s a request and four at a time; `benchmarks/overload.py` does the
same with the real model for a minute.
"""

import argparse
import asyncio

import pytest

from benchmarks.concurrency import Upload
from benchmarks.overload import measure
from benchmarks.service import running
from tests.fakes import script

pytestmark = pytest.mark.fault
DEADLINE_SECONDS = 5.0


def test_r05_ten_times_the_load() -> None:
    files = [Upload("a.wav", script(seconds=1, window_delay=0.8))]
    options = argparse.Namespace(
        times=10.0, seconds=6.0, peak_seconds=2.4, ramp_seconds=1.0, queue=4, seed=0, language="en", slo_factor=1.0
    )
    limits = {"max_queue_requests": 4, "request_timeout_seconds": DEADLINE_SECONDS, "drain_notice_seconds": 0}
    with running("tests.serve_fake", **limits) as service:
        result = asyncio.run(measure(service, files, options))
    assert service.process.returncode == 0
    assert result["statuses"].keys() == {"200", "503"}
    assert result["requests"] > 5 * result["statuses"]["200"]
    assert result["latency_s"]["p99"] < DEADLINE_SECONDS
    assert result["refusal_s"]["p50"] < 0.1
    assert result["refusal_s"]["p99"] < 0.5
    assert result["share_of_peak"] > 0.8
    assert result["server_mib"]["mib_per_100_requests"] < 1.0

"""R26 with real workers: killed under load, every answer is 200 with the right text or 503, and no stream says anything
twice."""

import argparse
import asyncio
import json

import httpx
import pytest

from benchmarks.concurrency import AUDIO, Upload
from benchmarks.kills import measure
from benchmarks.service import running
from tests.serving import real_service
from tests.sounds import float_wav, speechlike

pytestmark = pytest.mark.fault


@pytest.mark.weights
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


def test_r26_a_stream_goes_on_where_the_killed_worker_was(checkpoint):
    sound, asked = float_wav(speechlike(100.0)), {"temperature": "0", "language": "en", "guards": "false"}
    with real_service(checkpoint) as server:
        whole = server.post(sound, data=asked).json()["segments"]
        upload = {"file": ("a.wav", sound)}
        with httpx.stream(
            "POST", f"{server.url}/v1/transcribe",
            files=upload, data={**asked, "stream": "true"}, trust_env=False, timeout=120.0,
        ) as answer:  # fmt: skip
            lines = (line for line in answer.iter_lines() if line.startswith("data: "))
            first = next(lines)
            server.worker().kill()
            told = [json.loads(line.removeprefix("data: ")) for line in (first, *lines)]
        assert server.gauge("whisper_worker_restarts_total") == 1
        done = told.pop()
        assert (done["type"], done["segments"]) == ("transcript.done", whole)
        assert [event["segment"] for event in told] == whole
        assert len({segment["seek"] for segment in whole}) > 2
        server.assert_idle()

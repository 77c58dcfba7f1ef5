"""The sweep: what is counted, where the knee is, and a small one on a running service."""

import json
from typing import Any

import pytest

from benchmarks.sweep import knee, main
from tests.fakes import script
from tests.serving import service


def _point(in_time: float) -> dict[str, Any]:
    return {"in_time": in_time}


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([(0.5, 1.0), (0.1, 0.99), (0.9, 0.95), (1.1, 0.2)], 0.9),
        ([(0.1, 0.96), (0.5, 0.94), (0.9, 0.99)], 0.1),  # a later one in time is luck
        ([(0.1, 0.5)], None),
    ],
)
def test_the_knee_is_the_last_share_before_the_first_that_is_late(shares, expected) -> None:
    assert knee([(share, _point(in_time)) for share, in_time in shares]) == expected


def test_a_running_service_is_swept(tmp_path, capsys) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(script(seconds=2, window_delay=0.05))
    sweep = [str(file), "--concurrency", "2", "--repeat", "4", "--warm-up", "0.3", "--seconds", "0.7"]
    with service() as server:
        assert main([*sweep, "--url", server.url, "--shares", "1", "0.5"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert len(lines) == 4  # the most, two shares, the knee
    assert list(result["points"]) == ["0.5", "1"]
    whole = result["points"]["1"]
    assert whole["rate"] == pytest.approx(result["requests_per_second_at_most"], abs=0.002)
    assert set(whole["statuses"]) == {"200"}
    assert sum(whole["statuses"].values()) < whole["rate"] * 1.0 * 3
    assert list(whole["latency_by_duration_s"]) == ["5"]


def test_a_refusal_in_the_closed_loop_ends_the_sweep_and_names_the_file(tmp_path, capsys) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(script(seconds=2))
    with service(WHISPER_API_KEYS="key-of-a-test") as server:
        assert main([str(file), "--url", server.url, "--key", "another", "--shares", "1", "--seconds", "1"]) == 1
    assert "a.wav: 401" in capsys.readouterr().err

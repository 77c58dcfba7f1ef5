"""How the overload benchmark sums up."""

from benchmarks.concurrency import Reply
from benchmarks.load import Outcome
from benchmarks.overload import done_between, growth, missed


def test_growth_is_by_request() -> None:
    samples = [(float(t), {"server": (100 + t) << 20, "workers": 1 << 20}) for t in range(11)]
    assert growth(samples, "server", 500) == {"first": 100.0, "last": 110.0, "mib_per_100_requests": 2.0}
    assert growth(samples, "workers", 500)["mib_per_100_requests"] == 0.0


def test_throughput_counts_answers_and_not_what_is_ramp_late_or_refused() -> None:
    outcomes = [
        Outcome(Reply(200, "early", 5.0, 1.0), 0.0, 1.0),
        Outcome(Reply(200, "counted", 7.0, 1.0), 0.0, 8.0),
        Outcome(Reply(200, "after the load", 5.0, 1.0), 0.0, 90.0),
        Outcome(Reply(503, "full", 0.0, 0.1), 0.0, 8.0),
        Outcome(None, 0.0, 8.0),
    ]
    assert done_between(outcomes, [0.0, 10.0, 10.0, 10.0, 10.0], 5.0, 60.0) == 7.0


def test_every_bound_can_be_missed() -> None:
    good = {
        "statuses": {"200": 1, "503": 1},
        "latency_s": {"p99": 9.0},
        "refusal_s": {"p99": 0.09},
        "share_of_peak": 0.95,
        "server_mib": {"mib_per_100_requests": 0.5},
    }
    assert missed(good, 10.0) == []
    bad = {
        "statuses": {"200": 1, "504": 1},
        "latency_s": {"p99": 11.0},
        "refusal_s": {"p99": 0.11},
        "share_of_peak": 0.85,
        "server_mib": {"mib_per_100_requests": 1.5},
    }
    assert [len(missed({**good, name: value}, 10.0)) for name, value in bad.items()] == [1] * 5

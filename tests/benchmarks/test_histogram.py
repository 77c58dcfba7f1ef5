import pytest

from benchmarks.histogram import between, buckets

PAGE = """# TYPE h histogram
h_bucket{le="1.0"} 10.0
h_bucket{le="2.0"} 30.0
h_bucket{le="+Inf"} 40.0
h_count 40.0
other_bucket{le="1.0"} 7.0
"""


def test_percentiles_of_a_histogram_are_of_what_came_between_two_scrapes() -> None:
    after = buckets(PAGE, "h")
    assert after == {1.0: 10.0, 2.0: 30.0, float("inf"): 40.0}
    assert between({}, after)["p50"] == pytest.approx(1.5)
    assert between({1.0: 10.0, 2.0: 10.0, float("inf"): 10.0}, after)["p50"] == pytest.approx(1.75)
    assert between({}, after)["p99"] == 2.0  # nothing is known beyond the last bound
    assert between(after, after) == {}

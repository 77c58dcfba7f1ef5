import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import QuotaExceeded, Unavailable
from service.http.admission import Admission, AdmissionLimits, Throughput


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def make(requests=2, upload_bytes=1000, audio_seconds=100.0, key_requests=0, spread=1.0):
    clock = Clock()
    limits = AdmissionLimits(
        requests=requests, upload_bytes=upload_bytes, audio_seconds=audio_seconds, key_requests=key_requests
    )
    return Admission(limits, clock=clock, uniform=lambda low, high: low + (high - low) * (spread - 1.0) / 0.5), clock


def test_as_many_as_the_limit_enter_and_leave():
    admission, _ = make()
    with admission.enter(), admission.enter():
        assert admission.requests == 2
        with pytest.raises(Unavailable):
            admission.enter()
    assert admission.requests == 0
    admission.enter()


def test_everything_is_given_back_once():
    admission, _ = make()
    permit = admission.enter("key")
    permit.hold_bytes(900)
    permit.charge(60.0)
    assert (admission.upload_bytes, admission.audio_seconds) == (900, 60.0)
    permit.release()
    permit.release()
    assert (admission.requests, admission.upload_bytes, admission.audio_seconds) == (0, 0, 0.0)


def test_bytes_follow_the_total_and_are_bounded():
    admission, _ = make()
    with admission.enter() as one, admission.enter() as other:
        one.hold_bytes(400)
        one.hold_bytes(600)
        with pytest.raises(Unavailable):
            other.hold_bytes(401)
        assert admission.upload_bytes == 600
        one.hold_bytes(0)
        other.hold_bytes(1000)
    assert admission.upload_bytes == 0


def test_audio_is_bounded_over_all_requests():
    admission, _ = make()
    with admission.enter() as one, admission.enter() as other:
        one.charge(60.0)
        with pytest.raises(Unavailable) as caught:
            other.charge(40.1)
        assert caught.value.code == "overloaded"
        other.charge(40.0)


def test_a_key_has_its_own_limit():
    admission, _ = make(requests=10, key_requests=1)
    with admission.enter("a"), admission.enter(None), admission.enter(None):
        with pytest.raises(QuotaExceeded):
            admission.enter("a")
        with admission.enter("b"):
            pass
    admission, _ = make(requests=10, key_requests=2)
    with admission.enter("a"), admission.enter("a"):
        with pytest.raises(QuotaExceeded) as caught:
            admission.enter("a")
        assert caught.value.retry_after_seconds == admission.wait_seconds()
        with admission.enter("b"), admission.enter(None), admission.enter(None), admission.enter(None):
            pass
    with admission.enter("a"):
        pass


def test_retry_after_is_the_work_in_the_house_over_the_measured_throughput():
    admission, clock = make(audio_seconds=10_000.0)
    for _ in range(200):
        with admission.enter() as permit:
            permit.charge(10.0)
            clock.now += 5.0
            permit.finish()
    assert admission.throughput.rate == pytest.approx(2.0, rel=0.05)
    with admission.enter() as permit:
        permit.charge(40.0)
        assert admission.wait_seconds() == pytest.approx(20.0, rel=0.05)
        assert 19 <= admission.retry_after(None) <= 22
        with pytest.raises(Unavailable) as refused:
            permit.charge(10_000.0)
        assert refused.value.retry_after_seconds == admission.wait_seconds()
        permit.charge(4000.0)
        assert admission.retry_after(None) == 45
    assert admission.retry_after(None) == 1


def test_throughput_is_assumed_until_it_is_measured_and_a_minute_of_work_halves_what_was_before():
    throughput = Throughput()
    assert throughput.rate == 4.0
    throughput.pass_time(60.0)
    throughput.finish(6000.0)
    assert throughput.rate == pytest.approx(100.0, rel=0.02)
    throughput.pass_time(60.0)
    assert throughput.rate == pytest.approx(3000.0 / (30.0 + 60.0), rel=0.02)


def test_the_wait_grows_while_nothing_gets_done():
    admission, clock = make()
    with admission.enter() as permit:
        permit.charge(40.0)
        assert admission.wait_seconds() == 10.0
        clock.now += 30.0
        assert admission.wait_seconds() > 100.0


def test_failed_work_is_no_throughput():
    admission, clock = make()
    for _ in range(50):
        with admission.enter() as permit:
            permit.charge(10.0)
            clock.now += 10.0
    assert admission.throughput.rate < 0.1


def test_idle_time_says_nothing_about_throughput():
    admission, clock = make()
    for _ in range(50):
        with admission.enter() as permit:
            permit.charge(10.0)
            clock.now += 5.0
            permit.finish()
    busy = admission.throughput.rate
    clock.now += 3600.0
    admission.enter().release()
    assert admission.throughput.rate == busy
    clock.now += 3600.0
    with admission.enter() as permit:
        permit.charge(10.0)
        clock.now += 5.0
        permit.finish()
    assert admission.throughput.rate == pytest.approx(busy, rel=0.02)


@pytest.mark.parametrize(("done", "counted"), [(None, 60.0), (20.0, 20.0), (90.0, 60.0), (0.0, 0.0)])
def test_what_was_worked_off_is_throughput_but_no_more_than_was_charged(done, counted):
    admission, _ = make()
    with admission.enter() as permit:
        permit.charge(60.0)
        permit.finish(done)
    assert admission.throughput.rate == 4.0 + counted


def test_the_audio_of_those_who_stay_is_counted_when_one_leaves():
    admission, _ = make()
    with admission.enter() as one, admission.enter() as other:
        one.charge(60.0)
        other.charge(40.0)
        one.release()
        assert admission.audio_seconds == 40.0
        with pytest.raises(Unavailable):
            other.charge(60.1)
    assert admission.audio_seconds == 0.0


@pytest.mark.parametrize(
    ("wait", "first", "last"),
    [(0.0, 1, 3), (0.3, 1, 3), (1.5, 2, 3), (5, 5, 8), (30, 30, 45), (44.2, 45, 60), (60.0, 45, 60), (1e9, 45, 60)],
)
def test_retry_after_is_spread_whatever_the_wait(wait, first, last):
    """At both ends too: who is told the least, or the most, does not return with all others."""
    admission = Admission(make()[0].limits, uniform=random.Random(0).uniform)
    told = Counter(admission.retry_after(wait) for _ in range(4000))
    assert set(told) == set(range(first, last + 1))
    assert max(told.values()) < 1.6 * 4000 / len(told)
    for spread, edge in ((1.0, first), (1.5, last)):
        assert make(spread=spread)[0].retry_after(wait) == edge


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 600), st.floats(0, 80), st.booleans()), max_size=60))
def test_sums_never_pass_a_limit_and_an_empty_house_is_empty(actions):
    admission, clock = make(requests=3, key_requests=2)
    held, waits = [], []
    for choice, size, seconds, finish in actions:
        clock.now += 1.0
        try:
            if choice < 3:
                permit = admission.enter("ab"[choice % 2] if choice else None)
                held.append(permit)
                permit.hold_bytes(size)
                permit.charge(seconds)
            elif held:
                permit = held.pop(size % len(held))
                if finish:
                    permit.finish()
                permit.release()
        except (Unavailable, QuotaExceeded) as refusal:
            waits.append(admission.retry_after(refusal.retry_after_seconds))
        assert admission.requests == len(held) <= 3
        assert 0 <= admission.upload_bytes <= 1000
        assert 0 <= admission.audio_seconds <= 100.0 + 1e-6
    for permit in held:
        permit.release()
    assert all(1 <= wait <= 60 for wait in waits)
    assert (admission.requests, admission.upload_bytes, admission.audio_seconds) == (0, 0, 0.0)

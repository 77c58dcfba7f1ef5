"""The targets of `make fuzz` over what they begin with: R10 and R13 hold there, and what is wrong is noticed."""

from types import ModuleType

import numpy as np
import pytest

from model.audio import Waveform, decode_audio
from tests.fuzz import audio, form
from tests.fuzz.__main__ import TARGETS, is_codecs_own


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found_in_the_seeds_nor_in_parts_of_them(name: str) -> None:
    target: ModuleType = TARGETS[name]
    for seed in target.seeds():
        for data in (seed, seed[: len(seed) // 2], seed[:-1], seed[len(seed) // 3 :], b""):
            target.check(data)


def test_the_seeds_are_what_they_should_be() -> None:
    for seed in audio.seeds():
        assert decode_audio(seed, audio.LIMITS).duration > 0
    bodies = [form._outcome(seed[2 : 2 + seed[1]], seed[2 + seed[1] :], seed[0] + 1) for seed in form.seeds()]
    assert 0 < bodies.count(None) < len(bodies)


def test_a_reader_whose_outcome_depends_on_the_pieces_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = form.FormReader.feed

    def forgetful(reader: form.FormReader, data: bytes) -> None:
        feed(reader, data if len(data) != 7 else b"1234567")

    monkeypatch.setattr(form.FormReader, "feed", forgetful)
    with pytest.raises(AssertionError):
        list(map(form.check, form.seeds()))


def test_what_a_reader_raises_but_a_refusal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form.FormReader, "finish", lambda reader: {}["x"])
    with pytest.raises(KeyError):
        form.check(form.seeds()[0])


@pytest.mark.parametrize(
    "samples", [np.array([2.0], np.float32), np.array([np.nan], np.float32), np.zeros(0, np.int16)]
)
def test_sound_that_breaks_its_bounds_is_found(samples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "decode_audio", lambda data, limits: Waveform(samples))
    with pytest.raises(AssertionError):
        audio.check(b"")


def test_a_crash_in_c_is_told_from_what_python_raises() -> None:
    assert is_codecs_own("==1== ERROR: libFuzzer: deadly signal")
    assert not is_codecs_own(" === Uncaught Python exception: ===\nKeyError\n==1== ERROR: libFuzzer: deadly signal")
    assert not is_codecs_own("==1== ERROR: libFuzzer: timeout after 21 seconds")

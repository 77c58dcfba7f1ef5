import os

import pytest

from service.children.quarantine import Quarantine, fingerprint
from service.wire import memory


def test_what_is_held_is_held_for_its_time_and_asked_again_from_then_on() -> None:
    held = Quarantine(seconds=10.0)
    held.add(b"a", 0.0)
    held.add(b"b", 5.0)
    assert (held.holds(b"a", 9.9), held.holds(b"b", 9.9), held.holds(b"c", 9.9)) == (True, True, False)
    held.add(b"a", 9.9)
    assert not held.holds(b"b", 15.0)
    assert (held.holds(b"a", 19.8), len(held)) == (True, 1)
    assert (held.holds(b"a", 19.9), len(held)) == (False, 0)


def test_the_oldest_makes_room() -> None:
    held = Quarantine(max_entries=2)
    for now, waveform in enumerate((b"a", b"b", b"a", b"c")):
        held.add(waveform, float(now))
    assert [held.holds(waveform, 4.0) for waveform in (b"a", b"b", b"c")] == [True, False, True]


def test_what_is_removed_is_not_held() -> None:
    held = Quarantine()
    held.add(b"a", 0.0)
    held.remove(b"a")
    held.remove(b"unknown")
    assert (held.holds(b"a", 0.0), len(held)) == (False, 0)


@pytest.mark.parametrize("size", [1, 1024 * 1024, 1024 * 1024 + 1, 3_000_000])
def test_a_fingerprint_is_of_every_byte(size: int) -> None:
    prints = set()
    for change in (None, 0, size // 2, size - 1):
        content = bytearray(size)
        if change is not None:
            content[change] = 1
        fd = memory.create("waveform")
        memory.write_all(fd, bytes(content))
        prints.add(fingerprint(fd))
        assert fingerprint(fd) in prints
        os.close(fd)
    assert len(prints) == 1 + len({0, size // 2, size - 1})

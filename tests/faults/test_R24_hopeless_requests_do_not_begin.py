"""R24: a request that waits and has too little time left is shed with its deadline's error, and is not begun."""

from typing import Any

import pytest

from service.wire.messages import Failed, Finished, Message
from service.worker.engine import Engine
from tests import tiny
from tests.engines import make_engine, request_of, submit

pytestmark = pytest.mark.fault
TURN = 0.1
"""Seconds of the simulated clock."""


class Timed:
    """An engine whose turns all take the same time."""

    def __init__(self) -> None:
        self.engine: Engine = make_engine(tiny.transcriber(), rows=2)
        self.now = 50.0

    def ask(self, name: str, left: float | None, seconds: float = 5.0, **options: Any) -> None:
        deadline = None if left is None else self.now + left
        assert not submit(self.engine, request_of(name, seconds, deadline, **options), now=self.now)

    def finish(self) -> list[Message]:
        messages: list[Message] = []
        while self.engine.busy:
            messages += self.engine.iterate(self.now)
            self.now += TURN
        return messages


@pytest.fixture
def experienced() -> Timed:
    """It knows that 5 s take five turns and more."""
    timed = Timed()
    for number in range(5):
        timed.ask(str(number), None)
        timed.finish()
    return timed


def test_r24_who_has_too_little_time_left_is_not_begun(experienced) -> None:
    encodes = experienced.engine.stats.encodes
    experienced.ask("hopeless", 3 * TURN)
    (failed,) = experienced.finish()
    assert isinstance(failed, Failed)
    assert (failed.request_id, failed.code) == ("hopeless", "deadline_exceeded")
    assert experienced.engine.stats.encodes == encodes


def test_r24_it_is_shed_while_it_waits_and_who_can_make_it_is_served(experienced) -> None:
    for name in ("one", "two"):
        experienced.ask(name, None, seconds=60.0)
    experienced.engine.iterate(experienced.now)
    experienced.engine.iterate(experienced.now)
    experienced.ask("patient", 1000 * TURN)
    experienced.ask("soon", 10 * TURN)
    asked = experienced.now
    failed = []
    while not failed:
        failed = [m for m in experienced.engine.iterate(experienced.now) if isinstance(m, Failed)]
        experienced.now += TURN
    assert [m.request_id for m in failed] == ["soon"]
    assert experienced.now - TURN - asked < 9.5 * TURN, "before its deadline"
    assert {m.request_id for m in experienced.finish() if isinstance(m, Finished)} >= {"patient", "one", "two"}


def test_r24_nobody_is_shed_by_a_worker_that_has_done_nothing_yet() -> None:
    timed = Timed()
    timed.ask("first", 3 * TURN)
    (failed,) = [m for m in timed.finish() if isinstance(m, Failed)]
    assert failed.code == "deadline_exceeded"
    assert timed.engine.stats.encodes == 1


def test_r24_what_is_decoded_side_by_side_is_not_taken_for_long(experienced) -> None:
    experienced.ask("in turn", 20 * TURN, seconds=150.0)
    encodes = experienced.engine.stats.encodes
    experienced.finish()
    assert experienced.engine.stats.encodes == encodes
    experienced.ask("in parts", 20 * TURN, seconds=150.0, long_form="batched")
    experienced.finish()
    assert experienced.engine.stats.encodes > encodes

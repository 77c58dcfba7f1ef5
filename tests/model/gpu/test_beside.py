"""The order of calls on a second stream, without a GPU."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from model.gpu.beside import Inline, SideStream


def test_inline_is_done_at_once() -> None:
    result, ticket = Inline().run(lambda: 7)
    assert (result, ticket.done) == (7, True)
    ticket.join()


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """What is asked of `torch.cuda`, in order."""
    noted: list[str] = []
    main = SimpleNamespace(
        wait_event=lambda event: noted.append(f"main waits for {event.name}"),
        wait_stream=lambda stream: noted.append("main waits for side" if stream is side else "?"),
    )
    side = SimpleNamespace(wait_stream=lambda stream: noted.append("side waits for main" if stream is main else "?"))
    event = SimpleNamespace(
        name="event", record=lambda stream: noted.append("record" if stream is side else "?"), query=lambda: False
    )

    @contextmanager
    def stream(chosen):
        noted.append("side" if chosen is side else "?")
        yield
        noted.append("/side")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    return noted


def test_work_begins_behind_what_was_launched_and_is_awaited_by_the_device_only(calls) -> None:
    beside = SideStream(torch.device("cuda", 0))
    result, ticket = beside.run(lambda: calls.append("work"))
    assert result is None
    assert calls == ["side waits for main", "side", "work", "record", "/side"]
    assert not ticket.done
    ticket.join()
    assert calls[-1] == "main waits for event"


def test_work_that_raises_raises(calls) -> None:
    with pytest.raises(ZeroDivisionError):
        SideStream(torch.device("cuda", 0)).run(lambda: 1 / 0)
    assert "record" not in calls
    assert calls[-1] == "main waits for side"  # what it launched still reads what is freed now

from pathlib import Path

import pytest

from service.wire import process


@pytest.mark.parametrize(
    ("page", "kills"),
    [("pgfault 7\noom_kill 3\noom_kill_disable 9\n", 3), ("pgfault 7\n", None), (None, None)],
)
def test_kills_for_memory_are_read_or_not_known(tmp_path, monkeypatch, page, kills) -> None:
    file = tmp_path / "vmstat"
    if page is not None:
        file.write_text(page)
    monkeypatch.setattr(process, "Path", lambda path: file if path == "/proc/vmstat" else Path(path))
    assert process.oom_kills() == kills


def test_this_process_has_memory() -> None:
    assert process.resident_bytes() > 1_000_000


@pytest.mark.parametrize(
    ("status", "before", "now", "answer"),
    [(-9, 3, 3, True), (-9, 3, 4, False), (-9, None, None, False), (-11, 3, 3, False), (1, 3, 3, False)],
)
def test_only_a_kill_that_was_not_for_memory_is_murder(monkeypatch, status, before, now, answer) -> None:
    monkeypatch.setattr(process, "oom_kills", lambda: now)
    assert process.murdered(status, before) == answer

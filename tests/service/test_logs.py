import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from unittest import mock

import pytest

from service import logs
from tests.serving import ROOT


@pytest.fixture
def lines(monkeypatch, tmp_path):
    """Configure logging into a file; gives a function that reads the lines."""
    path = tmp_path / "log"
    stream = path.open("w")
    monkeypatch.setattr(sys, "stderr", stream)
    root, ours = logging.getLogger(), logging.getLogger("service")
    kept, levels = root.handlers[:], (root.level, ours.level)
    logs.configure("info")

    def read() -> list[dict[str, object]]:
        root.handlers[0].flush()
        return [json.loads(line) for line in path.read_text("ascii").split("\n")[:-1]]

    yield read
    root.handlers[0].close()
    stream.close()
    root.handlers[:] = kept
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def test_only_listed_keys_come_out(lines):
    logs.event("request", request_id="abc", status=200, text="secret", filename="secret", prompt="secret", key="secret")
    (line,) = lines()
    assert line["event"] == "request"
    assert (line["request_id"], line["status"]) == ("abc", 200)
    assert "secret" not in json.dumps(line)
    assert {"time", "level", "event", "request_id", "status"} == set(line)


def test_a_logger_of_the_package_may_be_used_directly(lines):
    logging.getLogger("service.children.audio_pool").warning(
        "audio child ended", extra={"exit_status": -9, "filename_": "secret"}
    )
    (line,) = lines()
    assert (line["event"], line["exit_status"], line["level"]) == ("audio child ended", -9, "warning")
    assert "secret" not in json.dumps(line)


def test_the_list_holds_nothing_of_the_content():
    assert not logs.KEYS & {
        "text",
        "prompt",
        "filename",
        "file",
        "query",
        "key",
        "authorization",
        "ip",
        "client",
        "path",
    }


def test_control_characters_are_escaped_and_values_bounded(lines):
    logs.event("request", detail="a\nb\x1b[31m\u2028" + "x" * 10_000)
    (line,) = lines()
    assert len(line["detail"]) == 500
    assert str(line["detail"]).startswith("a\nb\x1b")


def test_an_exception_shows_type_and_place_but_no_words(lines):
    from service.http.field_values import number

    try:
        number("secret", "secret words")
    except Exception as error:
        logs.event("internal_error", level=logging.ERROR, error=error)
    (line,) = lines()
    assert line["exception"] == "BadRequest"
    assert line["where"].startswith("service.http.field_values:")
    assert "secret" not in json.dumps(line)


def test_below_the_level_nothing_is_written(lines):
    logs.event("request", level=logging.DEBUG)
    assert lines() == []


def test_libraries_speak_through_the_same_format(lines):
    try:
        raise ValueError("secret")
    except ValueError:
        logging.getLogger("asyncio").exception("secret %s", "words")
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application: secret")
    logging.getLogger("uvicorn.error").error("address already in use")
    logging.getLogger("uvicorn.error").info("Uvicorn running")
    logging.getLogger("uvicorn.access").warning("GET /secret")
    logging.getLogger("python_multipart.multipart").warning("secret")
    first, second, third = lines()
    assert (first["logger"], first["exception"]) == ("asyncio", "ValueError")
    assert "message" not in first
    assert second["exception"] == "ValueError"
    assert third["message"] == "address already in use"
    assert "secret" not in json.dumps(lines())


LINES = (
    "import sys; from service import logs; logs.configure('info'); [logs.event('x') for _ in range({})]; sys.exit(3)"
)


def ended(log: int, lines: int) -> int:
    """The exit status of a process that logs so many lines there."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", LINES.format(lines)]
    return subprocess.run(command, stderr=log, cwd=ROOT, env=environment, check=False, timeout=60).returncode


def test_a_log_that_nobody_reads_any_more_leaves_the_exit_status_alone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        assert ended(gone.fileno(), 1) == 3


def test_a_log_whose_reader_has_stopped_holds_up_nobody_nor_the_end() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"), os.fdopen(writer, "wb") as unread:
        assert ended(unread.fileno(), 2_000) == 3


def test_what_is_logged_last_is_written_before_the_end(tmp_path) -> None:
    with (tmp_path / "log").open("w") as log:
        assert ended(log.fileno(), 2_000) == 3
    assert len((tmp_path / "log").read_text().splitlines()) == 2_000


def test_without_standard_error_there_is_no_log() -> None:
    command = f'exec "{sys.executable}" -c "{LINES.format(1)}" 2>&-'
    assert subprocess.run(["sh", "-c", command], cwd=ROOT, check=False).returncode == 3


@pytest.mark.usefixtures("lines")
def test_without_a_thread_for_it_whoever_logs_writes(monkeypatch, tmp_path) -> None:
    stream = (tmp_path / "direct").open("w+")
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(threading, "Thread", mock.Mock(side_effect=RuntimeError("can't start new thread")))
    logs.configure("info")
    logs.event("x")
    stream.seek(0)
    assert json.loads(stream.read())["event"] == "x"
    stream.close()


def test_lines_that_find_no_room_are_counted_when_there_is_some() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    full = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            full += os.write(writer, b" ")
    os.set_blocking(writer, True)
    with os.fdopen(reader, "rb") as read, os.fdopen(writer, "wb"):
        log = logs.Writer(writer, waiting_lines=3)
        log.setFormatter(logs.JsonFormatter())
        said = [logging.makeLogRecord({"name": "service", "msg": "said"})] * 10
        for record in said:
            log.handle(record)
        read.read(full)
        log.flush()
        log.handle(said[0])
        log.close()
        log.flush()
        os.set_blocking(reader, False)
        events = [(line["event"], line.get("count")) for line in map(json.loads, read)]
    lost = next(count for event, count in events if event == "log_lines_lost")
    assert lost >= 6  # one may be on its way, and three wait
    assert events == [("said", None)] * (10 - lost) + [("log_lines_lost", lost), ("said", None)]

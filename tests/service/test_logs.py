import io
import json
import logging
import os
import subprocess
import sys

import pytest

from service import logs
from tests.serving import ROOT


@pytest.fixture
def lines(monkeypatch):
    """Configure logging into a string; gives a function that reads the lines."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root, ours = logging.getLogger(), logging.getLogger("service")
    kept, levels = root.handlers[:], (root.level, ours.level)
    logs.configure("info")

    def read() -> list[dict[str, object]]:
        assert stream.getvalue().isascii()
        return [json.loads(line) for line in stream.getvalue().split("\n")[:-1]]

    yield read
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
    from service.http.fields import _number

    try:
        _number("secret", "secret words")
    except Exception as error:
        logs.event("internal_error", level=logging.ERROR, error=error)
    (line,) = lines()
    assert line["exception"] == "BadRequest"
    assert line["where"].startswith("service.http.fields:")
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


def test_a_log_that_nobody_reads_any_more_leaves_the_exit_status_alone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    lines = "import sys; from service import logs; logs.configure('info'); logs.event('x'); logs.end(); sys.exit(3)"
    with os.fdopen(writer, "wb") as gone:
        ended = subprocess.run([sys.executable, "-c", lines], stderr=gone, cwd=ROOT, env=environment, check=False)
    assert ended.returncode == 3

"""JSON lines on standard error, from an allow-list of keys.

Everybody logs through `event`, or a `service.*` logger with `extra`; what is not on the list does not come out, so a
transcript, a prompt, a file name, a query string, a key or an address cannot leak through a careless call. `json`
escapes control characters. Exceptions appear as their type and the places in our own packages that they passed, never
as a message or a traceback: a message may quote the caller's input. Libraries' loggers go through the same formatter.
"""

import contextlib
import json
import logging
import os
import queue
import sys
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

KEYS: Final = frozenset(
    {
        "request_id", "trace_id", "job_id", "key_id", "endpoint", "status", "code", "param", "stage", "bytes",
        "audio_seconds", "language", "task", "response_format", "segments", "receive_seconds", "decode_seconds",
        "queue_seconds", "inference_seconds", "total_seconds", "state", "model", "device", "compute_type",
        "encoder_context", "cross_kv", "decoder", "max_rows", "steps",
        "host", "port", "pid", "version", "variable", "reason", "detail", "in_flight", "restarts", "auth", "docs",
        "exception", "where", "seconds", "signal", "exit_status", "count", "request_ids",
        "held", "missing",
    }
)  # fmt: skip
"""What a line may hold besides time, level and event."""

_OURS: Final = frozenset({"service", "model"})
_SPOKEN_LIBRARY: Final = "uvicorn.error"
_MAX_VALUE_CHARACTERS: Final = 500
_MAX_PLACES: Final = 8
_MAX_WAITING_LINES: Final = 10_000
_FLUSH_SECONDS: Final = 1.0

logger = logging.getLogger("service")


def event(name: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """Log one line called `name`; `error` adds its type and the places it passed."""
    if logger.isEnabledFor(level):
        exc_info = (type(error), error, error.__traceback__) if error is not None else None
        logger.log(level, name, extra={"fields": fields}, exc_info=exc_info)


def places(trace: TracebackType | None) -> str:
    """Where an exception passed in our packages, innermost first: `service.http.upload:88 < service.http.jobs:40`."""
    found = [
        f"{module}:{line}"
        for frame, line in traceback.walk_tb(trace)
        if (module := str(frame.f_globals.get("__name__", ""))).partition(".")[0] in _OURS
    ]
    return " < ".join(reversed(found[-_MAX_PLACES:]))


class JsonFormatter(logging.Formatter):
    """One JSON object a line; keys outside `KEYS` are left out."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line of ASCII."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        if record.name.partition(".")[0] == logger.name:
            line["event"] = _bounded(record.getMessage())
            fields = {**vars(record), **getattr(record, "fields", {})}
            line.update({key: _bounded(value) for key, value in fields.items() if key in KEYS and value is not None})
        else:
            line["event"] = "library"
            line["logger"] = record.name
            if record.name == _SPOKEN_LIBRARY and not record.exc_info:
                line["message"] = _bounded(record.getMessage())
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["where"] = places(record.exc_info[2])
        return json.dumps(line, default=str)


def _bounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    return value[:_MAX_VALUE_CHARACTERS] if isinstance(value, str) else value


class Writer(logging.Handler):
    """Lines to a descriptor, by a thread of its own: whoever reads there may be slow, or stop, and holds up nobody.

    What finds no room among the lines that wait is lost; how many were is said as soon as there is some.
    """

    def __init__(self, fd: int, waiting_lines: int = _MAX_WAITING_LINES) -> None:
        """`RuntimeError` where no thread can be started."""
        super().__init__()
        self._fd = fd
        self._waiting: queue.Queue[str | None] = queue.Queue(waiting_lines)
        self._lost = 0
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record in its turn."""
        try:
            line = self.format(record)
            if self._lost:
                self._waiting.put_nowait(self.format(_lines_lost(self._lost)))
                self._lost = 0
            self._waiting.put_nowait(line)
        except queue.Full:
            self._lost += 1
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until everything is written, but not for who does not read. Python does so at its end."""
        with self._waiting.all_tasks_done:
            self._waiting.all_tasks_done.wait_for(lambda: not self._waiting.unfinished_tasks, _FLUSH_SECONDS)

    def close(self) -> None:
        """End the thread, once it has written what waits."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        super().close()

    def _run(self) -> None:
        while (line := self._waiting.get()) is not None:
            with contextlib.suppress(OSError):  # the terminal was closed, the reader of a pipe is gone, a disk is full
                _write(self._fd, f"{line}\n".encode("ascii"))
            self._waiting.task_done()
        self._waiting.task_done()


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _lines_lost(count: int) -> logging.LogRecord:
    known = {"name": logger.name, "levelno": logging.WARNING, "levelname": "WARNING", "fields": {"count": count}}
    return logging.makeLogRecord({"msg": "log_lines_lost", **known})


def _handler() -> logging.Handler:
    """Of standard error, where there is one; without a thread for it whoever logs writes."""
    if sys.stderr is None:
        return logging.NullHandler()
    try:
        return Writer(sys.stderr.fileno())
    except RuntimeError:
        return logging.StreamHandler(sys.stderr)


def configure(level: str) -> None:
    """Send every logger of the process through the formatter; libraries speak from `warning` on."""
    handler = _handler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
    logger.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        library = logging.getLogger(name)
        library.handlers[:] = []
        library.propagate = name != "uvicorn.access"
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

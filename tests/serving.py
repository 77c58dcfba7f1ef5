"""Ways for a test to reach the service: in this process over ASGI, or a real process over raw sockets."""

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import httpx
import psutil
from fastapi import FastAPI

from service.http.app import create_app
from service.settings import Settings
from tests.fakes import FakeAudioPool, FakeWorkerPool

P = ParamSpec("P")
ROOT = Path(__file__).resolve().parent.parent
BOUNDARY = "frontier"


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine test in its own event loop."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def make_settings(**values: Any) -> Settings:
    """Settings for a test, whatever the environment holds."""
    return Settings(**{"drain_notice_seconds": 0.0, **values})


def make_app(
    audio: FakeAudioPool | None = None, workers: FakeWorkerPool | None = None, **settings: Any
) -> tuple[FastAPI, FakeAudioPool, FakeWorkerPool]:
    """An application on fakes."""
    audio, workers = audio or FakeAudioPool(), workers or FakeWorkerPool()
    return create_app(make_settings(**settings), audio, workers), audio, workers


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The application started, with a client to it; it may not be ready yet."""
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://test") as c:
        yield c


@contextlib.asynccontextmanager
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The application started and ready, with a client to it."""
    async with lifespan(app) as c:
        async with asyncio.timeout(5):
            while (await c.get("/readyz")).status_code != 200:  # noqa: ASYNC110  it is a server
                await asyncio.sleep(0.01)
        yield c


def form(upload: bytes = b"sound", /, **fields: str) -> bytes:
    """A multipart body with a file and fields, for raw requests with `BOUNDARY`."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'.encode()
    return b"".join([*parts, head, upload, f"\r\n--{BOUNDARY}--\r\n".encode()])


def request_head(length: int | None, path: str = "/v1/transcribe", *headers: str, method: str = "POST") -> bytes:
    """The head of a raw request; `length` None announces a chunked body."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    lines = [f"{method} {path} HTTP/1.1", "Host: test", size, kind, *headers, "", ""]
    return "\r\n".join(lines).encode()


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next answer on a raw connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65_536)
        if not more:
            raise ConnectionError(f"closed after {len(data)} bytes of an answer")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        more = connection.recv(65_536)
        if not more:
            break
        body += more
    return int(status_line.split()[1]), headers, body


class ServiceProcess:
    """The service with fakes (`tests.serve_fake`) as a real process; all that it writes, its log, goes to a file."""

    def __init__(self, *arguments: str, module: str = "tests.serve_fake", **environment: str) -> None:
        self._log = tempfile.NamedTemporaryFile(mode="w+b")  # noqa: SIM115  closed by stop
        variables = {k: v for k, v in os.environ.items() if not k.startswith("WHISPER_")}
        variables |= {"WHISPER_PORT": "0", "WHISPER_DRAIN_NOTICE_SECONDS": "0", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        self.port = 0

    def log(self) -> list[dict[str, Any]]:
        """The log so far, line by line."""
        return [json.loads(line) for line in self.log_text().splitlines(keepends=True) if line.endswith("\n")]

    def log_text(self) -> str:
        return Path(self._log.name).read_text()

    def wait_listening(self, seconds: float = 15.0) -> None:
        def port() -> int:
            return next((line["port"] for line in self.log() if line["event"] == "listening"), 0)

        wait_until(lambda: port() != 0 or self.process.poll() is not None, seconds)
        self.port = port()
        assert self.port, self.log()

    def wait_ready(self, seconds: float = 15.0) -> None:
        self.wait_listening(seconds)
        wait_until(lambda: self.get("/readyz").status_code == 200, seconds)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout: float = 10.0) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10.0, trust_env=False, verify=False, **options)

    def post(self, upload: bytes = b"sound", path: str = "/v1/transcribe", **options: Any) -> httpx.Response:
        options.setdefault("timeout", 120.0)  # a busy machine may be that slow
        return httpx.post(self.url + path, files={"file": ("a.wav", upload)}, trust_env=False, verify=False, **options)

    def gauge(self, name: str, **options: Any) -> float:
        """The value of an unlabelled metric."""
        for line in self.get("/metrics", **options).text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise KeyError(name)

    def assert_idle(self, seconds: float = 5.0, **options: Any) -> None:
        """Every gauge of what is in progress goes back to zero."""
        gauges = (
            "whisper_queue_requests",
            "whisper_queue_upload_bytes",
            "whisper_queue_audio_seconds",
            "whisper_in_flight_requests",
            "whisper_audio_children_busy",
        )
        wait_until(lambda: all(self.gauge(name, **options) == 0.0 for name in gauges), seconds)

    def children(self) -> list[psutil.Process]:
        """Its child processes: audio children and model workers."""
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def worker(self) -> psutil.Process:
        """Its only model worker."""
        (worker,) = [child for child in self.children() if "--model" in child.cmdline()]
        return worker

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self._log.close()


@contextlib.contextmanager
def service(*arguments: str, **environment: str) -> Iterator[ServiceProcess]:
    """A ready service process."""
    process = ServiceProcess(*arguments, **environment)
    try:
        process.wait_ready()
        yield process
    finally:
        process.stop()


@contextlib.contextmanager
def real_service(
    model: str | Path = "base", *, module: str = "service", **environment: str
) -> Iterator[ServiceProcess]:
    """The service as it is, on a real model worker of one thread and real audio children; nothing is left of it."""
    worker = {"WHISPER_MODEL": str(model), "WHISPER_DEVICES": "cpu", "WHISPER_THREADS_PER_WORKER": "1"}
    worker["WHISPER_COMPUTE_TYPE"] = "float32"  # what the tests compare with
    process = ServiceProcess(module=module, **worker | environment)
    try:
        process.wait_ready(90.0)
        yield process
    finally:
        children = process.children() if process.process.poll() is None else []
        process.stop()
        psutil.wait_procs(children, 5.0)
        assert not [child for child in children if child.is_running()]


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Poll until `condition` holds; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer, after checking that it is the one error body."""
    assert response.status_code == status, response.text
    return check_error_body(response.json())


def check_error_body(body: dict[str, Any]) -> dict[str, Any]:
    assert set(body) == {"error", "request_id"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def statuses(responses: Sequence[httpx.Response]) -> list[int]:
    return sorted(response.status_code for response in responses)


def open_descriptors() -> int:
    """File descriptors that this process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))

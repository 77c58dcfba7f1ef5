"""The publisher's download, against a loopback server and scripted answers: whole and right, or nothing."""

import hashlib
import http.server
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from model.errors import WeightsError
from model.weights.download import download
from model.weights.registry import DownloadSource

CONTENT = bytes(range(256)) * 40_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SOURCE = DownloadSource(f"https://publisher.invalid/{SHA256}/small.pt", SHA256)


class Publisher(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT and understands ranges; breaks off each answer after `limit` bytes, once `may_break` is set."""

    limit = len(CONTENT)
    ranges: list[str | None]
    may_break = threading.Event()
    may_break.set()

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + self.limit])
        self.may_break.wait()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def publisher() -> Iterator[tuple[type[Publisher], DownloadSource]]:
    handler = type("OnePublisher", (Publisher,), {"ranges": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield handler, DownloadSource(f"http://127.0.0.1:{server.server_port}/{SHA256}/small.pt", SHA256)
        finally:
            server.shutdown()
            thread.join()


def whole(content: bytes = CONTENT, status: int = 200, **headers: str) -> httpx.Response:
    """An answer that can be streamed once, as from a network."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, stream=httpx.ByteStream(content))


def left_in(folder: Path) -> list[str]:
    """What a download leaves, but for its empty lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".small.pt.lock")


def answers(*responses: httpx.Response | Exception) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A transport that gives these answers in turn, and the requests that it saw."""
    requests: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        response = responses[min(len(requests), len(responses)) - 1]
        if isinstance(response, Exception):
            raise response
        return response

    return httpx.MockTransport(handle), requests


class Broken(httpx.SyncByteStream):
    """Some bytes, then a lost connection."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __iter__(self) -> Iterator[bytes]:
        if self.data:
            yield self.data
        raise httpx.ReadError("connection reset")


def refused(source: DownloadSource, folder: Path, transport: httpx.BaseTransport) -> str:
    pauses: list[float] = []
    with pytest.raises(WeightsError) as caught:
        download(source, folder, transport=transport, pause=pauses.append)
    assert left_in(folder) == []
    return str(caught.value)


def test_a_whole_file_arrives_under_its_name(tmp_path: Path, publisher: tuple[type[Publisher], DownloadSource]) -> None:
    handler, source = publisher
    path = download(source, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "small.pt"
    assert path.read_bytes() == CONTENT
    assert left_in(path.parent) == ["small.pt"]
    assert handler.ranges == [None]


def test_a_broken_connection_is_taken_up_where_it_stopped(
    tmp_path: Path, publisher: tuple[type[Publisher], DownloadSource]
) -> None:
    handler, source = publisher
    handler.limit = len(CONTENT) // 3
    pauses: list[float] = []
    path = download(source, tmp_path, pause=pauses.append)
    assert path.read_bytes() == CONTENT
    assert handler.ranges[0] is None
    assert all(asked is not None for asked in handler.ranges[1:])
    assert pauses == [2.0, 4.0, 8.0][: len(handler.ranges) - 1]
    assert len(handler.ranges) > 1


def test_what_came_over_a_connection_that_breaks_every_time_is_kept_for_the_next_attempt(
    tmp_path: Path, publisher: tuple[type[Publisher], DownloadSource]
) -> None:
    handler, source = publisher
    handler.limit = 1000
    with pytest.raises(WeightsError, match=r"small\.pt: cannot be fetched from http://127"):
        download(source, tmp_path, pause=lambda _: None)
    assert handler.ranges == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-"]
    assert left_in(tmp_path) == [".small.pt.part"]
    handler.limit = len(CONTENT)
    assert download(source, tmp_path).read_bytes() == CONTENT
    assert handler.ranges[4:] == ["bytes=4000-"]
    assert left_in(tmp_path) == ["small.pt"]


def test_a_download_goes_on_where_a_killed_process_was(
    tmp_path: Path, publisher: tuple[type[Publisher], DownloadSource]
) -> None:
    handler, source = publisher
    handler.limit, handler.may_break = len(CONTENT) // 2, threading.Event()
    program = "import sys; from pathlib import Path; from model.weights.download import *; "
    program += "download(DownloadSource(*sys.argv[1:3]), Path(sys.argv[3]))"
    part = tmp_path / ".small.pt.part"
    with subprocess.Popen([sys.executable, "-c", program, source.url, source.sha256, str(tmp_path)]) as process:
        while process.poll() is None and not (part.exists() and part.stat().st_size):
            time.sleep(0.01)
        process.kill()
    handler.may_break.set()
    handler.limit, came = len(CONTENT), part.stat().st_size
    assert download(source, tmp_path).read_bytes() == CONTENT
    assert handler.ranges == [None, f"bytes={came}-"]


def test_a_full_disk_is_told_and_what_it_held_is_gone_on_with(
    tmp_path: Path, publisher: tuple[type[Publisher], DownloadSource]
) -> None:
    handler, source = publisher
    _, most = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, most))
    try:
        with pytest.raises(WeightsError, match=r"small\.pt: cannot be written \(File too large\)"):
            download(source, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert download(source, tmp_path).read_bytes() == CONTENT
    assert handler.ranges == [None, f"bytes={1 << 20}-"]


def test_a_server_without_ranges_starts_over(tmp_path: Path) -> None:
    transport, requests = answers(httpx.Response(200, stream=Broken(CONTENT[:99])), whole())
    assert download(SOURCE, tmp_path, transport=transport, pause=lambda _: None).read_bytes() == CONTENT
    assert requests[1].headers["Range"] == "bytes=99-"


@pytest.mark.parametrize("status", [206, 416])
def test_a_server_that_resumes_elsewhere_is_asked_from_the_start(tmp_path: Path, status: int) -> None:
    (tmp_path / ".small.pt.part").write_bytes(CONTENT[:99])
    transport, requests = answers(whole(b"0123456789", status, Content_Range="bytes 0-9/10"), whole())
    assert download(SOURCE, tmp_path, transport=transport).read_bytes() == CONTENT
    assert [request.headers.get("Range") for request in requests] == ["bytes=99-", None]


@pytest.mark.parametrize("status", [206, 416])
def test_a_part_of_what_nobody_asked_a_part_of_is_refused(tmp_path: Path, status: int) -> None:
    transport, requests = answers(whole(status=status, Content_Range="bytes 0-9/10"))
    assert f"status {status}" in refused(SOURCE, tmp_path, transport)
    assert len(requests) == 1


@pytest.mark.parametrize("status", [404, 503])
def test_a_refusal_takes_nothing_of_what_came_before(tmp_path: Path, status: int) -> None:
    part = tmp_path / ".small.pt.part"
    part.write_bytes(CONTENT[:99])
    for answer in (whole(b"no", status), httpx.ConnectError("Name or service not known")):
        transport, requests = answers(answer)
        with pytest.raises(WeightsError):
            download(SOURCE, tmp_path, transport=transport)
        assert part.read_bytes() == CONTENT[:99]
        assert len(requests) == 1


def test_a_whole_file_without_its_name_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / ".small.pt.part").write_bytes(CONTENT)
    transport, requests = answers(httpx.ConnectError("no network"))
    assert download(SOURCE, tmp_path, transport=transport).read_bytes() == CONTENT
    assert left_in(tmp_path) == ["small.pt"]
    assert requests == []


def test_a_wrong_beginning_is_not_gone_on_with_twice(
    tmp_path: Path, publisher: tuple[type[Publisher], DownloadSource]
) -> None:
    _, source = publisher
    (tmp_path / ".small.pt.part").write_bytes(b"\1" + CONTENT[1:99])
    assert "SHA-256" in refused(source, tmp_path, httpx.HTTPTransport())
    assert download(source, tmp_path).read_bytes() == CONTENT


def test_a_redirect_is_followed(tmp_path: Path) -> None:
    moved = httpx.Response(302, headers={"Location": "https://mirror.invalid/small.pt"})
    transport, requests = answers(moved, whole())
    assert download(SOURCE, tmp_path, transport=transport).read_bytes() == CONTENT
    assert requests[1].url.host == "mirror.invalid"


@pytest.mark.parametrize("length", ["", "many", "-1"])
def test_an_odd_content_length_does_no_harm(tmp_path: Path, length: str) -> None:
    transport, _ = answers(whole(Content_Length=length))
    assert download(SOURCE, tmp_path, transport=transport).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"\0", b"", b"\1" + CONTENT[1:]], ids=len)
def test_wrong_content_is_refused_and_removed(tmp_path: Path, content: bytes) -> None:
    transport, _ = answers(whole(content))
    message = refused(SOURCE, tmp_path, transport)
    assert hashlib.sha256(content).hexdigest() in message
    assert SHA256 in message


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_refusal_of_the_server_names_its_status(tmp_path: Path, status: int) -> None:
    transport, requests = answers(whole(b"no", status))
    assert f"answered with status {status}" in refused(SOURCE, tmp_path, transport)
    assert len(requests) == 1


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("Name or service not known"), httpx.ConnectTimeout(""), httpx.ReadTimeout("slow")]
)
def test_an_unreachable_server_is_tried_once(tmp_path: Path, error: Exception) -> None:
    transport, requests = answers(error)
    assert type(error).__name__ in refused(SOURCE, tmp_path, transport)
    assert len(requests) == 1


def test_endless_redirects_end(tmp_path: Path) -> None:
    transport, _ = answers(httpx.Response(302, headers={"Location": SOURCE.url}))
    assert "TooManyRedirects" in refused(SOURCE, tmp_path, transport)


def test_an_endless_answer_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.weights.download._MAX_BYTES", 1000)
    transport, _ = answers(whole())
    assert "more than 1000 bytes" in refused(SOURCE, tmp_path, transport)


def test_a_file_that_another_process_fetched_meanwhile_is_taken(tmp_path: Path) -> None:
    (tmp_path / "small.pt").write_bytes(CONTENT)
    transport, requests = answers(httpx.ConnectError("no network"))
    assert download(SOURCE, tmp_path, transport=transport) == tmp_path / "small.pt"
    assert requests == []


def test_several_at_once_fetch_it_once(tmp_path: Path, publisher: tuple[type[Publisher], DownloadSource]) -> None:
    handler, source = publisher
    threads = [threading.Thread(target=download, args=(source, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert handler.ranges == [None]
    assert left_in(tmp_path) == ["small.pt"]


def test_what_is_longer_than_the_file_is_overwritten(
    tmp_path: Path, publisher: tuple[type[Publisher], DownloadSource]
) -> None:
    handler, source = publisher
    (tmp_path / ".small.pt.part").write_bytes(b"\0" * (len(CONTENT) + 5))
    assert download(source, tmp_path).read_bytes() == CONTENT
    assert handler.ranges == [f"bytes={len(CONTENT) + 5}-", None]
    assert left_in(tmp_path) == ["small.pt"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    transport, _ = answers(whole())
    with pytest.raises(WeightsError, match=r"small\.pt: cannot be written \("):
        download(SOURCE, tmp_path / "file", transport=transport)


def test_progress_is_drawn_only_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    length = str(len(CONTENT))
    transport, _ = answers(whole(Content_Length=length), whole(Content_Length=length))
    download(SOURCE, tmp_path / "quiet", transport=transport)
    assert capsys.readouterr().err == ""
    download(SOURCE, tmp_path / "loud", transport=transport, show_progress=True)
    assert "small.pt: 100%" in capsys.readouterr().err
    (tmp_path / ".small.pt.part").write_bytes(CONTENT[:-1])
    range_ = f"bytes {len(CONTENT) - 1}-{len(CONTENT) - 1}/{len(CONTENT)}"
    transport, _ = answers(whole(CONTENT[-1:], 206, Content_Range=range_))
    download(SOURCE, tmp_path, transport=transport, show_progress=True)
    assert "small.pt: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("HTTPS_PROXY", "ftp://127.0.0.1:1"),
        ("HTTPS_PROXY", "http://[::1"),
        ("SSL_CERT_FILE", "/nowhere/certificates.pem"),
    ],
)
def test_a_proxy_or_certificates_of_no_use_are_named(tmp_path, monkeypatch, variable, value) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(WeightsError, match="proxy or certificate settings"):
        download(SOURCE, tmp_path)

"""Fetches one checkpoint from its publisher into a folder: whole and with the right hash, or not at all.

The bytes go to a hidden file beside the target, hashed as they come, and get their name by a rename once the hash is
right and the disk has them. A connection that breaks is taken up where it stopped, a few times; what came stays for the
next process, which may be that of a worker whose time to start was over. Processes that want the same file at once wait
for the first of them by a file lock.
"""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from io import BufferedRandom
from pathlib import Path

import httpx
from tqdm import tqdm

from model.errors import WeightsError
from model.weights.registry import DownloadSource

_TIMEOUT = httpx.Timeout(60.0, connect=15.0)
_ATTEMPTS = 4
_MAX_BYTES = 4 << 30
"""More than the largest published checkpoint: an endless answer does not fill the disk."""


class _Partial:
    """The bytes that have come so far, those of earlier processes among them, on disk and in the hash."""

    def __init__(self, file: BufferedRandom, bar: "tqdm[None]") -> None:
        self.file = file
        self.bar = bar
        file.seek(0)
        self.digest = hashlib.file_digest(file, "sha256")
        self.size = bar.n = bar.initial = file.tell()
        self.received = 0
        """Of them, the bytes that this process received."""

    def restart(self, total: int | None) -> None:
        """Forget what came; `total` bytes are announced."""
        self.file.seek(0)
        self.file.truncate()
        self.digest = hashlib.sha256()
        self.size = 0
        self.bar.reset(total)

    def add(self, block: bytes) -> None:
        self.file.write(block)
        self.digest.update(block)
        self.size += len(block)
        self.received += len(block)
        self.bar.update(len(block))


def download(
    source: DownloadSource,
    folder: Path,
    *,
    show_progress: bool = False,
    transport: httpx.BaseTransport | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """Fetch the file and return its path in `folder` (made if absent).

    Raises `WeightsError` when the publisher cannot be reached, refuses, or sends other content than the hash says;
    what came is then kept in a hidden file, unless it is wrong, and the next call goes on from there. `transport` and
    `pause` (seconds) replace the network and the clock in tests.
    """
    target = folder / source.filename
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            if not target.is_file():
                with _client(source, transport) as client:
                    _fetch_to(target, client, source, show_progress, pause)
    except OSError as error:
        raise WeightsError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target


def _client(source: DownloadSource, transport: httpx.BaseTransport | None) -> httpx.Client:
    """A client with the environment's proxies and certificates; `WeightsError` where those cannot be used."""
    try:
        return httpx.Client(transport=transport, timeout=_TIMEOUT, follow_redirects=True)
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        reason = f"the environment's proxy or certificate settings cannot be used: {error}"
        raise WeightsError(f"{source.filename}: cannot be fetched ({reason})") from error


def _fetch_to(
    target: Path,
    client: httpx.Client,
    source: DownloadSource,
    show_progress: bool,
    pause: Callable[[float], None],
) -> None:
    path = target.with_name(f".{target.name}.part")
    try:
        with path.open("a+b") as file:
            with tqdm(disable=not show_progress, unit="B", unit_scale=True, desc=target.name) as bar:
                partial = _Partial(file, bar)
                # A process may have been killed when all was there but the name.
                if partial.digest.hexdigest() != source.sha256:
                    _fetch(client, source, partial, pause)
            if (sha256 := partial.digest.hexdigest()) != source.sha256:
                file.truncate(0)
                raise WeightsError(
                    f"{target.name}: {source.url} sent content with SHA-256 {sha256}, "
                    f"expected {source.sha256}; nothing was kept"
                )
            file.flush()
            os.fsync(file.fileno())
            path.replace(target)
        _sync(target.parent)
    finally:
        if path.is_file() and path.stat().st_size == 0:
            path.unlink()


def _fetch(client: httpx.Client, source: DownloadSource, partial: _Partial, pause: Callable[[float], None]) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _receive(client, source, partial)
            return
        except httpx.TransportError as error:
            # With no byte received there is most likely no network: say so at once.
            if attempt == _ATTEMPTS or partial.received == 0:
                raise WeightsError(_unreachable(source, partial, error)) from error
            pause(float(1 << attempt))
        except httpx.HTTPError as error:
            raise WeightsError(_unreachable(source, partial, error)) from error


def _receive(client: httpx.Client, source: DownloadSource, partial: _Partial) -> None:
    """Receive the file, or what is still missing of it."""
    # No content coding: lengths and ranges count the bytes of the file itself.
    headers = {"Accept-Encoding": "identity"}
    if partial.size:
        headers["Range"] = f"bytes={partial.size}-"
    with client.stream("GET", source.url, headers=headers) as response:
        if response.status_code == 200:
            partial.restart(_number(response.headers.get("Content-Length", "")))
            _take(response, source, partial)
            return
        if not partial.size or response.status_code not in (206, 416):
            raise WeightsError(f"{source.filename}: {source.url} answered with status {response.status_code}")
        place, _, total = response.headers.get("Content-Range", "").partition("/")
        if response.status_code == 206 and place.startswith(f"bytes {partial.size}-"):
            partial.bar.total = _number(total)
            _take(response, source, partial)
            return
    # What is there is longer than the file, or the server means other bytes than those that are missing.
    partial.restart(None)
    _receive(client, source, partial)


def _take(response: httpx.Response, source: DownloadSource, partial: _Partial) -> None:
    """The content of an answer, in blocks as they come: gathering them would lose the last ones when it breaks."""
    for block in response.iter_raw():
        if partial.size + len(block) > _MAX_BYTES:
            partial.restart(None)
            raise WeightsError(f"{source.filename}: {source.url} sends more than {_MAX_BYTES} bytes")
        partial.add(block)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _unreachable(source: DownloadSource, partial: _Partial, error: Exception) -> str:
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    kept = f"the first {partial.size} bytes are kept for the next attempt" if partial.size else "nothing was kept"
    return f"{source.filename}: cannot be fetched from {source.url} ({reason}); {kept}"


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the right to fetch `target`, against every other process of this machine."""
    with target.with_name(f".{target.name}.lock").open("wb") as lock:
        # Closing the file, or the process's end in any way, gives the lock back.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sync(folder: Path) -> None:
    """Make the rename durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

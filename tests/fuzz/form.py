"""What `tests.fuzz.target` asks of `service.http.multipart`: any body is read or refused, the same in any pieces."""

import contextlib
import logging
import os

from service.errors import BadRequest
from service.http.multipart import MAX_FIELD_BYTES, MAX_PARTS, Form, FormReader, boundary_of
from service.wire import memory
from tests.serving import BOUNDARY, form

MAX_BYTES = 12_000
"""Enough for headers that are too long; a longer body in single bytes takes too much of the time."""
_LISTS = ("hotwords",)
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # as in the service


def seeds() -> list[bytes]:
    """Inputs: a byte that says how long the pieces are, less one, the boundary's length, the boundary, and the body."""
    delimiter = f"--{BOUNDARY}".encode()
    bodies = [
        form(b"sound"),
        form(b"RIFF\r\n--fron\r\n", task="translate", hotwords="a", language="de"),
        form(b"", prompt="x" * 100) + b"epilogue",
        b"preamble\r\n" + form(b"\0" * 50),
        b"\r\nno end of line" + form(b"a"),
        form(b"a") + form(b"b"),
        form(b"a").replace(b'"file"', b'"hotwords[]"').replace(b'; filename="a.wav"', b"") * 2,
        form(b"a").replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\nX: \r\n\r\n"),
        delimiter + b"\r\nContent-Disposition: form-data; name*=utf-8''a%20b\r\n\r\n\xff\xfe\r\n" + delimiter + b"--",
        delimiter * 3 + b"--\r\n",
    ]
    boundary = BOUNDARY.encode()
    return [bytes([piece, len(boundary)]) + boundary + body for body in bodies for piece in (0, 1, 6)]


def check(data: bytes) -> None:
    """Raises what is a finding."""
    if len(data) < 2:
        return
    piece, size = data[0], data[1] % 80
    boundary, body = data[2 : 2 + size], data[2 + size :]
    with contextlib.suppress(BadRequest):
        boundary = boundary_of(b'multipart/form-data; boundary="' + boundary + b'"')
        whole, pieces = _outcome(boundary, body, len(body) or 1), _outcome(boundary, body, piece + 1)
        assert whole == pieces, (whole, pieces)


def _outcome(boundary: bytes, body: bytes, step: int) -> tuple[dict[str, str], bytes] | None:
    """The fields and the file; None for a form that is refused: of several reasons another may come first."""
    with Form(_LISTS) as read:
        try:
            reader = FormReader(boundary, read)
            for start in range(0, len(body), step):
                reader.feed(body[start : start + step])
            reader.finish()
            fd = read.fd
        except BadRequest:
            return None
        assert len(read.fields) < MAX_PARTS
        assert sum(map(len, read.fields.values())) <= MAX_FIELD_BYTES * MAX_PARTS
        assert os.fstat(fd).st_size == read.file_bytes <= len(body)
        return read.fields, bytes(memory.read_all(fd))

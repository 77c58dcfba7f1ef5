"""One multipart/form-data body, in pieces: the file goes to anonymous memory, the other fields stay small.

Sits on python-multipart's tokenizer (RFC 2046, RFC 7578) and bounds what that leaves open: number and size of parts,
part headers, preamble, epilogue. Strict where clients agree: one `file` with a name and with content, no field twice
that is no list, no transfer encoding. Knows nothing of HTTP or of which fields mean something.
"""

import os
import re
from collections.abc import Collection
from types import TracebackType
from typing import Self

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import BadRequest
from service.wire import memory

FILE_FIELD = "file"
MAX_PARTS = 64
MAX_FIELD_BYTES = 32 * 1024
MAX_PART_HEADER_BYTES = 8 * 1024
MAX_FRAME_BYTES = 1024
"""Bytes outside the parts: before the first, after the last."""
MAX_NAME_CHARACTERS = 100
_SLICE_BYTES = 64 * 1024
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_EXTENDED_FILENAME = re.compile(rb";\s*filename\*\s*=\s*[^;\s]", re.IGNORECASE)
"""RFC 7578 has none in forms (section 4.2), but older clients send it in place of a name that is not ASCII."""
_PLAIN_ENCODINGS = frozenset({b"", b"7bit", b"8bit", b"binary"})


def boundary_of(content_type: bytes) -> bytes:
    """The boundary that a Content-Type announces; `BadRequest` if there is none that RFC 2046 allows."""
    _, parameters = parse_options_header(content_type.decode("latin-1"))
    boundary = parameters.get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise BadRequest("The Content-Type has no usable multipart boundary.")
    return boundary


class Form:
    """A received form; leaving the `with` block gives the file's memory back."""

    def __init__(self, lists: Collection[str] = ()) -> None:
        self.fields: dict[str, str] = {}
        """Text by name; several texts of one name are joined by commas."""
        self.lists = lists
        """Names that may come more than once, beside those in `[]`, as clients send a list."""
        self.file_bytes = 0
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The file's descriptor; `BadRequest` when no file came, or an empty one."""
        if self._fd is None:
            raise BadRequest("The form has no file.", param=FILE_FIELD)
        if not self.file_bytes:
            raise BadRequest("The file is empty.", param=FILE_FIELD)
        return self._fd

    def open_file(self) -> None:
        """Begin the file; `BadRequest` for a second one."""
        if self._fd is not None:
            raise BadRequest("The form has more than one file.", param=FILE_FIELD)
        self._fd = memory.create("upload")

    def append(self, data: bytes) -> None:
        """More of the file."""
        if self._fd is not None:
            memory.write_all(self._fd, data)
            self.file_bytes += len(data)

    def close(self) -> None:
        """Give the memory back; more than once does nothing."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FormReader:
    """Feed it the body, then `finish` it; either raises `BadRequest`. The form belongs to the caller throughout."""

    def __init__(self, boundary: bytes, form: Form) -> None:
        self._form = form
        self._delimiter = b"\r\n--" + boundary
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._part_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
            max_header_size=2 * _SLICE_BYTES,  # it is counted here, all headers of a part together
        )
        self._parts = 0
        self._delimiters = 0
        self._frame_bytes = 0
        self._begun = False
        self._preamble = b""
        self._tail = b""
        """The last bytes that were fed: a boundary may come in two pieces."""
        self._ended = False
        self._begin_headers()

    def feed(self, data: bytes) -> None:
        """The next piece of the body, of any size."""
        for start in range(0, len(data), _SLICE_BYTES):
            self._feed_slice(data[start : start + _SLICE_BYTES])

    def finish(self) -> None:
        """The body is over; `BadRequest` if the form is not."""
        if not self._ended:
            raise BadRequest("The multipart body ends before its closing boundary.")

    def _feed_slice(self, data: bytes) -> None:
        if self._ended:
            self._count_frame(len(data))
            return
        if not self._begun:
            data = self._from_first_delimiter(data)
        seen = self._tail + data
        # A delimiter that is no line of its own is not allowed in a part, and costs the tokenizer a detour each.
        self._delimiters += data.count(self._delimiter)
        if self._delimiters > MAX_PARTS + 1:
            raise BadRequest(f"The form has more than {MAX_PARTS} parts.")
        try:
            self._parser.write(data)
        except FormParserError:
            raise BadRequest("The multipart body is malformed.") from None
        if self._ended:
            self._count_frame(self._behind_last_part(seen))
        self._tail = seen[-len(self._delimiter + b"--\r\n") :]

    def _count_frame(self, size: int) -> None:
        self._frame_bytes += size
        if self._frame_bytes > MAX_FRAME_BYTES:
            raise BadRequest("The multipart body has too much outside its parts.")

    def _from_first_delimiter(self, data: bytes) -> bytes:
        """The body from the first line on that is one, once that has come; what precedes it says nothing.

        The tokenizer knows no preamble, but passes over one that begins with an end of line and comes in one piece.
        Source: RFC 2046, section 5.1.1.
        """
        self._preamble += data
        preamble, delimiter, behind = (b"\r\n" + self._preamble).partition(self._delimiter)
        if delimiter or len(preamble) >= MAX_FRAME_BYTES + len(b"\r\n" + self._delimiter):
            self._count_frame(len(preamble))
        if delimiter:
            self._begun, self._preamble = True, b""
        return delimiter[2:] + behind

    def _behind_last_part(self, seen: bytes) -> int:
        """Bytes behind the closing boundary, which stands in what was `seen`."""
        closing = self._delimiter + b"--"
        _, _, behind = seen.partition(closing if closing in seen else closing[2:])
        return len(behind)

    def _begin_headers(self) -> None:
        self._header_bytes = 0
        self._name = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._field: str | None = None
        self._content = bytearray()

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BadRequest(f"The form has more than {MAX_PARTS} parts.")
        self._begin_headers()

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_PART_HEADER_BYTES:
            raise BadRequest("A part's headers are too long.")

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._count_header(4)
        name = bytes(self._name).lower()
        if name in self._headers:
            raise BadRequest("A part has the same header twice.")
        self._headers[name] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        kind, options = parse_options_header(disposition.decode("latin-1"))
        if kind != b"form-data" or b"name" not in options:
            raise BadRequest("A part has no form-data name.")
        encoding = self._headers.get(b"content-transfer-encoding", b"").strip().lower()
        if encoding not in _PLAIN_ENCODINGS:
            raise BadRequest("Transfer encodings inside the form are not supported.")
        name = _text(options[b"name"], "The name of a field")
        if len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
            raise BadRequest("The name of a field is too long or not printable.")
        if name == FILE_FIELD:
            if not options.get(b"filename") and not _EXTENDED_FILENAME.search(disposition):
                raise BadRequest("The file must be sent as a file, with a file name.", param=FILE_FIELD)
            self._form.open_file()
        elif b"filename" in options:
            raise BadRequest(f"Only the field '{FILE_FIELD}' takes a file.", param=name)
        elif name in self._form.fields and not (name in self._form.lists or name.endswith("[]")):
            raise BadRequest(f"The field '{name}' comes twice.", param=name)
        self._field = name

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field == FILE_FIELD:
            self._form.append(data[start:end])
            return
        self._content += data[start:end]
        if len(self._content) > MAX_FIELD_BYTES:
            raise BadRequest(f"The field '{self._field}' is longer than {MAX_FIELD_BYTES} bytes.", param=self._field)

    def _end_part(self) -> None:
        if self._field is not None and self._field != FILE_FIELD:
            text = _text(bytes(self._content), f"The field '{self._field}'", self._field)
            before = self._form.fields.get(self._field)
            self._form.fields[self._field] = text if before is None else f"{before},{text}"

    def _end(self) -> None:
        self._ended = True


def _text(data: bytes, what: str, param: str | None = None) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest(f"{what} is not UTF-8.", param=param) from None

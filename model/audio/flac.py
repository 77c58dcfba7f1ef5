"""Is a FLAC file one recording, and does its head agree with its frames? libsndfile believes the first head.

Asked by `model.audio.decode`, which reads joined files (`cat a.flac b.flac`) one by one, for each may have another rate
and other channels, and leaves a file that contradicts itself to FFmpeg: that one believes the frames.
Source: RFC 9639, sections 8.2 (streaminfo) and 9.1 (frame header).
"""

import os
import re
from dataclasses import dataclass
from typing import BinaryIO

from model.audio.readers import MAX_LINKS, UnreadableError

_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_TAIL_BYTES = 128 * 1024
"""Where the last frames are sought; what lies behind them may be a tag."""
_MAX_FRAMES = 200
"""So many of the last are looked at: a joined file may consist of what looks like frames."""
_RATES = (0, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
_MAX_HEADER_BYTES = 16
_START = re.compile(rb"fLaC[\0\x80]\0\0\x22")
"""The marker and the head of the first block of metadata, which has one kind and one size; not by chance in sound."""
_START_BYTES = 8
_SEARCH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a frame's header states: one past its last sample, and its rate in Hz, 0 where that is the head's."""

    end: int
    rate: int


def links(file: BinaryIO) -> list[tuple[int, int]]:
    """First byte and byte after the last of each recording; the whole file where it is one. Moves the position.

    `UnreadableError` for one in more pieces than recordings are.
    """
    starts, at, seen = [0], 0, b""
    file.seek(0)
    while piece := file.read(_SEARCH_BYTES):
        seen += piece
        starts += [start for match in _START.finditer(seen) if (start := at + match.start()) > 0]
        if len(starts) > MAX_LINKS:
            raise UnreadableError(f"The FLAC file is in more than {MAX_LINKS} pieces.")
        at, seen = at + len(seen) - _START_BYTES + 1, seen[1 - _START_BYTES :]
    return list(zip(starts, [*starts[1:], file.tell()], strict=True))


def contradicts_itself(file: BinaryIO) -> bool:
    """Whether a frame near the end lies behind the stated count, or has another rate; the position is left anywhere.

    Bytes that look like a frame by chance do no harm: whoever is asked then reads the file as well.
    """
    file.seek(0)
    head = file.read(42)
    if len(head) < 42 or head[:4] != b"fLaC" or head[4] & 0x7F:
        return False
    block, facts = int.from_bytes(head[10:12], "big"), int.from_bytes(head[18:26], "big")
    rate, total = facts >> 44, facts & (1 << 36) - 1
    file.seek(max(len(head), file.seek(0, os.SEEK_END) - _TAIL_BYTES))
    tail = file.read()
    starts = [match.start() for match in _SYNC.finditer(tail)][-_MAX_FRAMES:]
    frames = (_frame(tail[start : start + _MAX_HEADER_BYTES], block) for start in starts)
    return any(frame and (0 < total < frame.end or frame.rate not in (0, rate)) for frame in frames)


def _frame(header: bytes, block: int) -> _Frame | None:
    """The frame that this header begins, or None; `block` is the head's block size, by which frames are counted."""
    if len(header) < 7 or header[3] >> 4 > 10 or header[3] & 1 or header[3] & 14 == 6:
        return None
    size_code, rate_code, ones = header[2] >> 4, header[2] & 15, _leading_ones(header[4])
    if size_code == 0 or rate_code == 15 or ones in (1, 8):
        return None
    at = 4 + max(ones, 1)
    number = header[4] & (0x7F >> ones)
    for byte in header[5:at]:
        number = number << 6 | byte & 0x3F
    size_bytes = {6: 1, 7: 2}.get(size_code, 0)
    rate_bytes = {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    size, rate = header[at : at + size_bytes], header[at + size_bytes : (end := at + size_bytes + rate_bytes)]
    if end >= len(header) or _crc(header[:end]) != header[end]:
        return None
    samples = int.from_bytes(size, "big") + 1 if size else 192 if size_code == 1 else _standard_size(size_code)
    start = number if header[1] & 1 else number * block
    return _Frame(start + samples, _RATES[rate_code] if rate_code < 12 else _stated_rate(rate_code, rate))


def _standard_size(code: int) -> int:
    return 576 << code - 2 if code < 6 else 256 << code - 8


def _stated_rate(code: int, value: bytes) -> int:
    return int.from_bytes(value, "big") * {12: 1000, 13: 1, 14: 10}[code]


def _leading_ones(byte: int) -> int:
    return 8 - (byte ^ 0xFF).bit_length()


def _crc(data: bytes) -> int:
    """CRC-8 with the polynomial x^8 + x^2 + x + 1."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x107 if crc & 0x80 else 0)) & 0x1FF
    return crc & 0xFF

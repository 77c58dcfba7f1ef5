"""R15: a file that refers to other files or to the network is 400; nothing else is opened, and no packet is sent."""

import ctypes
import io
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model.audio import decode_audio
from model.audio.containers import Container
from model.audio.ffmpeg import AvReader
from model.audio.quicktime import refers_elsewhere
from model.audio.readers import UnreadableError
from model.errors import InvalidAudioError
from tests.sounds import ffmpeg, sndfile, speechlike

pytestmark = pytest.mark.fault

IN_OPEN = 0x20


@contextmanager
def watched(path: Path) -> Iterator[object]:
    """Yields a function that tells whether the file has been opened by anyone since."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert fd >= 0
    assert libc.inotify_add_watch(fd, os.fsencode(path), IN_OPEN) >= 0

    def opened() -> bool:
        try:
            return bool(os.read(fd, 4_096))
        except BlockingIOError:
            return False

    try:
        yield opened
    finally:
        os.close(fd)


@contextmanager
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def references(path: Path, port: int) -> dict[str, bytes]:
    url = f"http://127.0.0.1:{port}/speech.wav"
    return {
        "m3u8 of a file": f"#EXTM3U\n#EXTINF:10,\n{path}\n#EXT-X-ENDLIST\n".encode(),
        "m3u8 of a url": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n".encode(),
        "concat of a file": f"ffconcat version 1.0\nfile '{path}'\n".encode(),
        "concat of a url": f"ffconcat version 1.0\nfile '{url}'\n".encode(),
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio {port} RTP/AVP 0\n".encode(),
        "asx": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>'.encode(),
        "pls": f"[playlist]\nFile1={url}\nNumberOfEntries=1\n".encode(),
        "mpd": f'<?xml version="1.0"?><MPD><BaseURL>{url}</BaseURL></MPD>'.encode(),
        "a file's name": str(path).encode(),
        "concat: protocol": f"concat:{path}|{path}".encode(),
        "file: protocol": f"file:{path}".encode(),
        "mov that keeps its sound elsewhere": mov_with_reference(path),
        "mkv with an attachment": ffmpeg(
            speechlike(0.5, 48_000), 48_000, "matroska", "libopus", attachment=f"#EXTM3U\n{path}\n".encode()
        ),
    }


def mov_with_reference(path: Path) -> bytes:
    """A QuickTime file whose data reference box points at another file (ISO/IEC 14496-12, 8.7.2)."""
    file = ffmpeg(speechlike(0.5), 16_000, "mov", "pcm_s16le")
    at = file.find(b"dref") - 4
    (size,) = struct.unpack(">I", file[at : at + 4])
    target = b"file://" + os.fsencode(path) + b"\0"
    entry = struct.pack(">I", 12 + len(target)) + b"url \0\0\0\0" + target
    box = struct.pack(">I", 16 + len(entry)) + b"dref" + struct.pack(">II", 0, 1) + entry
    grown = len(box) - size
    result = file[:at] + box + file[at + size :]
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):  # the boxes around it grow with it
        place = result.find(name) - 4
        (length,) = struct.unpack(">I", result[place : place + 4])
        result = result[:place] + struct.pack(">I", length + grown) + result[place + 4 :]
    return result


def test_R15_nothing_else_is_opened_or_reached(tmp_path: Path) -> None:
    target = tmp_path / "speech.wav"
    target.write_bytes(sndfile(speechlike(0.5), 16_000, "WAV"))
    with listener() as server, watched(target) as opened:
        for name, file in references(target, server.getsockname()[1]).items():
            with pytest.raises(InvalidAudioError):
                decode_audio(file)
            assert not opened(), name  # type: ignore[operator]
            with pytest.raises(BlockingIOError):
                server.accept()
        target.read_bytes()
        assert opened()  # type: ignore[operator]  # the watch does see an opening


@pytest.mark.parametrize("demuxer", ["hls", "concat", "sdp", "rtsp", "image2", "lavfi"])
def test_R15_a_demuxer_that_follows_references_is_held_even_if_it_were_reached(demuxer: str, tmp_path: Path) -> None:
    """The second wall: were such a container ever identified, FFmpeg itself may open nothing."""
    target = tmp_path / "speech.wav"
    target.write_bytes(sndfile(speechlike(0.5), 16_000, "WAV"))
    with listener() as server, watched(target) as opened:
        for file in references(target, server.getsockname()[1]).values():
            source = tmp_path / "upload"
            source.write_bytes(file)
            with pytest.raises(UnreadableError), source.open("rb") as upload:
                AvReader(upload, Container("forged", demuxer))
            assert not opened()  # type: ignore[operator]
        with pytest.raises(BlockingIOError):
            server.accept()


def test_R15_a_file_that_refers_to_itself_is_decoded() -> None:
    file = ffmpeg(speechlike(0.5), 16_000, "mov", "pcm_s16le")
    assert not refers_elsewhere(io.BytesIO(file))
    assert decode_audio(file).duration == 0.5


def test_R15_boxes_that_lie_about_their_size_end_the_search() -> None:
    for size in (0, 1, 7, 2**32 - 1):
        box = struct.pack(">I", size) + b"moov" + struct.pack(">I", size) + b"trak"
        assert not refers_elsewhere(io.BytesIO(box * 50))


def test_R15_nothing_hides_behind_however_many_boxes(tmp_path: Path) -> None:
    file, boxes = mov_with_reference(tmp_path), (struct.pack(">I", 8) + b"free") * 200_000
    with pytest.raises(InvalidAudioError, match="in another file"):
        decode_audio(boxes + file)
    own = ffmpeg(speechlike(0.5), 16_000, "mov", "pcm_s16le")
    assert decode_audio(boxes[: 8 * 20_000] + own).duration == 0.5

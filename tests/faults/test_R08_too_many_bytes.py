"""R08: one byte too many, however announced, is 413; nonsense is 400; no more than the limit and 64 KiB is read."""

import contextlib
import socket

import pytest

from tests.serving import BOUNDARY, ServiceProcess, check_error_body, form, read_answer, request_head, service

pytestmark = pytest.mark.fault
LIMIT = 100_000
SLACK = 64 * 1024


@pytest.fixture(scope="module")
def server():
    with service(WHISPER_MAX_UPLOAD_BYTES=str(LIMIT)) as process:
        yield process
        process.assert_idle()
        assert not [line for line in process.log() if line.get("exception")]


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def sized(size: int) -> bytes:
    """A form of exactly `size` bytes."""
    return form(b"x" * (size - len(form(b""))))


def ask(server: ServiceProcess, *pieces: bytes) -> tuple[int, bytes]:
    with server.connect() as connection:
        for piece in pieces:
            connection.sendall(piece)
        status, _, body = read_answer(connection)
    return status, body


def test_r08_exactly_the_limit_is_taken(server):
    body = sized(LIMIT)
    assert ask(server, request_head(LIMIT), body)[0] == 200
    assert ask(server, request_head(None), chunk(body), b"0\r\n\r\n")[0] == 200


def test_r08_one_byte_over_is_refused_before_the_body_when_announced(server):
    status, body = ask(server, request_head(LIMIT + 1))
    assert status == 413
    assert b'"too_large"' in body


def test_r08_one_byte_over_is_refused_in_a_chunked_body(server):
    assert ask(server, request_head(None), chunk(sized(LIMIT + 1)), b"0\r\n\r\n")[0] == 413


def test_r08_an_endless_chunked_body_is_refused_within_64_kib_of_the_limit(server):
    piece, sent = b"x" * 4096, 0
    with server.connect() as connection:
        start = form()[: -len(f"\r\n--{BOUNDARY}--\r\n")]
        connection.sendall(request_head(None) + chunk(start))
        connection.settimeout(0.01)
        data = b""
        while not data:
            assert sent <= LIMIT + SLACK, "the refusal did not come"
            connection.sendall(chunk(piece))
            sent += len(piece)
            with contextlib.suppress(TimeoutError):
                data = connection.recv(65_536)
    assert data.startswith(b"HTTP/1.1 413")


def test_r08_a_length_that_lies_low_is_a_broken_form(server):
    status, body = ask(server, request_head(len(form()) - 20), form())
    assert status == 400
    assert b'"error"' in body


@pytest.mark.parametrize("length", ["-1", "-100000", "1e3", "0x10", "12, 13", "", "9" * 40, "१२"])
def test_r08_a_length_that_is_no_number_is_refused_in_our_body(server, length):
    head = request_head(7).replace(b"Content-Length: 7", f"Content-Length: {length}".encode())
    status, body = ask(server, head)
    assert status in (400, 413)
    assert b'{"error"' in body


def test_r08_two_lengths_are_refused(server):
    head = request_head(7).replace(b"Content-Length: 7", b"Content-Length: 7\r\nContent-Length: 8")
    assert ask(server, head)[0] == 400


@pytest.mark.parametrize("garbage", [b"zz\r\nhello\r\n", b"-5\r\nhello\r\n", b"5\r\nhelloXX5\r\n"])
def test_r08_broken_chunks_are_refused(server, garbage):
    with server.connect() as connection:
        connection.sendall(request_head(None) + garbage)
        connection.shutdown(socket.SHUT_WR)
        data = connection.recv(65_536)
    assert data == b"" or data.startswith(b"HTTP/1.1 400")


def test_r08_broken_chunks_after_the_refusal_just_close(server):
    with server.connect() as connection:
        connection.sendall(request_head(None) + chunk(sized(LIMIT + 1)))
        assert read_answer(connection)[0] == 413
        connection.sendall(b"zz\r\n")
        with contextlib.suppress(ConnectionError):
            assert connection.recv(65_536) in (b"", b"0\r\n\r\n")
    assert check_error_body(server.get("/nothing").json())["code"] == "not_found"

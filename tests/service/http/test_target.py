"""Requests over a real socket whose head leaves open what is meant."""

import socket

import pytest

from service.http.target import in_origin_form
from tests.serving import form, read_answer, request_head, service


@pytest.fixture(scope="module")
def server():
    with service() as process:
        yield process


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://test/livez", 200),
        ("HTTPS://elsewhere:99/livez?a=b", 200),
        ("http://test/v1/models/base", 200),
        ("http://test/v1/models/other", 404),
        ("http://test", 404),
        ("http://test?a", 404),
        ("/http://test/livez", 404),
        ("ftp://test/livez", 404),
    ],
)
def test_the_whole_address_names_the_path_in_it(server, target, status):
    with server.connect() as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        assert read_answer(connection)[0] == status


@pytest.mark.parametrize(
    ("raw_path", "path", "rest"),
    [
        (b"http://test/a%20b%2Fc", "/a b/c", b"/a%20b%2Fc"),
        (b"http://user@[::1]:80/a/http://b", "/a/http://b", b"/a/http://b"),
        (b"https://test", "/", b"/"),
    ],
)
def test_the_path_is_what_stands_behind_the_host(raw_path, path, rest):
    scope = {"type": "http", "path": "as it was", "raw_path": raw_path, "method": "GET"}
    assert in_origin_form(scope) == {"type": "http", "path": path, "raw_path": rest, "method": "GET"}


@pytest.mark.parametrize("raw", [{"raw_path": b"/a%20b"}, {"raw_path": b"http:///a"}, {"raw_path": None}, {}])
def test_a_target_without_a_host_stays_as_it_is(raw):
    scope = {"type": "http", "path": "/a b", **raw}
    assert in_origin_form(scope) is scope


def test_a_body_with_two_ends_is_the_last_thing_on_its_connection(server):
    """Chunks decide, and what somebody else may take for part of the body is not taken for a request."""
    body = form()
    chunks = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(request_head(None, "/v1/transcribe", f"Content-Length: {len(body)}") + chunks)
        status, headers, _ = read_answer(connection)
        assert (status, headers["connection"]) == (200, "close")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""

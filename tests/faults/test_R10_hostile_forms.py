"""R10: forms made to hurt are 400 for less than a second of the server's processor time."""

import httpx
import psutil
import pytest

from tests.serving import BOUNDARY, check_error_body, error_of, form, request_head, service

pytestmark = pytest.mark.fault
END = f"--{BOUNDARY}--\r\n".encode()
FILE = form()[: -len(END)]


def field(name: str, content: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n"


FORMS = {
    "ten thousand parts": b"".join(field(f"f{n}", b"x") for n in range(10_000)) + FILE + END,
    "a field of 1 MiB": field("prompt", b"x" * 1024 * 1024) + FILE + END,
    "a huge preamble": b"x" * 5_000_000 + b"\r\n" + FILE + END,
    "a huge blank preamble": b"\r\n" * 2_500_000 + FILE + END,
    "a huge epilogue": FILE + END + b"x" * 5_000_000,
    "no end": FILE,
    "no part": END,
    "nothing": b"",
    "a file twice": FILE + FILE + END,
    "a file without a name": field("file", b"sound") + END,
    "an empty file": form(b""),
    "delimiters that are none": FILE.replace(b"sound", f"\r\n--{BOUNDARY}x".encode() * 200_000) + END,
    "headers without end": b"--" + BOUNDARY.encode() + b"\r\n" + b"X: y\r\n" * 500_000,
    "a header without end": b"--" + BOUNDARY.encode() + b"\r\nX: " + b"y" * 3_000_000,
    "a header name without end": b"--" + BOUNDARY.encode() + b"\r\n" + b"y" * 3_000_000,
}


@pytest.fixture(scope="module")
def server():
    with service() as process:
        yield process
        process.assert_idle()


@pytest.mark.parametrize("name", FORMS)
def test_r10_a_hostile_form_is_a_cheap_400(server, name):
    process = psutil.Process(server.process.pid)
    before = process.cpu_times()
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    answer = httpx.post(f"{server.url}/v1/transcribe", content=FORMS[name], headers=headers, trust_env=False)
    after = process.cpu_times()
    assert error_of(answer, 400)["type"] == "invalid_request_error"
    assert (after.user - before.user) + (after.system - before.system) < 1.0


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 900],
)
def test_r10_without_a_boundary_there_is_no_form(server, content_type):
    answer = httpx.post(
        f"{server.url}/v1/transcribe", content=FILE + END, headers={"content-type": content_type}, trust_env=False
    )
    assert error_of(answer, 400)["code"] == "invalid_value"


def test_r10_a_form_in_single_bytes_is_a_form(server):
    body = form()
    with server.connect() as connection:
        connection.sendall(request_head(len(body)))
        for number in range(len(body)):
            connection.sendall(body[number : number + 1])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
    assert check_error_body(server.post(b"").json())["param"] == "file"

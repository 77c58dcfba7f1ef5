import asyncio

import pytest

from service.errors import BadRequest, TooLarge, Unavailable, UnsupportedEncoding, UploadTimeout
from service.http.upload import (
    LINGER_BYTES,
    ClientDisconnected,
    UploadLimits,
    content_length,
    has_body,
    linger,
    receive_form,
)
from service.wire import memory
from tests.serving import BOUNDARY, form, in_loop, open_descriptors

MULTIPART = (b"content-type", f"multipart/form-data; boundary={BOUNDARY}".encode())


class Client:
    """The receiving end of a request: gives pieces, then waits for ever (or ends, or goes away)."""

    def __init__(self, *pieces: bytes, ends: bool = True, goes: bool = False) -> None:
        self.pieces, self.ends, self.goes = list(pieces), ends, goes
        self.received = 0

    async def __call__(self):
        if self.pieces:
            piece = self.pieces.pop(0)
            self.received += len(piece)
            return {"type": "http.request", "body": piece, "more_body": bool(self.pieces) or not self.ends}
        if self.goes:
            return {"type": "http.disconnect"}
        return await asyncio.Future()


def hold_nothing(_: int) -> None:
    pass


def limits(max_bytes=100_000, seconds=5.0, bytes_per_second=0, grace_seconds=1.0):
    return UploadLimits(max_bytes, seconds, bytes_per_second, grace_seconds)


async def receive(client, *headers, hold=hold_nothing, **asked):
    return await receive_form(client, [MULTIPART, *headers], limits(**asked), hold)


@in_loop
async def test_a_form_is_received_and_counted():
    data, held = form(b"sound" * 1000, task="translate"), []
    client = Client(data[:10], data[10:3000], data[3000:])
    with await receive(client, hold=held.append) as received:
        assert received.fields == {"task": "translate"}
        assert bytes(memory.read_all(received.fd)) == b"sound" * 1000
        assert received.file_bytes == 5000
    assert held == [0, 10, 3000, len(data)]


@in_loop
async def test_an_announced_size_is_held_at_once():
    data, held = form(), []
    (await receive(Client(data), (b"content-length", str(len(data)).encode()), hold=held.append)).close()
    assert held == [len(data)]


@in_loop
async def test_too_much_is_refused_before_it_is_read_when_announced():
    client = Client(form())
    with pytest.raises(TooLarge):
        await receive(client, (b"content-length", b"100001"))
    assert client.received == 0


@in_loop
async def test_one_byte_too_many_is_refused_and_no_more_is_read():
    data = form(b"x" * 200_000)
    pieces = [data[start : start + 1000] for start in range(0, len(data), 1000)]
    client, before = Client(*pieces), open_descriptors()
    with pytest.raises(TooLarge):
        await receive(client, max_bytes=50_000)
    assert client.received == 51_000
    exact = form(b"x")
    (await receive(Client(exact), max_bytes=len(exact))).close()
    with pytest.raises(TooLarge):
        await receive(Client(exact), max_bytes=len(exact) - 1)
    assert open_descriptors() == before


@in_loop
async def test_a_slow_body_times_out_and_leaves_nothing():
    before = open_descriptors()
    with pytest.raises(UploadTimeout):
        await receive(Client(form()[:100], ends=False), seconds=0.05)
    assert open_descriptors() == before


def trickling(data, size, pause, ends=True):
    """A client that sends `size` bytes of `data` after every pause."""
    client = Client(*[data[start : start + size] for start in range(0, len(data), size)], ends=ends)

    async def receive():
        await asyncio.sleep(pause)
        return await client()

    return receive


@in_loop
async def test_a_body_below_the_least_pace_is_given_up_long_before_its_deadline():
    before, started = open_descriptors(), asyncio.get_running_loop().time()
    client = trickling(form(b"x" * 50_000), 10, 0.02)
    with pytest.raises(UploadTimeout) as refused:
        await receive(client, seconds=30.0, bytes_per_second=10_000, grace_seconds=0.1)
    assert refused.value.code == "upload_too_slow"
    assert "at least 10000 bytes a second" in refused.value.message
    assert asyncio.get_running_loop().time() - started < 10
    assert open_descriptors() == before


@in_loop
async def test_silence_is_given_up_after_the_grace():
    with pytest.raises(UploadTimeout, match="too slowly"):
        await receive(Client(form()[:100], ends=False), seconds=30.0, bytes_per_second=1, grace_seconds=0.05)


@in_loop
async def test_a_body_that_keeps_up_may_take_longer_than_the_grace():
    data = form(b"x" * 50_000)
    (await receive(trickling(data, 1000, 0.025), seconds=30.0, bytes_per_second=500, grace_seconds=1.0)).close()


@in_loop
async def test_a_burst_buys_no_more_than_the_grace():
    client = Client(form(b"x" * 90_000)[:-10], ends=False)
    with pytest.raises(UploadTimeout, match="too slowly"):
        await receive(client, seconds=30.0, bytes_per_second=10, grace_seconds=0.1)


@in_loop
async def test_what_was_announced_large_must_come_at_half_the_pace_that_it_needs():
    data = form(b"x" * 80_000)
    size = (b"content-length", str(len(data)).encode())
    with pytest.raises(UploadTimeout, match="at least 4005 bytes a second"):
        await receive(trickling(data, 20, 0.02), size, seconds=10.0, bytes_per_second=1, grace_seconds=0.1)
    (await receive(trickling(data, 8000, 0.02), size, seconds=10.0, bytes_per_second=1, grace_seconds=1.0)).close()


@in_loop
async def test_no_pace_is_asked_for_where_it_is_zero():
    with pytest.raises(UploadTimeout) as refused:
        await receive(Client(form()[:100], ends=False), seconds=0.2, bytes_per_second=0, grace_seconds=0.05)
    assert refused.value.code == "upload_timeout"
    assert "within 0.2 seconds" in refused.value.message


@in_loop
async def test_a_client_that_goes_leaves_nothing():
    before = open_descriptors()
    with pytest.raises(ClientDisconnected):
        await receive(Client(form()[:-20], ends=False, goes=True))
    assert open_descriptors() == before


@in_loop
async def test_a_cancelled_upload_leaves_nothing():
    before = open_descriptors()
    task = asyncio.create_task(receive(Client(form()[:-20], ends=False)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert open_descriptors() == before


@in_loop
async def test_a_refused_holding_leaves_nothing():
    def hold(total: int) -> None:
        if total > 1000:
            raise Unavailable("full")

    data, before = form(b"x" * 5000), open_descriptors()
    with pytest.raises(Unavailable):
        await receive(Client(data[:900], data[900:]), hold=hold)
    assert open_descriptors() == before


@in_loop
@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"identity, gzip", b"x"])
async def test_encodings_are_not_taken(encoding):
    client = Client(form())
    with pytest.raises(UnsupportedEncoding):
        await receive(client, (b"content-encoding", encoding))
    assert client.received == 0


@in_loop
async def test_identity_is_no_encoding():
    (await receive(Client(form()), (b"content-encoding", b"Identity"))).close()


@in_loop
@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ([], BadRequest),
        ([MULTIPART, MULTIPART], BadRequest),
        ([(b"content-type", b"multipart/form-data")], BadRequest),
        ([(b"content-type", b"multipart/form-data; boundary=" + b"a" * 2000)], BadRequest),
        ([(b"content-type", b"application/json")], UnsupportedEncoding),
        ([(b"content-type", b"application/x-www-form-urlencoded")], UnsupportedEncoding),
        ([(b"content-type", b"multipart/mixed; boundary=abc")], UnsupportedEncoding),
    ],
)
async def test_the_content_type_must_be_a_form(headers, error):
    with pytest.raises(error):
        await receive_form(Client(form()), headers, limits(), hold_nothing)


def test_content_length_is_digits_or_nothing():
    assert content_length([]) is None
    assert content_length([(b"content-length", b"17")]) == 17
    for bad in (b"-1", b"+1", b"1e3", b"0x10", b"", b"1 2", b"9" * 30, "१".encode()):
        with pytest.raises(BadRequest):
            content_length([(b"content-length", bad)])
    with pytest.raises(BadRequest):
        content_length([(b"content-length", b"1"), (b"content-length", b"2")])


def test_a_body_is_announced():
    assert not has_body([])
    assert not has_body([(b"content-length", b"0")])
    assert has_body([(b"content-length", b"1")])
    assert has_body([(b"transfer-encoding", b"chunked")])


@in_loop
async def test_lingering_ends_with_the_body():
    client = Client(b"x" * 1000, b"y")
    await linger(client)
    assert client.received == 1001


@in_loop
async def test_lingering_ends_with_the_client():
    await linger(Client(b"x", ends=False, goes=True))


@in_loop
async def test_lingering_ends_after_its_bytes():
    piece = b"x" * (8 * 1024 * 1024)
    client = Client(*[piece] * 20)
    await linger(client)
    assert LINGER_BYTES <= client.received <= LINGER_BYTES + len(piece)


@in_loop
async def test_lingering_ends_after_its_time(monkeypatch):
    monkeypatch.setattr("service.http.upload.LINGER_SECONDS", 0.05)
    async with asyncio.timeout(5):
        await linger(Client(b"x", ends=False))

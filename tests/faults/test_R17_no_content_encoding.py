"""R17: a compressed body, by any name, is 415, and nothing is inflated."""

import gzip

import httpx
import pytest

from tests.serving import BOUNDARY, client, error_of, form, in_loop, make_app

pytestmark = pytest.mark.fault


@in_loop
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x-unknown", "identity, gzip", "GZIP"])
async def test_r17_an_encoded_body_is_refused_unread(encoding):
    app, audio, _ = make_app()
    bomb = gzip.compress(form(b"\0" * 20_000_000))
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}", "content-encoding": encoding}
    async with client(app) as c:
        answer: httpx.Response = await c.post("/v1/transcribe", content=bomb, headers=headers)
    assert error_of(answer, 415)["code"] == "unsupported_encoding"
    assert not audio.uploads


@in_loop
async def test_r17_identity_is_taken():
    app, audio, _ = make_app()
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}", "content-encoding": "identity"}
    async with client(app) as c:
        assert (await c.post("/v1/transcribe", content=form(), headers=headers)).status_code == 200
    assert audio.uploads == [b"sound"]

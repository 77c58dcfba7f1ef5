"""R40: canaries in everything a caller sends, and in what the model says, appear in no log, metric or error body."""

import httpx
import pytest

from tests.fakes import script
from tests.serving import client, form, in_loop, make_app, read_answer, request_head, service

pytestmark = pytest.mark.fault
KEY = "canary-key-0123456789"
CANARY = "kanarienvogel"


def post(server, upload: bytes = b"x", path: str = "/v1/transcribe", filename: str = f"{CANARY}.wav", **fields: str):
    return httpx.post(
        f"{server.url}{path}?api-version={CANARY}",
        files={"file": (filename, upload)},
        data=fields,
        headers={"authorization": f"Bearer {KEY}", "x-request-id": "quiet", "user-agent": CANARY},
        trust_env=False,
        timeout=30,
    )


def everything_goes_wrong(server) -> list[str]:
    """Error bodies of requests that carry canaries wherever one can be put."""
    answers = [
        post(server, script(text=CANARY), prompt=CANARY),
        post(server, script(error="bug", text=CANARY)),
        post(server, script(worker_error="bug", text=CANARY)),
        post(server, script(error="invalid_audio", text=CANARY)),
        post(server, script(worker_error="no_worker", text=CANARY)),
        post(server, language=CANARY),
        post(server, temperature=CANARY),
        post(server, response_format=CANARY),
        post(server, prompt=CANARY * 10_000),
        post(server, path=f"/{CANARY}"),
        post(server, path=f"/v1/transcribe?q={CANARY}&"),
        post(server, b"", prompt=CANARY),
    ]
    assert answers[0].json()["text"] == CANARY
    assert {answer.status_code for answer in answers} == {200, 400, 404, 500, 503}
    texts = [answer.text for answer in answers[1:]]
    for head in (
        request_head(50, f"/v1/transcribe?{CANARY}"),
        request_head(50, f"/{CANARY}", f"Authorization: {CANARY}"),
    ):
        with server.connect() as connection:
            connection.sendall(head + CANARY.encode() * 5)
            texts.append(read_answer(connection)[2].decode())
    with server.connect() as connection:
        connection.sendall(f"{CANARY} {CANARY}\r\n\r\n".encode())
        texts.append(read_answer(connection)[2].decode())
    with server.connect() as connection:  # goes away in the middle
        connection.sendall(request_head(500, "/v1/transcribe", f"Authorization: Bearer {KEY}") + form(CANARY.encode()))
    return texts


def test_r40_no_canary_and_no_traceback_comes_out():
    keys = {"authorization": f"Bearer {KEY}"}
    with service(WHISPER_API_KEYS=KEY, WHISPER_LOG_LEVEL="debug") as server:
        bodies = everything_goes_wrong(server)
        server.assert_idle(headers=keys)
        metrics = server.get("/metrics", headers=keys).text
        server.process.terminate()
        assert server.process.wait(10) == 0
        log = server.log_text()
    for text in (*bodies, metrics, log):
        for secret in (CANARY, KEY, "Traceback", 'File "', "site-packages", "/tests/", "secret words", "127.0.0.1:"):
            assert secret not in text, text
    assert "internal_error" in log
    assert "service.http.jobs:" in log


@in_loop
async def test_r40_labels_stay_few_whatever_is_asked():
    app, _, _ = make_app()
    async with client(app) as c:

        async def ask(number: int) -> None:
            await c.get(f"/v1/{number}")
            await c.get(f"/v1/models/{number}")
            upload = {"file": ("a.wav", b"x")}
            await c.post("/v1/transcribe", files=upload, data={"language": f"l{number}"})

        await ask(0)
        before = len((await c.get("/metrics")).text.splitlines())
        for number in range(1000):
            await ask(number)
        assert len((await c.get("/metrics")).text.splitlines()) == before

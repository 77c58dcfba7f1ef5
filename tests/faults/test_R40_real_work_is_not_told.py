"""R40 with the real model: what was said in a recording, its name, prompt and hotwords are in nothing that is written.

Real audio children and a real worker, which fails in every way that it can: whatever any process of the service writes
comes here; the HTTP process is at the level `debug`, which workers do not have.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from model.audio import decode_audio
from tests.faulty_worker import Harm
from tests.serving import ServiceProcess, form, real_service, request_head, wait_until
from tests.sounds import wav

pytestmark = [pytest.mark.fault, pytest.mark.weights]
SAID = ("americans", "fellow", "country")
NAME, PROMPT, HOTWORDS = "kanarienvogel.flac", "Rotkehlchen, Zaunkoenig", "Blaumeise"
PRIVATE = [*SAID, *re.findall(r"\w{5,}", f"{NAME} {PROMPT} {HOTWORDS}".lower())]
FIELDS = {"prompt": PROMPT, "hotwords": HOTWORDS, "language": "en"}


def post(server: ServiceProcess, upload: bytes, path: str = "/v1/transcribe", **fields: str) -> httpx.Response:
    files = {"file": (NAME, upload)}
    return httpx.post(server.url + path, files=files, data=fields, timeout=120, trust_env=False)


def heard(server: ServiceProcess, clip: bytes) -> Iterator[httpx.Response]:
    """Answers that say what was said: with every field that makes more of it, and in every form."""
    yield post(server, clip, **FIELDS, timestamps="word")
    yield post(server, clip, **FIELDS, response_format="srt", max_line_width="20", vad="true")
    yield post(server, clip, prompt=PROMPT, hallucination_silence_threshold="1")
    yield post(server, clip, **FIELDS, beam_size="2", long_form="batched", compression_ratio_threshold="0.1")
    yield post(server, clip, "/v1/audio/transcriptions", model="whisper-1", prompt=PROMPT, hotwords=HOTWORDS)
    yield post(server, clip[: len(clip) * 9 // 10], **FIELDS)  # its end is missing


def refused(server: ServiceProcess, clip: bytes) -> Iterator[tuple[int, httpx.Response]]:
    """Requests that fail in the HTTP process, in an audio child and in the worker; the status that each must get."""
    samples = decode_audio(clip).samples
    yield 400, post(server, clip, **FIELDS, temperature=HOTWORDS)
    yield 400, post(server, clip, **FIELDS | {"prompt": PROMPT * 2_000})
    yield 400, post(server, PROMPT.encode() * 100, **FIELDS)
    yield 400, post(server, clip[:60] + HOTWORDS.encode() * 5_000, **FIELDS)
    yield 400, post(server, wav(np.full(16_000, np.nan, np.float32).tobytes(), tag=3, bits=32), **FIELDS)
    yield 404, post(server, clip, "/v1/audio/transcriptions", model=HOTWORDS)
    yield 404, post(server, clip, f"/v1/{NAME}")
    for harm in (Harm.RAISES, Harm.DIES):
        yield 500, post(server, wav(samples[:harm].tobytes()), **FIELDS)
    wait_until(lambda: server.get("/readyz").status_code == 200, 60)


def leave(server: ServiceProcess, clip: bytes) -> None:
    """Go away while it is heard."""
    body = form(clip, **FIELDS).replace(b"a.wav", NAME.encode())
    with server.connect() as connection:
        connection.sendall(request_head(len(body)) + body)
        wait_until(lambda: server.gauge("whisper_queue_audio_seconds") > 0, 15)
        time.sleep(0.1)


def test_r40_nothing_of_what_was_said_or_sent_is_written(clips: Path) -> None:
    clip = (clips / "en-jfk.flac").read_bytes()
    settings = {"WHISPER_COMPUTE_TYPE": "int8", "WHISPER_LOG_LEVEL": "debug"}
    with real_service(module="tests.serve_faulty", **settings) as server:
        for answer in heard(server, clip):
            assert answer.status_code == 200, answer.text
            assert all(word in answer.text.lower() for word in SAID)
        assert post(server, clip, "/v1/detect-language").json()["language"] == "en"
        errors = []
        for status, answer in refused(server, clip):
            assert answer.status_code == status, answer.text
            errors.append(answer.text)
        leave(server, clip)
        server.assert_idle(30)
        metrics = server.get("/metrics").text
        server.process.terminate()
        assert server.process.wait(30) == 0
        log = server.log_text()
        events = {line["event"] for line in server.log()}
    assert {"request", "worker_ended"} <= events, events  # it was the log
    for text in (*errors, metrics, log):
        assert [secret for secret in (*PRIVATE, "traceback", 'file "') if secret in text.lower()] == [], text

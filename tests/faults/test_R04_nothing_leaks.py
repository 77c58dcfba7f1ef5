"""R04: a handler that raises, or a client that goes, at every point: permit, samples and memory are given back."""

import asyncio
import json

import pytest

from service.http.admission import Permit
from service.http.multipart import Form
from tests.fakes import script
from tests.serving import check_error_body, client, form, in_loop, make_app, open_descriptors, request_head, service

pytestmark = pytest.mark.fault
FAULTS = ("enter", "hold", "append", "parse", "decode", "charge", "run", "event", "answer")


def boom(*_: object, **__: object) -> None:
    raise RuntimeError("a bug")


def break_at(point: str, monkeypatch: pytest.MonkeyPatch, app, audio, workers) -> None:
    targets = {
        "enter": (app.state.admission, "enter"),
        "hold": (Permit, "hold_bytes"),
        "append": (Form, "append"),
        "parse": ("service.http.endpoints.parse_transcribe",),
        "decode": (audio, "decode"),
        "charge": (Permit, "charge"),
        "event": ("service.http.jobs._Progress",),
        "answer": ("service.http.endpoints.transcription_response",),
    }
    if point == "run":
        workers.raise_in_run = RuntimeError("a bug")
    elif len(targets[point]) == 1:
        monkeypatch.setattr(targets[point][0], boom)
    else:
        monkeypatch.setattr(*targets[point], boom)


@in_loop
@pytest.mark.parametrize("point", FAULTS)
async def test_r04_a_bug_at_any_point_is_a_500_and_no_leak(point, monkeypatch):
    app, audio, workers = make_app()
    async with client(app) as c:
        upload = {"files": {"file": ("a.wav", script(seconds=5, windows=2))}}
        await c.post("/v1/transcribe", **upload)
        before = open_descriptors()
        with monkeypatch.context() as patch:
            break_at(point, patch, app, audio, workers)
            answer = await c.post("/v1/transcribe", **upload)
        assert answer.status_code == 500
        assert "bug" not in answer.text
        assert open_descriptors() == before
        admission = app.state.admission
        assert (admission.requests, admission.upload_bytes, admission.audio_seconds) == (0, 0, 0.0)
        assert (audio.held, audio.busy, workers.running) == (0, 0, 0)
        workers.raise_in_run = None
        assert (await c.post("/v1/transcribe", **upload)).status_code == 200


@in_loop
@pytest.mark.parametrize(("point", "status"), [("segment_events", 500), ("transcription_json", 200)])
async def test_r04_a_bug_in_a_stream_is_told_in_it_once_it_has_begun_and_no_leak(point, status, monkeypatch):
    app, audio, workers = make_app()
    async with client(app) as c:
        upload = {"files": {"file": ("a.wav", script(seconds=5, windows=2))}, "data": {"stream": "true"}}
        before = open_descriptors()
        monkeypatch.setattr(f"service.http.endpoints.{point}", boom)
        answer = await c.post("/v1/transcribe", **upload)
        assert answer.status_code == status
        last = answer.text.strip().splitlines()[-1].removeprefix("data: ")
        assert check_error_body(json.loads(last))["code"] == "internal_error"
        assert "a bug" not in answer.text
        assert open_descriptors() == before
        admission = app.state.admission
        assert (admission.requests, admission.upload_bytes, admission.audio_seconds) == (0, 0, 0.0)
        assert (audio.held, audio.busy, workers.running) == (0, 0, 0)


@in_loop
@pytest.mark.parametrize("stream", ["false", "true"])
@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_r04_a_request_cancelled_after_any_number_of_steps_leaves_nothing(steps, stream):
    app, audio, workers = make_app()
    async with client(app) as c:
        sound = script(seconds=5, decode_delay=0.001, windows=3, window_delay=0.001)
        upload = {"files": {"file": ("a.wav", sound)}, "data": {"stream": stream}}
        await c.post("/v1/transcribe", **upload)
        before = open_descriptors()
        task = asyncio.create_task(c.post("/v1/transcribe", **upload))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert open_descriptors() == before
        assert app.state.admission.requests == 0
        assert (audio.held, audio.busy, workers.running) == (0, 0, 0)


def test_r04_clients_that_abort_leave_the_server_empty():
    body = form(script(seconds=30, decode_delay=0.3, windows=3, window_delay=0.3))
    cuts = [0, 1, 50, len(body) // 2, len(body) - 1]
    with service() as server:
        server.post()
        for cut in cuts:
            with server.connect() as connection:
                connection.sendall(request_head(len(body)) + body[:cut])
        for pause in (0.05, 0.4, 0.7):
            with server.connect() as connection:
                connection.sendall(request_head(len(body)) + body)
                connection.settimeout(pause)
                with pytest.raises(TimeoutError):
                    connection.recv(1)
        server.assert_idle()
        assert server.post().status_code == 200

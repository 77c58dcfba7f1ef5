"""Answers in pieces: what goes out when, and what becomes of them where something fails."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from service.http.event_stream import EventStream
from tests.fakes import script
from tests.serving import (
    ServiceProcess,
    check_error_body,
    client,
    error_of,
    form,
    in_loop,
    make_app,
    request_head,
    service,
    wait_until,
)

OURS = ("/v1/transcribe", {"stream": "true"})
HOSTED = ("/v1/audio/transcriptions", {"stream": "true", "model": "base"})


@pytest.fixture(scope="module")
def server() -> Iterator[ServiceProcess]:
    with service() as process:
        yield process
        process.assert_idle()


def events(text: str) -> list[dict[str, Any]]:
    """The events of a whole stream; comments are passed over."""
    assert text.endswith("\n\n")
    pieces = [piece for piece in text[:-2].split("\n\n") if piece != ":"]
    assert all(piece.startswith("data: ") and "\n" not in piece for piece in pieces)
    return [json.loads(piece.removeprefix("data: ")) for piece in pieces]


def streamed(server: ServiceProcess, way: tuple[str, dict[str, str]], upload: bytes, **fields: str) -> httpx.Response:
    return server.post(upload, way[0], data={**way[1], **fields})


@in_loop
async def test_nothing_goes_out_until_there_is_something_to_tell_and_then_comments_while_there_is_not() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        await asyncio.sleep(0)
        sent.append(dict(message))

    async with EventStream(send, beat_seconds=60.0) as stream:
        await asyncio.sleep(0.05)
        assert sent == []
        await stream.tell({"text": "a\nb é"})
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (sent[0]["status"], sent[1]["more_body"]) == (200, True)
    assert sent[1]["body"] == 'data: {"text":"a\\nb é"}\n\n'.encode()
    sent.clear()
    async with EventStream(send, beat_seconds=0.01) as stream:
        while len(sent) < 3:  # noqa: ASYNC110  it is what is being counted
            await asyncio.sleep(0.01)
        await stream.tell({})
    count = len(sent)
    await asyncio.sleep(0.05)
    assert len(sent) == count
    assert sent[0]["type"] == "http.response.start"
    assert {message["body"] for message in sent[1:-1]} == {b":\n\n"}
    assert b"data: {}\n\n" in {message["body"] for message in sent[-2:]}


def test_segments_come_as_their_windows_end_and_the_whole_answer_last(server) -> None:
    said = {"seconds": 90, "windows": 3, "text": "guten", "language": "de"}
    whole, upload = server.post(script(**said)).json(), script(**said, window_delay=1.5)
    with httpx.stream(
        "POST", f"{server.url}/v1/transcribe",
        files={"file": ("a.wav", upload)}, data={"stream": "true"}, trust_env=False, timeout=60,
    ) as answer:  # fmt: skip
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        request_id = answer.headers["x-request-id"]
        pieces = answer.iter_text()
        first = next(pieces)
        assert server.gauge("whisper_queue_requests") == 1.0  # there are two windows to come
        told = events(first + "".join(pieces))
    assert [event["type"] for event in told] == ["transcript.segment"] * 3 + ["transcript.done"]
    done = told.pop()
    assert [event["segment"] for event in told] == whole["segments"] == done["segments"]
    assert done.keys() == whole.keys() | {"type"}
    same = ("task", "language", "language_probability", "duration", "text", "warnings", "model", "usage")
    assert {name: done[name] for name in same} == {name: whole[name] for name in same}
    assert done["request_id"] == request_id


def test_clients_that_cut_lines_as_python_does_get_whole_events(server) -> None:
    text = "a\u2028b\u2029c\x85d\u00e9"
    answer = streamed(server, OURS, script(text=text))
    segment, done = (json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line)
    assert segment["segment"]["text"] == f" {text}"
    assert done["text"] == text


def test_a_recording_without_words_is_a_stream_with_the_answer_alone(server) -> None:
    (done,) = events(streamed(server, OURS, script(windows=2, text="")).text)
    assert (done["type"], done["segments"]) == ("transcript.done", [])


def test_the_hosted_api_has_the_text_in_pieces(server) -> None:
    upload = script(seconds=60, windows=2, text="guten", language="de")
    *deltas, done = events(streamed(server, HOSTED, upload).text)
    assert deltas == [{"type": "transcript.text.delta", "delta": text} for text in ("guten", " guten")]
    whole = server.post(upload, HOSTED[0], data={"model": "base"}).json()
    seconds = whole.pop("usage")["seconds"]
    assert done == {"type": "transcript.text.done", **whole, "duration": seconds}
    verbose = {"response_format": "verbose_json"}
    *told, done = events(streamed(server, HOSTED, upload, **verbose).text)
    whole = server.post(upload, HOSTED[0], data={"model": "base", **verbose}).json()
    assert whole["duration"] == whole.pop("usage")["seconds"]
    assert done == {"type": "transcript.text.done", **whole}
    kinds = ("transcript.text.delta", "transcript.text.segment")
    assert [event["type"] for event in told] == [*kinds, *kinds]
    assert [event for event in told if event["type"] == kinds[1]] == [
        {"type": kinds[1], **segment, "id": str(segment["id"]), "speaker": ""} for segment in whole["segments"]
    ]


def test_whisper_1_ignores_it_as_there(server) -> None:
    answer = server.post(script(text="guten"), HOSTED[0], data={"model": "whisper-1", "stream": "true"})
    assert answer.json()["text"] == "guten"


@pytest.mark.parametrize(("path", "fields"), [OURS, HOSTED])
def test_what_is_refused_before_anything_is_told_has_its_status(server, path, fields) -> None:
    assert error_of(streamed(server, (path, fields), script(error="invalid_audio")), 400)["code"] == "invalid_audio"
    refused = error_of(streamed(server, (path, fields), script(), response_format="srt"), 400)
    assert refused["param"] == "stream"
    assert error_of(streamed(server, (path, fields), script(), stream="perhaps"), 400)["param"] == "stream"
    assert error_of(streamed(server, (path, fields), script(worker_error="bug")), 500)["code"] == "internal_error"


@pytest.mark.parametrize(("path", "fields"), [OURS, HOSTED])
@pytest.mark.parametrize(("fault", "code", "status"), [("no_worker", "no_worker", 503), ("bug", "internal_error", 500)])
def test_what_fails_later_is_the_last_event_and_no_success_in_the_books(
    server, path, fields, fault, code, status
) -> None:
    counted = f'whisper_requests_total{{endpoint="{path}",status="{status}"}}'
    before = _count(server, counted)
    answer = streamed(server, (path, fields), script(windows=2, late_error=fault))
    *told, last = events(answer.text)
    assert (answer.status_code, len(told)) == (200, 2)
    assert check_error_body(last)["code"] == code
    assert last["request_id"] == answer.headers["x-request-id"]
    wait_until(lambda: _count(server, counted) == before + 1)

    def lines() -> list[dict[str, Any]]:
        return [line for line in server.log() if line.get("request_id") == last["request_id"] and "status" in line]

    wait_until(lambda: lines() != [])
    assert [(line["status"], line["code"]) for line in lines()] == [(status, code)]


def _count(server: ServiceProcess, name: str) -> float:
    try:
        return server.gauge(name)
    except KeyError:
        return 0.0


def test_the_deadline_is_told_in_the_stream() -> None:
    with service(WHISPER_REQUEST_TIMEOUT_SECONDS="2") as server:
        *told, last = events(streamed(server, OURS, script(windows=100, window_delay=0.2)).text)
        assert told
        assert check_error_body(last)["code"] == "deadline_exceeded"
        server.assert_idle()


def test_a_deadline_that_passes_while_the_client_leaves_an_earlier_answer_unread_has_its_status() -> None:
    long = form(script(text="x" * 4_000_000))  # twice that, as it is told, is more than kernels keep
    stream = form(script(window_delay=0.1), stream="true")
    with service(WHISPER_REQUEST_TIMEOUT_SECONDS="2") as server, server.connect() as connection:
        head = request_head(len(stream), "/v1/transcribe", "Connection: close")
        connection.sendall(request_head(len(long)) + long + head + stream)
        wait_until(lambda: _count(server, 'whisper_rejections_total{reason="deadline_exceeded"}') == 1.0)
        told = b"".join(iter(lambda: connection.recv(1 << 20), b""))
        first, last = (answer.partition(b"\r\n\r\n") for answer in told.split(b"HTTP/1.1 ")[1:])
        assert json.loads(first[2])["text"] == "x" * 4_000_000
        assert last[0].startswith(b"504 ")
        assert check_error_body(json.loads(last[2]))["code"] == "deadline_exceeded"
        assert not [line for line in server.log() if line["level"] == "error"]
        server.assert_idle()


def test_the_official_client_iterates_over_the_text_and_raises_what_fails(server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as official:
        create = official.audio.transcriptions.create
        with create(file=("a.wav", script(windows=2, text="guten")), model="base", stream=True) as stream:
            *deltas, done = list(stream)
        assert "".join(event.delta for event in deltas) == done.text == "guten guten"
        with create(file=("a.wav", script(late_error="no_worker")), model="base", stream=True) as stream:
            assert next(stream).delta == "hello"
            with pytest.raises(openai.APIError, match="No worker"):
                next(stream)


@pytest.mark.parametrize("response_format", ["json", "verbose_json"])
def test_events_have_the_types_that_the_official_client_declares(server, response_format) -> None:
    strict = {"max_retries": 0, "_strict_response_validation": True}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", **strict) as official:
        asked = {"model": "base", "stream": True, "response_format": response_format}
        with official.audio.transcriptions.create(file=("a.wav", script(windows=2, text="guten")), **asked) as stream:
            *told, done = list(stream)
    segments = [event for event in told if event.type == "transcript.text.segment"]
    assert [event.id for event in segments] == ([] if response_format == "json" else ["0", "1"])
    assert (done.text, done.usage) == ("guten guten", None)


@in_loop
async def test_a_translation_has_no_stream_there_but_has_ours() -> None:
    app, *_ = make_app()
    upload = {"file": ("a.wav", script(text="good"))}
    async with client(app) as c:
        there = await c.post("/v1/audio/translations", files=upload, data={"model": "base", "stream": "true"})
        assert error_of(there, 400)["param"] == "stream"
        here = await c.post("/v1/transcribe", files=upload, data={"task": "translate", "stream": "true"})
    assert events(here.text)[-1]["task"] == "translate"

import asyncio
import re
import time
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from model.options import TranscribeOptions
from service.errors import Unavailable
from service.wire.messages import DetectLanguage, Transcribe
from tests.fakes import ENGLISH_MODEL, FakeAudioPool, FakeWorkerPool, script
from tests.serving import check_error_body, client, error_of, in_loop, lifespan, make_app, open_descriptors

README = (Path(__file__).resolve().parents[3] / "README.md").read_text()
WAIT = {"files": {"file": ("a.wav", script(seconds=3))}}


async def post(c: httpx.AsyncClient, upload: bytes = b"sound", path: str = "/v1/transcribe", **fields: str):
    return await c.post(path, files={"file": ("a.wav", upload)}, data=fields)


@in_loop
async def test_a_transcription_is_answered_with_everything():
    app, audio, workers = make_app()
    async with client(app) as c:
        answer = await post(c, script(seconds=11, windows=2, language="de", text="guten"), temperature="0.2", seed="3")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["language"], body["language_probability"], body["duration"]) == ("de", 0.98, 11.0)
    assert body["text"] == "guten guten"
    assert [(s["id"], s["text"]) for s in body["segments"]] == [(0, " guten"), (1, " guten")]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert set(body["timings"]) == {"queue", "decode_audio", "inference", "total"}
    (job,) = workers.started
    assert isinstance(job, Transcribe)
    assert job.options == TranscribeOptions(temperature=(0.2,), seed=3)
    assert job.n_samples == 11 * 16_000
    assert job.deadline is not None
    assert (audio.held, audio.uploads[0]) == (0, script(seconds=11, windows=2, language="de", text="guten"))


@in_loop
async def test_the_language_is_the_one_that_was_detected_last():
    app, *_ = make_app()
    async with client(app) as c:
        body = (await post(c, script(noise="nn", language="de"), language_probabilities="true")).json()
    assert (body["language"], body["language_probability"], body["language_probabilities"]) == (
        "de",
        0.98,
        {"de": 0.98},
    )


@in_loop
async def test_requests_that_name_no_beams_have_those_of_the_service():
    app, _, workers = make_app(beam_size=4)
    async with client(app) as c:
        for fields in ({}, {"beam_size": "2"}, {"temperature": "0.5"}):
            assert (await post(c, **fields)).status_code == 200
    assert [job.options.beam_size for job in workers.started] == [4, 2, None]


@in_loop
async def test_a_named_language_is_not_detected():
    app, _, workers = make_app()
    async with client(app) as c:
        body = (await post(c, language="Korean")).json()
    assert (body["language"], body["language_probability"]) == ("ko", None)
    assert isinstance(workers.started[0], Transcribe)
    assert workers.started[0].options.language == "ko"


@in_loop
@pytest.mark.parametrize("name", ["transcribe", "detect-language", "audio/transcriptions", "audio/translations"])
async def test_what_stands_in_the_query_string_is_refused_and_not_passed_over(name):
    app, audio, _ = make_app()
    asked = [
        ("language=de", "language", "invalid_value"),
        ("api-version=1&task=", "task", "invalid_value"),
        ("ta%73k=translate", "task", "invalid_value"),
        ("file=a.wav", "file", "invalid_value"),
        ("langauge=de", "langauge", "unknown_field"),
        ("x", "x", "unknown_field"),
        ("y" * 1000, "y" * 100, "unknown_field"),
    ]
    async with client(app) as c:
        for query, param, code in asked:
            error = error_of(await post(c, path=f"/v1/{name}?{query}"), 400)
            assert (error["param"], error["code"]) == (param, code)
            assert param in error["message"]
        assert audio.decoded == 0
        fields = {"model": "base"} if "audio" in name else {}
        assert (await post(c, path=f"/v1/{name}?api-version=2024-06-01", **fields)).status_code == 200
        assert (await c.get("/v1/models?langauge=de")).status_code == 200


@in_loop
async def test_a_language_is_detected():
    app, _, workers = make_app()
    async with client(app) as c:
        answer = await post(c, script(seconds=8.1), "/v1/detect-language")
    assert answer.json() == {
        "language": "ko",
        "language_name": "korean",
        "probability": 0.97,
        "probabilities": {"ko": 0.97, "en": 0.02, "de": 0.01, "fr": 0.0},
        "duration": 8.1,
        "model": "base",
        "request_id": answer.headers["x-request-id"],
    }
    assert isinstance(workers.started[0], DetectLanguage)


@in_loop
async def test_a_detected_language_counts_as_work_that_was_done():
    app, _, _ = make_app()
    async with client(app) as c:
        before = app.state.admission.throughput.rate
        for _ in range(20):
            await c.post("/v1/detect-language", files={"file": ("a.wav", script(seconds=1000))})
        assert app.state.admission.throughput.rate > before


@in_loop
async def test_an_english_model_refuses_what_it_cannot_do():
    app, _, workers = make_app(workers=FakeWorkerPool(model_info=ENGLISH_MODEL))
    async with client(app) as c:
        assert error_of(await post(c, b"x", "/v1/detect-language"), 400)["code"] == "invalid_value"
        assert error_of(await post(c, task="translate"), 400)["param"] == "task"
        assert error_of(await post(c, language="de"), 400)["param"] == "language"
        assert (await post(c)).json()["language"] == "en"
    assert len(workers.started) == 1


@in_loop
@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        ({"error": "invalid_audio"}, 400, "invalid_audio"),
        ({"error": "audio_too_long"}, 413, "audio_too_long"),
        ({"error": "bug"}, 500, "internal_error"),
        ({"worker_error": "no_worker"}, 503, "no_worker"),
        ({"worker_error": "descriptors"}, 503, "overloaded"),
        ({"worker_error": "descriptors-on-their-way"}, 503, "overloaded"),
        ({"error": "space"}, 503, "overloaded"),
        ({"error": "file-size"}, 503, "overloaded"),
        ({"error": "memory"}, 503, "overloaded"),
        ({"worker_error": "deadline"}, 504, "deadline_exceeded"),
        ({"worker_error": "quarantined"}, 500, "request_crashed_worker"),
        ({"worker_error": "bug"}, 500, "internal_error"),
        ({"end": "early"}, 500, "internal_error"),
        ({"seconds": 99_999}, 503, "overloaded"),
    ],
)
async def test_each_failure_has_its_answer_and_leaves_nothing(words, status, code):
    app, audio, workers = make_app()
    async with client(app) as c:
        before = open_descriptors()
        answer = await post(c, script(**words))
        assert error_of(answer, status)["code"] == code
        assert "secret" not in answer.text
        assert ("retry-after" in answer.headers) == (status == 503)
        assert answer.headers.get("x-should-retry") == ("false" if status == 500 else None)
        assert open_descriptors() == before
    admission = app.state.admission
    assert (admission.requests, admission.upload_bytes, admission.audio_seconds) == (0, 0, 0.0)
    assert (audio.held, audio.busy, workers.running) == (0, 0, 0)


@in_loop
async def test_a_request_id_is_taken_over_when_it_is_a_plain_word():
    app, _, workers = make_app()
    async with client(app) as c:
        for sent, kept in (("abc-1.2_X", True), ("a" * 64, True), ("a" * 65, False), ("a b", False), ("a\x01", False)):
            answer = await c.get("/livez", headers={"x-request-id": sent})
            assert (answer.headers["x-request-id"] == sent) == kept
            assert 1 <= len(answer.headers["x-request-id"]) <= 64
        both = await asyncio.gather(*(c.post("/v1/transcribe", headers={"x-request-id": "same"}, **WAIT) for _ in "ab"))
    assert [answer.json()["request_id"] for answer in both] == ["same", "same"]
    assert len({job.request_id for job in workers.started}) == 2


@in_loop
async def test_every_answer_error_and_log_line_carries_the_request_id(caplog):
    caplog.set_level("DEBUG", logger="service")
    app, _, _ = make_app(api_keys="key-of-a-test")
    key = {"authorization": "Bearer key-of-a-test"}
    asked = [
        ("POST", "/v1/transcribe", key, b"x", 200),
        ("POST", "/v1/transcribe", key, script(error="invalid_audio"), 400),
        ("POST", "/v1/transcribe", {}, b"x", 401),
        ("POST", "/v1/detect-language", key, script(error="bug"), 500),
        ("POST", "/v1/transcribe", key, script(worker_error="no_worker"), 503),
        ("POST", "/v1/transcribe", key, script(worker_error="descriptors"), 503),
        ("GET", "/nothing", key, b"", 404),
        ("GET", "/v1/models", key, b"", 200),
        ("GET", "/livez", {}, b"", 200),
    ]
    async with client(app) as c:
        caplog.clear()
        for number, (method, path, headers, upload, status) in enumerate(asked):
            files = {"file": ("a.wav", upload)} if upload else None
            answer = await c.request(method, path, headers={**headers, "x-request-id": f"id-{number}"}, files=files)
            assert (answer.status_code, answer.headers["x-request-id"]) == (status, f"id-{number}")
            assert status < 400 or answer.json()["request_id"] == f"id-{number}"
        records = [record for record in caplog.records if record.name == "service"]
    told = [record.fields["request_id"] for record in records if record.message == "request"]
    assert told == [f"id-{number}" for number in range(len(asked))]
    (bug,) = [record for record in records if record.message == "internal_error"]
    assert bug.fields["request_id"] == "id-3"
    (want,) = [record for record in records if record.message == "out_of_resources"]
    assert (want.fields["request_id"], want.fields["reason"]) == ("id-5", "Too many open files")


@in_loop
async def test_errors_of_the_framework_have_the_one_body():
    app, _, _ = make_app()
    async with client(app) as c:
        assert error_of(await c.get("/nothing"), 404)["code"] == "not_found"
        assert error_of(await c.get("/v1/transcribe/"), 404)["code"] == "not_found"
        answer = await c.get("/v1/transcribe")
        assert error_of(answer, 405)["code"] == "method_not_allowed"
        assert answer.headers["allow"] == "POST"
        assert error_of(await c.post("/livez"), 405)["code"] == "method_not_allowed"
        assert error_of(await c.post("/v1/transcribe", json={}), 415)["code"] == "unsupported_media_type"
        assert error_of(await c.post("/v1/transcribe"), 400)["code"] == "invalid_value"
        assert error_of(await c.post("/v1/transcribe", data={"a": "b"}, files={"x": b"y"}), 400)["param"] == "x"


@in_loop
async def test_before_it_is_ready_it_lives_and_refuses():
    app, _, workers = make_app(audio=FakeAudioPool(start_delay=0.3))
    async with lifespan(app) as c:
        assert (await c.get("/livez")).status_code == 200
        for answer in (await c.get("/readyz"), await post(c)):
            assert error_of(answer, 503)["code"] == "starting"
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert (await c.get("/v1/models")).json() == {"object": "list", "data": []}
        assert (await c.get("/metrics")).status_code == 200
    assert not workers.started


@in_loop
async def test_a_process_that_stood_still_lives_and_one_whose_supervisor_has_ended_does_not():
    app, *_ = make_app()
    lifecycle, offset = app.state.lifecycle, 0.0
    async with client(app) as c:
        lifecycle._clock = lambda: time.monotonic() + offset
        offset = 100.0
        assert (await c.get("/livez")).status_code == 200
        for task in lifecycle._background:
            task.cancel()
        offset = 200.0
        assert error_of(await c.get("/livez"), 503)["code"] == "not_alive"


@in_loop
async def test_without_workers_it_is_unready_and_comes_back():
    app, audio, workers = make_app()
    async with client(app) as c:
        workers.ready = False
        for answer in (await c.get("/readyz"), await post(c)):
            assert error_of(answer, 503)["code"] == "no_worker"
        assert "\nwhisper_ready 0.0\n" in (await c.get("/metrics")).text
        workers.ready, audio.ready = True, False
        assert error_of(await c.get("/readyz"), 503)["code"] == "no_worker"
        audio.ready = True
        assert "\nwhisper_ready 1.0\n" in (await c.get("/metrics")).text
        assert (await c.get("/readyz")).json() == {"status": "ready"}
        assert (await post(c)).status_code == 200
        assert (await c.get("/livez")).json() == {"status": "alive"}


@in_loop
async def test_what_can_be_read_has_a_head():
    app, _, _ = make_app()
    async with client(app) as c:
        for path in ("/livez", "/readyz", "/v1/models", "/v1/models/base", "/metrics", "/docs", "/openapi.json"):
            answer = await c.head(path)
            assert (answer.status_code, "content-length" in answer.headers) == (200, True)
            refused = await c.delete(path)
            assert error_of(refused, 405)["code"] == "method_not_allowed"
            assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}


@in_loop
async def test_the_deadline_ends_a_request_wherever_it_is():
    app, audio, workers = make_app(request_timeout_seconds=0.6)
    async with client(app) as c:
        for words in ({"decode_delay": 5}, {"window_delay": 5}, {"window_delay": 0.05, "windows": 100}):
            async with asyncio.timeout(8):
                answer = await post(c, script(**words))
            assert error_of(answer, 504)["code"] == "deadline_exceeded"
            assert (audio.held, audio.busy, workers.running, app.state.admission.requests) == (0, 0, 0, 0)
        page = (await c.get("/metrics")).text
    assert 'whisper_cancellations_total{reason="deadline",stage="decode_audio"} 1.0' in page
    assert 'whisper_cancellations_total{reason="deadline",stage="inference"} 2.0' in page


@in_loop
async def test_models_tells_what_is_loaded():
    app, _, _ = make_app()
    async with client(app) as c:
        (model,) = (await c.get("/v1/models")).json()["data"]
    assert (model["id"], model["object"], model["can_translate"]) == ("base", "model", True)
    assert model["languages"] == ["en", "de", "fr", "ko"]
    (shown,) = re.findall(r'^{"object":"list","data":\[(.+)\]}$', README, re.MULTILINE)
    assert re.findall(r'"(\w+)":', shown) == list(model)


@in_loop
async def test_a_model_is_found_by_its_name_and_the_hosted_ones():
    app, _, workers = make_app()
    async with client(app) as c:
        (listed,) = (await c.get("/v1/models")).json()["data"]
        for name in ("base", "whisper-1"):
            assert (await c.get(f"/v1/models/{name}")).json() == listed | {"id": name}
        for name in ("large-v3", "Base", "openai%2Fwhisper-base", "openai/whisper-base", "%20"):
            error = error_of(await c.get(f"/v1/models/{name}"), 404)
            assert (error["code"], error["param"]) == ("model_not_found", "model")
        workers.ready = False
        assert error_of(await c.get("/v1/models/base"), 503)["code"] == "starting"
        page = (await c.get("/metrics")).text
    labels = {
        line.split('endpoint="')[1].split('"')[0]
        for line in page.splitlines()
        if "whisper_requests_total{" in line and not line.endswith(" 0.0")
    }
    assert labels == {"/readyz", "/v1/models", "/v1/models/{model}"}


@in_loop
async def test_docs_are_there_unless_keys_are():
    app, _, _ = make_app()
    async with client(app) as c:
        page = (await c.get("/docs")).text
        document = (await c.get("/openapi.json")).json()
    form = document["paths"]["/v1/transcribe"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file"]
    assert set(document["paths"]) == {
        "/v1/transcribe", "/v1/detect-language", "/v1/audio/transcriptions", "/v1/audio/translations",
        "/v1/models", "/v1/models/{model}", "/metrics", "/livez", "/readyz",
    }  # fmt: skip
    assert document["servers"] == [{"url": "./"}]
    closed, _, _ = make_app(docs=False)
    async with client(closed) as c:
        for path in ("/docs", "/openapi.json", "/docs/swagger-ui.css"):
            assert (await c.get(path)).status_code == 404
    assert "SwaggerUIBundle" in page


@in_loop
async def test_the_documentation_loads_from_this_service_alone_and_under_any_path():
    app, _, _ = make_app()
    async with client(app) as c:
        page = (await c.get("/docs")).text
        addresses = re.findall(r"""(?:href|src)="([^"]*)"|url: '([^']*)'""", page)
        loaded = [one or other for one, other in addresses]
        assert len(loaded) == 4
        for address in loaded:
            answer = await c.get(urljoin("/docs", address))
            assert (answer.status_code, bool(answer.content)) == (200, True), address
            assert not address.startswith(("/", "http"))
        head = await c.head("/docs/swagger-ui-bundle.js")
    assert (head.status_code, head.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    keyed, _, _ = make_app(api_keys=("first-key",))
    async with client(keyed) as c:
        keys = {"authorization": "Bearer first-key"}
        assert (await c.get("/docs", headers=keys)).status_code == 404
        assert check_error_body((await c.get("/openapi.json", headers=keys)).json())["code"] == "not_found"


def test_two_applications_share_nothing():
    first, _, _ = make_app()
    second, _, _ = make_app()
    assert first.state.admission is not second.state.admission


@pytest.mark.parametrize(("wait", "first", "last"), [(None, 1, 3), (30, 30, 45), (1000, 45, 60)])
@in_loop
async def test_those_who_are_refused_together_do_not_return_together(wait, first, last):
    """Whoever refuses them: the pools say how long it may take, the door spreads it."""
    app, _, workers = make_app()
    workers.raise_in_run = Unavailable("No model worker is ready.", code="no_worker", retry_after_seconds=wait)
    async with client(app) as c:
        answers = [await c.post("/v1/transcribe", files={"file": ("a.wav", b"sound")}) for _ in range(40)]
    assert {answer.status_code for answer in answers} == {503}
    told = {int(answer.headers["retry-after"]) for answer in answers}
    assert len(told) > 1
    assert first <= min(told) <= max(told) <= last

import asyncio
import dataclasses
import json
import re
from collections.abc import Iterator
from typing import get_args

from jsonschema import Draft202012Validator

from model.segments import Skipped, SkipReason, Transcription, Word
from service.http.fields import FIELDS
from service.http.formats import Timings, transcription_response
from service.http.openai_audio import OPENAI_FIELDS, openai_response, parse_openai
from service.http.openapi import DETECT_LANGUAGE, ERRORS, OPENAI_TRANSCRIPTION, OPENAI_TRANSLATION, TRANSCRIBE
from service.http.schemas import parse_transcribe
from tests.fakes import BASE_MODEL, FakeWorkerPool, script, segment
from tests.serving import check_error_body, client, in_loop, lifespan, make_app


def schema_of(operation: dict, media_type: str = "application/json") -> dict:
    return operation["responses"]["200"]["content"][media_type]["schema"]


def check(value: object, schema: dict, path: str = "") -> None:
    """`value` has exactly the documented keys, with the documented types, all the way down."""
    types = {"string": str, "number": (int, float), "integer": int, "array": list, "object": dict, "null": type(None)}
    types["boolean"] = bool
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    assert any(isinstance(value, types[name]) for name in names), path
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema["required"]) <= set(value) <= set(schema["properties"]), path
        for name, one in value.items():
            check(one, schema["properties"][name], f"{path}.{name}")
    if isinstance(value, list):
        assert value, path
        for one in value:
            check(one, schema["items"], f"{path}[]")


@in_loop
async def test_the_document_says_what_the_answers_are():
    app, _, _ = make_app()
    upload = {"files": {"file": ("a.wav", script(seconds=2))}}
    async with client(app) as c:
        good, language, bad = await asyncio.gather(
            c.post("/v1/transcribe", **upload),
            c.post("/v1/detect-language", **upload),
            c.post("/v1/transcribe", data={"x": "y"}, **upload),
        )
    check(good.json(), schema_of(TRANSCRIBE))
    check(language.json(), schema_of(DETECT_LANGUAGE))
    check(bad.json(), ERRORS[400]["content"]["application/json"]["schema"])


def parts(schema: object, path: str = "") -> Iterator[tuple[str, dict]]:
    """Every property of a schema, and of those within, by its path."""
    if isinstance(schema, dict):
        for name, one in schema.get("properties", {}).items():
            yield f"{path}.{name}", one
            yield from parts(one, f"{path}.{name}")
        for one in (schema.get("items"), *schema.get("anyOf", ())):
            yield from parts(one, f"{path}[]")


def contents(document: dict) -> Iterator[tuple[str, dict]]:
    """Every form and answer of the document, by where it stands there."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, one in {"form": operation.get("requestBody", {}), **operation["responses"]}.items():
                for kind, content in one.get("content", {}).items():
                    yield f"{method} {path} {status} {kind}", content


def test_the_document_explains_every_field_of_every_form_and_answer():
    document = make_app(docs=True)[0].openapi()
    found = {f"{where} {path}": one for where, content in contents(document) for path, one in parts(content["schema"])}
    assert len(found) > 300
    assert [path for path, one in found.items() if "description" not in one and "properties" not in one] == []


def test_the_document_shows_answers_that_keep_to_their_schemas():
    shown = {where: one for where, one in contents(make_app(docs=True)[0].openapi()) if "example" in one}
    for one in shown.values():
        Draft202012Validator(one["schema"]).validate(one["example"])
    kinds = ("200 application/json", "200 text/plain", "200 text/vtt", "400 application/json", "413 application/json")
    assert {f"post /v1/transcribe {kind}" for kind in kinds} <= shown.keys()
    assert check_error_body(shown["post /v1/audio/translations 404 application/json"]["example"])["param"] == "model"


def test_the_document_says_that_one_may_come_again():
    for status, answer in ERRORS.items():
        assert ("Retry-After" in answer.get("headers", {})) == (status in (429, 503))


def test_programs_made_from_the_document_have_names_that_people_would_choose():
    document = make_app(docs=True)[0].openapi()
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names)
    assert {"transcribe", "detect_language", "openai_transcription", "readyz"} <= set(names)


def test_the_document_says_which_events_a_stream_has():
    for operation, kinds in (
        (TRANSCRIBE, ["transcript.segment", "transcript.done"]),
        (OPENAI_TRANSCRIPTION, ["transcript.text.delta", "transcript.text.segment", "transcript.text.done"]),
    ):
        schema = schema_of(operation, "text/event-stream")
        assert re.findall(r"`(transcript\.[a-z.]+)`", schema["description"]) == kinds
        check({"data": '{"type":"transcript.done"}'}, schema)
    assert "text/event-stream" not in OPENAI_TRANSLATION["responses"]["200"]["content"]


@in_loop
async def test_the_document_says_that_a_500_is_not_to_be_asked_again():
    app, _, _ = make_app()
    async with client(app) as c:
        failed = await c.post("/v1/transcribe", files={"file": ("a.wav", script(error="bug"))})
        document = (await c.get("/openapi.json")).json()
    answers = [path["post"]["responses"]["500"] for path in document["paths"].values() if "post" in path]
    assert len(answers) == 4
    for answer in answers:
        ((name, header),) = answer["headers"].items()
        assert failed.headers[name] == header["schema"]["const"]


def test_the_document_says_what_words_are():
    said = dataclasses.replace(segment(0, "hello"), words=(Word(" hello", 0.0, 1.0, 0.9),))
    result = Transcription("transcribe", "en", None, 1.0, "hello", (said,), {}, (Skipped("hallucination", 1.0, 2.0),))
    timings = Timings(queue=0.0, decode_audio=0.0, inference=0.0, total=0.0)
    answer = transcription_response(result, "json", model="base", request_id="abc", timings=timings)
    read = json.loads(answer.body)
    assert read["segments"][0]["words"]
    check(read, schema_of(TRANSCRIBE))


def test_the_document_says_what_clients_of_the_hosted_api_get():
    short, verbose = schema_of(OPENAI_TRANSCRIPTION)["anyOf"]
    said = dataclasses.replace(segment(0, "guten"), words=(Word(" guten", 0.0, 1.0, 0.9),))
    result = Transcription("transcribe", "de", None, 1.0, "guten", (said,))
    fields = {"model": "base", "response_format": "verbose_json", "timestamp_granularities[]": "word,segment"}
    for asked, schema in ((fields, verbose), ({"model": "base"}, short)):
        check(json.loads(openai_response(result, parse_openai(asked, BASE_MODEL, "transcribe")).body), schema)
    for operation, task in ((OPENAI_TRANSCRIPTION, "transcribe"), (OPENAI_TRANSLATION, "translate")):
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert form["required"] == ["file", "model"]
        assert set(form["properties"]) == {"file", *OPENAI_FIELDS[task]}


def test_the_document_says_what_each_reason_to_skip_means():
    skipped = schema_of(TRANSCRIBE)["properties"]["warnings"]["items"]["properties"]
    told = re.findall(r"`(\w+)`: \w", skipped["reason"]["description"])
    assert told == list(get_args(SkipReason))


def test_documented_defaults_are_the_real_ones():
    defaults = {
        name: str(field.schema["default"]).lower() for name, field in FIELDS.items() if "default" in field.schema
    }
    assert parse_transcribe(defaults, BASE_MODEL) == parse_transcribe({}, BASE_MODEL)
    assert len(defaults) >= 9


def test_documented_defaults_of_the_hosted_form_may_be_sent_as_the_page_sends_them():
    said = {name: of.schema["default"] for name, of in OPENAI_FIELDS["transcribe"].items() if "default" in of.schema}
    defaults = {name: ",".join(one) if isinstance(one, list) else str(one).lower() for name, one in said.items()}
    plain = {"model": "base"}
    assert parse_openai(defaults | plain, BASE_MODEL, "transcribe") == parse_openai(plain, BASE_MODEL, "transcribe")
    assert len(defaults) >= 9


def test_the_document_takes_none_where_the_form_does():
    form = TRANSCRIBE["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    values = (0.5, -0.5, "none", "some", "")
    for name in (name for name in FIELDS if name.endswith("_threshold")):
        taken = [value for value in values if Draft202012Validator(form[name]).is_valid(value)]
        assert taken == [-0.5 if name == "logprob_threshold" else 0.5, "none"], name
        for value in taken:
            parse_transcribe({name: str(value)}, BASE_MODEL)


def test_the_document_of_the_hosted_form_takes_a_list_of_temperatures_as_the_form_does():
    form = OPENAI_TRANSCRIPTION["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    for value in (0, 0.4, "0,0.4"):
        assert Draft202012Validator(form["temperature"]).is_valid(value)
        parse_openai({"model": "base", "temperature": str(value)}, BASE_MODEL, "transcribe")


def test_the_document_refuses_an_empty_model_as_the_form_does():
    form = OPENAI_TRANSCRIPTION["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    taken = [value for value in ("", "base") if Draft202012Validator(form["model"]).is_valid(value)]
    assert taken == ["base"]


@in_loop
async def test_the_document_says_what_the_model_and_health_are():
    app, _, _ = make_app(api_keys="key-of-a-test")
    starting, _, _ = make_app(workers=FakeWorkerPool(failure="never"))
    key = {"authorization": "Bearer key-of-a-test"}
    async with client(app) as c, lifespan(starting) as early:
        answers = [
            await c.get("/v1/models", headers=key), await c.get("/v1/models"), await c.get("/metrics"),
            await c.get("/livez"), await c.get("/readyz"), await early.get("/readyz"),
            await c.get("/v1/models/base", headers=key), await c.get("/v1/models/large", headers=key),
        ]  # fmt: skip
    assert [answer.status_code for answer in answers] == [200, 401, 401, 200, 200, 503, 200, 404]
    for answer in answers:
        path = re.sub("/models/.+", "/models/{model}", answer.request.url.path)
        operation = app.openapi()["paths"][path]["get"]
        check(answer.json(), operation["responses"][str(answer.status_code)]["content"]["application/json"]["schema"])


def test_the_document_asks_for_a_key_where_one_is_needed():
    keyed, open_to_all = (make_app(docs=True, **keys)[0].openapi() for keys in ({"api_keys": "key-of-a-test"}, {}))
    schemes = keyed["components"]["securitySchemes"]
    azure = {"type": "apiKey", "in": "header", "name": "api-key"}
    assert schemes == {"key": {"type": "http", "scheme": "bearer"}, "api-key": azure}
    asking = {path for path, operations in keyed["paths"].items() for one in operations.values() if "security" in one}
    open_paths = {"/livez", "/readyz"}
    assert asking == set(keyed["paths"]) - open_paths
    assert {"/v1/transcribe", "/v1/audio/translations", "/v1/models/{model}", "/metrics"} <= asking
    assert "security" not in str(open_to_all)


@in_loop
async def test_the_metrics_are_documented_as_the_text_that_they_are():
    app, _, _ = make_app()
    async with client(app) as c:
        kind = (await c.get("/metrics")).headers["content-type"].partition(";")[0]
    assert list(app.openapi()["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == [kind]

import json
from dataclasses import replace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.options import TranscribeOptions
from model.output.subtitles import Layout
from model.segments import Segment, Skipped, Transcription, Word
from service.errors import BadRequest, NotFound, ServiceError
from service.http.openai_audio import OPENAI_FIELDS, OpenAIForm, openai_response, parse_openai
from service.wire.messages import Transcribe
from tests.fakes import BASE_MODEL, ENGLISH_MODEL, FakeWorkerPool, script, segment
from tests.serving import client, error_of, in_loop, make_app

TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
GRANULARITIES = "timestamp_granularities[]"
VERBOSE = {"model": "base", "response_format": "verbose_json"}
UPLOAD = script(seconds=8.47, windows=2, text="<guten", language="de")
SKIPPED = [{"reason": "no_speech", "start": 1.5, "end": 2.0}]
"""What the pretended workers say that they passed over."""
SEGMENT_KEYS = [
    "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob",
]  # fmt: skip


async def post(c: httpx.AsyncClient, upload: bytes = UPLOAD, path: str = TRANSCRIPTIONS, **fields: str | list[str]):
    return await c.post(path, files={"file": ("a.wav", upload)}, data={"model": "base", **fields})


def parsed(**fields: str) -> OpenAIForm:
    return parse_openai({"model": "base", **fields}, BASE_MODEL, "transcribe")


def refused(fields: dict[str, str], task="transcribe") -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        parse_openai({"model": "base", **fields}, BASE_MODEL, task)
    return caught.value


def spoken(*segments: Segment, task="transcribe") -> Transcription:
    return Transcription(task, "de", 0.98, 8.47, "guten Tag", segments)


# --- over HTTP ----------------------------------------------------------------------------------------------------


@in_loop
async def test_json_is_the_text_and_what_it_is_charged_by():
    app, _, workers = make_app()
    async with client(app) as c:
        for asked in ({}, {"response_format": "json"}, {"model": "whisper-1", "stream": "false"}):
            answer = await post(c, **asked)
            usage = {"type": "duration", "seconds": 8.47}
            assert answer.json() == {"text": "<guten <guten", "warnings": SKIPPED, "usage": usage}
            assert answer.headers["content-type"] == "application/json"
            assert len(answer.headers["x-request-id"]) == 32
    for job in workers.started:
        assert isinstance(job, Transcribe)
        assert job.options == TranscribeOptions()


@in_loop
async def test_every_request_has_the_beams_of_the_service():
    app, _, workers = make_app(beam_size=4)
    async with client(app) as c:
        await post(c)
        await post(c, temperature="0")
        await post(c, temperature="0.5")
    assert [job.options.beam_size for job in workers.started] == [4, 4, None]


@in_loop
@pytest.mark.parametrize(
    ("response_format", "media_type", "body"),
    [
        ("text", "text/plain", "<guten <guten\n"),
        ("srt", "application/x-subrip", "1\n00:00:00,000 --> 00:00:01,235\n<guten\n\n2\n00:00:30,000 --> "),
        ("vtt", "text/vtt", "WEBVTT\n\n00:00.000 --> 00:01.235\n&lt;guten\n\n"),
    ],
)
async def test_what_is_no_json_comes_raw(response_format, media_type, body):
    app, _, _ = make_app()
    async with client(app) as c:
        for path in (TRANSCRIPTIONS, TRANSLATIONS):
            answer = await post(c, path=path, response_format=response_format)
            assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
            assert answer.text.startswith(body)


@in_loop
async def test_verbose_json_has_the_keys_of_the_hosted_api():
    app, _, _ = make_app()
    async with client(app) as c:
        body = (await post(c, **VERBOSE)).json()
    assert list(body) == ["task", "language", "duration", "text", "segments", "warnings", "usage"]
    assert (body["task"], body["language"], body["duration"]) == ("transcribe", "german", 8.47)
    assert [one["text"] for one in body["segments"]] == [" <guten", " <guten"]
    assert all(list(one) == SEGMENT_KEYS for one in body["segments"])
    assert body["usage"] == {"type": "duration", "seconds": 8.47}


@pytest.mark.parametrize("response_format", ["json", "verbose_json"])
def test_what_was_skipped_is_told(response_format):
    nothing = openai_response(spoken(segment(0, "guten Tag")), parsed(response_format=response_format))
    assert "warnings" not in json.loads(nothing.body)
    result = replace(spoken(segment(0, "guten Tag")), warnings=(Skipped("no_voice", 3.33333, 8.0),))
    body = json.loads(openai_response(result, parsed(response_format=response_format)).body)
    assert body["warnings"] == [{"reason": "no_voice", "start": 3.333, "end": 8.0}]


@pytest.mark.parametrize("response_format", ["text", "srt", "vtt"])
def test_a_header_tells_it_where_the_answer_is_no_json(response_format):
    result = spoken(segment(0, "guten Tag"))
    form = parsed(response_format=response_format)
    assert "x-warnings" not in openai_response(result, form).headers
    few = (Skipped("no_voice", 3.33333, 8.0), Skipped("repetition", 8.0, 8.47))
    told = openai_response(replace(result, warnings=few), form).headers["x-warnings"]
    assert told == "no_voice 3.333-8.000, repetition 8.000-8.470"
    many = openai_response(replace(result, warnings=few * 1000), form).headers["x-warnings"]
    assert len(many) < 4096
    assert many.endswith(", ...")


@in_loop
async def test_a_translation_is_english_whatever_was_spoken():
    app, _, workers = make_app()
    async with client(app) as c:
        body = (await post(c, path=TRANSLATIONS, **VERBOSE)).json()
        assert list((await post(c, path=TRANSLATIONS)).json()) == ["text", "warnings", "usage"]
    assert (body["task"], body["language"]) == ("translate", "english")
    assert all(job.options == TranscribeOptions(task="translate") for job in workers.started)


@in_loop
async def test_granularities_come_as_often_as_they_like():
    app, _, workers = make_app()
    async with client(app) as c:
        for name in (GRANULARITIES, "timestamp_granularities"):
            for asked in (["word", "segment"], ["segment", "word", "word"], "word,segment"):
                answer = await post(c, **VERBOSE, **{name: asked})
                assert answer.status_code == 200, answer.text
                assert {"words", "segments"} <= set(answer.json())
            assert "segments" not in (await post(c, **VERBOSE, **{name: "word"})).json()
            assert "words" not in (await post(c, **VERBOSE, **{name: ["segment", "segment"]})).json()
        assert error_of(await post(c, temperature=["0", "1"]), 400)["param"] == "temperature"
        twice = await post(c, path=TRANSLATIONS, **{GRANULARITIES: ["word", "word"]})
        assert error_of(twice, 400)["param"] == GRANULARITIES
    assert sum(job.options.word_timestamps for job in workers.started) == 8


@in_loop
@pytest.mark.parametrize("path", [TRANSCRIPTIONS, TRANSLATIONS])
async def test_the_way_through_the_service_is_the_same(path):
    app, audio, workers = make_app(api_keys="key-of-a-test")
    key = {"authorization": "Bearer key-of-a-test"}
    async with client(app) as c:
        c.headers.update(key)
        for words, status, code in (
            ({"error": "invalid_audio"}, 400, "invalid_audio"),
            ({"worker_error": "no_worker"}, 503, "no_worker"),
            ({"worker_error": "deadline"}, 504, "deadline_exceeded"),
            ({"error": "bug"}, 500, "internal_error"),
        ):
            answer = await post(c, script(**words), path)
            assert error_of(answer, status)["code"] == code
            assert ("retry-after" in answer.headers) == (status == 503)
        assert error_of(await post(c, path=f"{path}?model=base"), 400)["param"] == "model"
        answer = await c.get(path)
        assert (error_of(answer, 405)["code"], answer.headers["allow"]) == ("method_not_allowed", "POST")
        assert (await post(c, path=path)).status_code == 200
        page = (await c.get("/metrics")).text
        del c.headers["authorization"]
        assert error_of(await post(c, path=path), 401)["code"] == "invalid_api_key"
    assert f'whisper_requests_total{{endpoint="{path}",status="200"}} 1.0' in page
    task = "translate" if path == TRANSLATIONS else "transcribe"
    assert f'whisper_audio_seconds_total{{language="de",model="base",task="{task}"}} 8.47' in page
    admission = app.state.admission
    assert (admission.requests, audio.held, workers.running) == (0, 0, 0)


@in_loop
async def test_a_model_that_is_not_here_is_not_found():
    app, audio, _ = make_app()
    async with client(app) as c:
        for path in (TRANSCRIPTIONS, TRANSLATIONS):
            error = error_of(await post(c, path=path, model="gpt-4o-transcribe"), 404)
            assert (error["code"], error["param"]) == ("model_not_found", "model")
            assert error["type"] == "invalid_request_error"
            assert error_of(await post(c, path=path, model=""), 400)["param"] == "model"
        english, _, _ = make_app(workers=FakeWorkerPool(model_info=ENGLISH_MODEL))
    async with client(english) as c:
        assert error_of(await post(c, path=TRANSLATIONS, model="tiny.en"), 400)["param"] == "model"
        assert (await post(c, model="tiny.en", response_format="verbose_json")).json()["language"] == "english"
    assert not audio.uploads


@in_loop
async def test_the_model_goes_by_the_names_that_the_operator_gives_it():
    app, _, _ = make_app(model_aliases="gpt-4o-transcribe, openai/whisper-large")
    async with client(app) as c:
        for name in ("gpt-4o-transcribe", "openai/whisper-large", "base", "whisper-1"):
            assert (await post(c, model=name)).status_code == 200
            assert (await post(c, path=TRANSLATIONS, model=name)).status_code == 200
            assert (await c.get(f"/v1/models/{name}")).json()["id"] == name
        streamed = await post(c, model="gpt-4o-transcribe", stream="true")
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert error_of(await post(c, model="gpt-4o"), 404)["code"] == "model_not_found"
        assert error_of(await c.get("/v1/models/gpt-4o"), 404)["code"] == "model_not_found"


# --- the form -----------------------------------------------------------------------------------------------------


def test_temperature_zero_is_the_ladder_and_another_number_is_alone():
    ladder = TranscribeOptions().temperature
    for text, temperature in (("0", ladder), ("0.0", ladder), ("", ladder), ("0.4", (0.4,)), ("1", (1.0,))):
        assert parsed(temperature=text).ours.options.temperature == temperature
    assert parsed().ours.options.temperature == ladder


def test_fields_of_ours_come_along():
    asked = parsed(language="german", prompt="Tag", hotwords="Mekka", vad="true", beam_size="2", guards="false").ours
    assert asked.options == TranscribeOptions(
        language="de", initial_prompt="Tag", hotwords="Mekka", vad=True, beam_size=2, guards=False
    )
    asked = parsed(response_format="srt", max_line_width="42").ours
    assert (asked.layout, asked.response_format) == (Layout(max_line_width=42), "srt")
    marked = parsed(**VERBOSE | {GRANULARITIES: "word", "append_punctuations": "."})
    assert marked.ours.options == TranscribeOptions(word_timestamps=True, append_punctuations=".")
    marked = parsed(**VERBOSE | {GRANULARITIES: "word", "append_punctuations": ""})
    assert marked.ours.options == TranscribeOptions(word_timestamps=True, append_punctuations="")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response_format", "diarized_json"), ("response_format", "tsv"), ("temperature", "warm"),
        ("temperature", "1.5"), ("temperature", "nan"), ("language", "xx"), ("stream", "perhaps"),
        ("chunking_strategy", "server_vad"), ("chunking_strategy[type]", "server_vad"), ("include[]", "logprobs"),
        ("include", "logprobs"), ("keywords[]", "Mekka"), ("languages[]", "de"), ("known_speaker_names[]", "Ann"),
        ("known_speaker_references[]", "data:"), ("task", "translate"), ("timestamps", "word"), ("x", "y"),
        ("language_probabilities", "true"), (GRANULARITIES, "word"), ("timestamp_granularities", "segment"),
        ("vad", "perhaps"), ("max_line_width", "42"), ("prepend_punctuations", "("),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(name, value):
    error = refused({name: value})
    assert isinstance(error, BadRequest)
    assert error.param == name
    assert name in error.message


def test_a_granularity_is_a_word_or_a_segment():
    for text in ("words", "word,", "word,x"):
        assert refused(VERBOSE | {GRANULARITIES: text}).param == GRANULARITIES


@pytest.mark.parametrize("name", ["language", "stream", "chunking_strategy", GRANULARITIES])
def test_a_translation_takes_no_such_field(name):
    assert refused({name: "en"}, "translate").param == name


def test_what_changes_nothing_is_taken():
    empty = {name: "" for name, field in OPENAI_FIELDS["transcribe"].items() if not field.takes_empty}
    for fields in ({"stream": "true"}, {"chunking_strategy": "auto"}, empty):
        fields["model"] = "whisper-1"
        assert parsed(**fields) == parsed()


@given(
    st.dictionaries(
        st.sampled_from([*OPENAI_FIELDS["transcribe"], "include[]", "other"]), st.text(max_size=20), max_size=4
    )
)
def test_any_text_is_a_form_or_a_refusal_that_names_a_field(fields):
    try:
        parse_openai(fields, BASE_MODEL, "transcribe")
    except (BadRequest, NotFound) as error:
        named = error.param
    else:
        named = "model"
    assert named in {*fields, "model"}


# --- the answer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{"word"}, {"segment"}, {"word", "segment"}])
def test_words_stand_beside_the_segments_and_not_inside(asked):
    first = replace(segment(0, "guten"), words=(Word(" guten", 0.12345, 1.0, 0.9),))
    second = replace(segment(1, "Tag."), words=(Word(" Tag.", 30.0, 30.5, 0.8),))
    answer = openai_response(spoken(first, second), replace(parsed(**VERBOSE), granularities=frozenset(asked)))
    body = json.loads(answer.body)
    if "word" in asked:
        words = [
            {"word": "guten", "start": 0.123, "end": 1.0},
            {"word": "Tag.", "start": 30.0, "end": 30.5},
        ]
        assert body["words"] == words
    assert ("words" in body, "segments" in body) == ("word" in asked, "segment" in asked)
    assert all(list(one) == SEGMENT_KEYS for one in body.get("segments", ()))


def test_silence_is_an_answer():
    silent = replace(spoken(), text="")
    assert json.loads(openai_response(silent, parsed()).body)["text"] == ""
    words = parsed(**VERBOSE | {GRANULARITIES: "word"})
    assert json.loads(openai_response(silent, words).body)["words"] == []
    assert json.loads(openai_response(silent, parsed(**VERBOSE)).body)["segments"] == []

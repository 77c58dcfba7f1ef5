"""R20: a wrong parameter is 400 and names its field; nothing of the request is decoded."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.http.fields import FIELDS
from service.http.openai_audio import OPENAI_FIELDS
from tests.serving import client, error_of, in_loop, make_app

pytestmark = pytest.mark.fault
WRONG = [
    ("language", "xx"), ("language", "elvish"), ("language", "en,de"), ("language", "ja"),
    ("response_format", "xml"), ("response_format", "verbose_json"), ("model", "whisper-1"), ("model", "base"),
    ("temperature", "nan"), ("temperature", "-1"), ("temperature", "1e9"), ("temperature", ",".join(["0.1"] * 1000)),
    ("temperature", "warm"), ("task", "sing"), ("timestamps", "words"), ("seed", "x"), ("clip_timestamps", "2,1"),
    ("clip_timestamps", "0,1e308"),
    ("no_speech_threshold", "inf"), ("prompt", "x" * 40_000), ("condition_on_previous_text", "maybe"),
    ("max_line_width", "42"), ("max_line_count", "2"), ("highlight_words", "true"), ("append_punctuations", "."),
    ("vad", "perhaps"), ("long_form", "parallel"),
    ("suppress_tokens", "50257,99999"), ("suppress_tokens", ",".join(["1"] * 100_000)), ("suppress_blank", "no"),
    ("max_tokens", "9" * 30), ("max_initial_timestamp", "1e9"),
]  # fmt: skip


@in_loop
@pytest.mark.parametrize(("name", "value"), WRONG)
async def test_r20_a_wrong_parameter_is_named(name, value):
    app, audio, _ = make_app()
    async with client(app) as c:
        answer = await c.post("/v1/transcribe", files={"file": ("a.wav", b"x")}, data={name: value})
    assert error_of(answer, 400)["param"] == name
    assert not audio.uploads


@in_loop
async def test_r20_a_field_that_comes_twice_is_named():
    app, _, _ = make_app()
    async with client(app) as c:
        answer = await c.post("/v1/transcribe", files={"file": ("a.wav", b"x")}, data={"task": ["translate"] * 2})
    assert error_of(answer, 400)["param"] == "task"


FORMS = {
    "/v1/transcribe": FIELDS,
    "/v1/detect-language": {},
    "/v1/audio/transcriptions": OPENAI_FIELDS["transcribe"],
    "/v1/audio/translations": OPENAI_FIELDS["translate"],
}
NAMES = sorted({name for form in FORMS.values() for name in form})
VALUES = st.one_of(st.text(max_size=30), st.floats().map(str), st.integers().map(str))


@pytest.mark.parametrize("path", FORMS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_r20_no_parameter_is_our_fault(path, data):
    own = st.sampled_from([*FORMS[path], "other"])
    strange = st.sampled_from([*NAMES, "", "file", "a\nb", 'a"b'])
    fields = data.draw(st.dictionaries(st.one_of(own, strange), VALUES, max_size=4))
    if "model" in FORMS[path] and data.draw(st.booleans()):
        fields["model"] = "whisper-1"  # without it nothing else is looked at

    @in_loop
    async def ask() -> None:
        app, _, _ = make_app()
        async with client(app) as c:
            answer = await c.post(path, files={"file": ("a.wav", b"x")}, data=fields)
        assert answer.status_code in (200, 400, 404), answer.text
        if answer.status_code != 200:
            error = error_of(answer, answer.status_code)
            assert answer.status_code == 400 or (error["code"], error["param"]) == ("model_not_found", "model")

    if all(value.encode("utf-8", "ignore").decode() == value for value in fields.values()):
        ask()

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.options import TranscribeOptions
from model.output.subtitles import Layout
from service.errors import BadRequest
from service.http.fields import FIELDS
from service.http.formats import MEDIA_TYPES
from service.http.schemas import check_detect, parse_transcribe
from service.wire.messages import ModelInfo
from tests.fakes import BASE_MODEL, ENGLISH_MODEL


def refused(fields: dict[str, str], model: ModelInfo = BASE_MODEL) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse_transcribe(fields, model)
    return caught.value


def test_no_field_is_the_reference_defaults():
    asked = parse_transcribe({}, BASE_MODEL)
    assert asked.options == TranscribeOptions()
    assert asked.response_format == "json"


def test_every_field_sets_its_option():
    asked = parse_transcribe(
        {
            "task": "translate",
            "language": "German",
            "timestamps": "none",
            "response_format": "vtt",
            "temperature": "0, 0.5,1",
            "prompt": "<|endoftext|> stays text",
            "condition_on_previous_text": "False",
            "no_speech_threshold": " 0.5 ",
            "logprob_threshold": "-2",
            "compression_ratio_threshold": " None",
            "clip_timestamps": "1.5,3,4.25",
            "suppress_tokens": "-1, 11,50257",
            "suppress_blank": "false",
            "max_initial_timestamp": "none",
            "max_tokens": " 40",
            "seed": "7",
        },
        BASE_MODEL,
    )
    assert asked.response_format == "vtt"
    assert asked.options == TranscribeOptions(
        task="translate",
        language="de",
        without_timestamps=True,
        temperature=(0.0, 0.5, 1.0),
        initial_prompt="<|endoftext|> stays text",
        condition_on_previous_text=False,
        no_speech_threshold=0.5,
        logprob_threshold=-2.0,
        compression_ratio_threshold=None,
        clip_timestamps=(1.5, 3.0, 4.25),
        suppress_tokens=(-1, 11, 50257),
        suppress_blank=False,
        max_initial_timestamp=None,
        sample_len=40,
        seed=7,
    )


def test_a_flag_is_a_word_or_a_digit():
    for text, value in (
        ("true", True),
        ("TRUE", True),
        (" 1 ", True),
        ("false", False),
        ("False", False),
        ("0", False),
    ):
        assert parse_transcribe({"vad": text}, BASE_MODEL).options.vad is value


@pytest.mark.parametrize(("name", "value"), [("clip_timestamps", "1"), ("suppress_tokens", "11")])
def test_a_list_has_512_values_at_most(name, value):
    assert len(getattr(parse_transcribe({name: ",".join([value] * 512)}, BASE_MODEL).options, name)) == 512
    assert refused({name: ",".join([value] * 513)}).message == f"{name} has too many values."


def test_no_token_need_be_suppressed():
    assert parse_transcribe({"suppress_tokens": " None"}, BASE_MODEL).options.suppress_tokens == ()


def test_every_option_has_a_field():
    options = {field.name for field in dataclasses.fields(TranscribeOptions)}
    by_timestamps = {"without_timestamps", "word_timestamps"}
    assert options - {field.option for field in FIELDS.values()} == by_timestamps


NO_MARKS = {"prepend_punctuations": "", "append_punctuations": ""}


def test_an_empty_field_is_an_absent_one_unless_it_lists_marks():
    asked = parse_transcribe(dict.fromkeys(FIELDS, ""), BASE_MODEL).options
    assert asked == TranscribeOptions(**NO_MARKS)
    assert not asked.finds_words  # so nobody asks for marks


def test_no_mark_need_belong_to_a_word():
    asked = parse_transcribe({"timestamps": "word", **NO_MARKS}, BASE_MODEL).options
    assert asked == TranscribeOptions(word_timestamps=True, **NO_MARKS)


@pytest.mark.parametrize(
    ("text", "code"),
    [("en", "en"), ("EN", "en"), ("English", "en"), (" korean ", "ko"), ("auto", None), ("Auto", None)],
)
def test_a_language_is_a_code_a_name_or_auto(text, code):
    assert parse_transcribe({"language": text}, BASE_MODEL).options.language == code


@pytest.mark.parametrize("languages", [(), ("en",)])
def test_an_english_model_is_told_english(languages):
    model = dataclasses.replace(ENGLISH_MODEL, languages=languages)
    for fields in ({}, {"language": "auto"}, {"language": "english"}):
        assert parse_transcribe(fields, model).options.language == "en"
    assert refused({"language": "de"}, model).param == "language"
    with pytest.raises(BadRequest, match="English only"):
        check_detect({}, model)


def test_a_model_that_cannot_translate_says_so():
    assert refused({"task": "translate"}, ENGLISH_MODEL).param == "task"
    assert parse_transcribe({"task": "transcribe"}, ENGLISH_MODEL).options.task == "transcribe"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", "summarise"), ("task", "Translate"),
        ("language", "xx"), ("language", "klingon"), ("language", "ja"), ("language", "en\x00"),
        ("timestamps", "words"), ("timestamps", "all"),
        ("hallucination_silence_threshold", "-1"), ("hallucination_silence_threshold", "long"),
        ("max_line_width", "0"), ("max_line_width", "12"), ("max_line_count", "2"), ("max_words_per_line", "1.5"),
        ("highlight_words", "true"), ("highlight_words", "some"), ("prepend_punctuations", "("),
        ("append_punctuations", "."),
        ("response_format", "verbose_json"), ("response_format", "JSON"),
        ("temperature", "nan"), ("temperature", "-1"), ("temperature", "1e9"), ("temperature", "inf"),
        ("temperature", "0,"), ("temperature", "0 1"), ("temperature", "1_0"), ("temperature", "0x1"),
        ("temperature", "1e999"), ("temperature", ",".join(["0"] * 1000)), ("temperature", ",".join(["0"] * 17)),
        ("condition_on_previous_text", "yes"),
        ("no_speech_threshold", "1.1"), ("no_speech_threshold", "NaN"),
        ("logprob_threshold", "1"), ("compression_ratio_threshold", "-1"),
        ("clip_timestamps", "-1,2"), ("clip_timestamps", "5,1"), ("clip_timestamps", "1,1e400"),
        ("clip_timestamps", ",".join(["1"] * 100_000)), ("clip_timestamps", "a"),
        ("suppress_tokens", "-2"), ("suppress_tokens", "50364"), ("suppress_tokens", "[-1]"), ("suppress_tokens", "1,"),
        ("suppress_tokens", ",".join(["1"] * 513)), ("suppress_blank", "maybe"),
        ("max_tokens", "0"), ("max_tokens", "225"), ("max_tokens", "-1"), ("max_tokens", "none"),
        ("max_initial_timestamp", "31"), ("max_initial_timestamp", "-1"), ("max_initial_timestamp", "soon"),
        ("seed", "-1"), ("seed", "1.5"), ("seed", "9" * 19),
        ("beam_size", "0"), ("beam_size", "17"), ("beam_size", "2.0"), ("best_of", "0"), ("best_of", "99"),
        ("patience", "1"), ("patience", "nan"), ("length_penalty", "2"), ("carry_initial_prompt", "on"),
    ],
)  # fmt: skip
def test_a_bad_value_names_its_field(name, value):
    error = refused({name: value})
    assert error.param == name
    assert name in error.message
    assert len(error.message) < 200


_BESIDE = {
    "patience": {"beam_size": "2"},
    "length_penalty": {"beam_size": "2"},
    "max_line_width": {"response_format": "srt"},
    "max_line_count": {"response_format": "srt", "max_line_width": "40"},
    "max_words_per_line": {"response_format": "srt"},
}
"""Fields that mean nothing alone, and what gives them a meaning."""


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if {"minimum", "maximum"} & set(field.schema)])
def test_a_field_takes_what_lies_within_its_documented_bounds_and_no_more(name):
    schema = FIELDS[name].schema
    step = 1 if schema["type"] == "integer" else 0.01
    for bound, beyond in (("minimum", -step), ("maximum", step)):
        if bound in schema:
            beside = _BESIDE.get(name, {})
            parse_transcribe({**beside, name: str(schema[bound])}, BASE_MODEL)
            assert refused({**beside, name: str(schema[bound] + beyond)}).param == name


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if "default" in field.schema])
def test_a_documented_default_is_what_is_done_without_the_field(name):
    assert parse_transcribe({name: str(FIELDS[name].schema["default"])}, BASE_MODEL) == parse_transcribe({}, BASE_MODEL)


def test_a_list_as_some_clients_send_it_is_told_the_form_of_ours():
    for name in ("clip_timestamps[]", "temperature[]"):
        error = refused({name: "0,5"})
        assert (error.param, error.code) == (name, "unknown_field")
        assert f"'{name[:-2]}'" in error.message
        assert "comma" in error.message
    assert "comma" in refused({"clip_timestamps": "[0, 5]"}).message
    assert refused({"colour[]": "red"}).message == "Unknown field 'colour[]'."


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"beam_size": "5", "temperature": "0.4"}, "beam_size"),
        ({"best_of": "5", "temperature": "0"}, "best_of"),
        ({"beam_size": "5", "patience": "0"}, "patience"),
        ({"response_format": "srt", "max_line_count": "2"}, "max_line_count"),
        ({"response_format": "text", "max_words_per_line": "2"}, "max_words_per_line"),
        ({"response_format": "tsv", "highlight_words": "1"}, "highlight_words"),
        ({"response_format": "srt", "language_probabilities": "true"}, "language_probabilities"),
        ({"response_format": "text", "language_probabilities": "1"}, "language_probabilities"),
        ({"timestamps": "word", "append_punctuations": "." * 300}, "append_punctuations"),
        ({"carry_initial_prompt": "true"}, "carry_initial_prompt"),
        ({"carry_initial_prompt": "true", "hotwords": "Anna"}, "carry_initial_prompt"),
        ({"length_penalty": "0.5"}, "length_penalty"),
        ({"length_penalty": "0.5", "best_of": "1"}, "length_penalty"),
        ({"language_probabilities": "true", "language": "german"}, "language_probabilities"),
    ],
)
def test_options_that_contradict_each_other_are_refused(fields, named):
    assert refused(fields).param == named


def test_fields_that_need_another_are_taken_with_it():
    assert parse_transcribe({"carry_initial_prompt": "true", "prompt": "Anna"}, BASE_MODEL).options.carry_initial_prompt
    assert parse_transcribe({"carry_initial_prompt": "false"}, BASE_MODEL).options == TranscribeOptions()
    assert parse_transcribe({"length_penalty": " 0.5 ", "beam_size": "2"}, BASE_MODEL).options.length_penalty == 0.5
    for language in ("auto", "AUTO", ""):
        fields = {"language_probabilities": "true", "language": language}
        assert parse_transcribe(fields, BASE_MODEL).language_probabilities


@pytest.mark.parametrize(
    ("fields", "named"), [({"beam_size": "5"}, "beam_size"), ({"best_of": "3", "temperature": "0.5"}, "best_of")]
)
def test_more_rows_than_the_workers_have_are_refused(fields, named):
    assert parse_transcribe(fields, BASE_MODEL)
    with pytest.raises(BadRequest) as caught:
        parse_transcribe(fields, dataclasses.replace(BASE_MODEL, max_rows=2))
    assert caught.value.param == named


@pytest.mark.parametrize(
    ("fields", "beams"),
    [
        ({}, 5),
        ({"temperature": "0,0.4"}, 5),
        ({"temperature": "0.4"}, None),  # beams are for temperature 0
        ({"beam_size": "2"}, 2),
        ({"beam_size": "1"}, 1),
        ({"patience": "2"}, 5),
    ],
)
def test_requests_that_name_no_beams_have_those_of_the_service(fields, beams):
    assert parse_transcribe(fields, BASE_MODEL, beam_size=5).options.beam_size == beams
    few = dataclasses.replace(BASE_MODEL, max_rows=3)
    assert parse_transcribe(fields, few, beam_size=5).options.beam_size == (3 if beams == 5 else beams)


def test_words_are_found_where_they_are_asked_for_or_needed():
    asked = parse_transcribe(
        {"timestamps": "word", "prepend_punctuations": "(", "append_punctuations": "."}, BASE_MODEL
    )
    assert asked.options == TranscribeOptions(word_timestamps=True, prepend_punctuations="(", append_punctuations=".")
    asked = parse_transcribe({"hallucination_silence_threshold": "1.5"}, BASE_MODEL)
    assert asked.options == TranscribeOptions(hallucination_silence_threshold=1.5)
    assert asked.options.finds_words
    fields = {"response_format": "srt", "max_line_width": "42", "max_line_count": "2", "highlight_words": "false"}
    asked = parse_transcribe(fields, BASE_MODEL)
    assert asked.layout == Layout(max_line_width=42, max_line_count=2)
    assert asked.options == TranscribeOptions(word_timestamps=True)
    assert not parse_transcribe({"highlight_words": "false"}, BASE_MODEL).options.finds_words


@pytest.mark.parametrize("name", ["model", "File", "response-format", "languages[]", "streaming"])
def test_unknown_fields_are_refused(name):
    assert refused({name: "1"}).param == name


def test_detection_takes_no_field():
    check_detect({}, BASE_MODEL)
    for name in ("language", "beam_size", "x"):
        with pytest.raises(BadRequest) as caught:
            check_detect({name: "en"}, BASE_MODEL)
        assert caught.value.param == name


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), st.text(max_size=40), max_size=3))
def test_any_text_is_an_option_or_a_refusal_that_names_a_field(fields):
    try:
        asked = parse_transcribe(fields, BASE_MODEL)
    except BadRequest as error:
        named = error.param
    else:
        named = next(iter(fields), None)
        assert asked.response_format in MEDIA_TYPES
    assert named is None or named in fields


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("beam_size", "-1", "must be a whole number from 0 on, of at most 18 digits."),
        ("seed", "1.5", "must be a whole number from 0 on, of at most 18 digits."),
        ("logprob_threshold", "never", "must be a number or none."),
        ("logprob_threshold", "1", "must be at most 0."),
        ("patience", "none", "must be a number."),
        ("length_penalty", "2", "must be between 0 and 1."),
    ],
)
def test_a_refusal_says_what_is_allowed(field, text, words):
    assert refused({field: text}).message == f"{field} {words}"

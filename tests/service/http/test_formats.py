import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.output.formats import WRITERS
from model.output.subtitles import Layout
from model.segments import Skipped, Transcription, Word
from service.http.formats import (
    MEDIA_TYPES,
    Timings,
    json_response,
    language_response,
    spoken,
    transcription_response,
)
from tests.fakes import segment

TIMINGS = Timings(queue=0.0041234, decode_audio=0.03, inference=0.9, total=0.94)


def result(*segments, text="hello", probability=0.98123456):
    return Transcription("transcribe", "en", probability, 11.00049, text, spoken(segments))


def answer(transcription, response_format="json", **options):
    return transcription_response(
        transcription, response_format, model="base", request_id="abc", timings=TIMINGS, **options
    )


def test_json_has_exactly_the_interface_keys():
    skipped = (Skipped("no_speech", 3.33333, 11.0),)
    body = json.loads(answer(replace(result(segment(0, "hello")), warnings=skipped)).body)
    assert body == {
        "task": "transcribe",
        "language": "en",
        "language_probability": 0.9812,
        "duration": 11.0,
        "text": "hello",
        "segments": [
            {
                "id": 0,
                "seek": 0,
                "start": 0.0,
                "end": 1.235,
                "language": "en",
                "text": " hello",
                "tokens": [50364, 400],
                "temperature": 0.0,
                "avg_logprob": -0.25,
                "compression_ratio": 1.3,
                "no_speech_prob": 0.01,
            }
        ],
        "warnings": [{"reason": "no_speech", "start": 3.333, "end": 11.0}],
        "model": "base",
        "usage": {"type": "duration", "seconds": 11.0},
        "timings": {"queue": 0.0041, "decode_audio": 0.03, "inference": 0.9, "total": 0.94},
        "request_id": "abc",
    }
    assert list(body)[:5] == ["task", "language", "language_probability", "duration", "text"]


def test_a_header_tells_what_was_skipped_where_the_answer_is_no_json():
    skipped = replace(result(segment(0, "hello")), warnings=(Skipped("no_speech", 3.33333, 11.0),))
    for response_format in set(MEDIA_TYPES) - {"json"}:
        assert answer(skipped, response_format).headers["x-warnings"] == "no_speech 3.333-11.000"
    assert "x-warnings" not in answer(skipped).headers


def test_every_language_is_listed_on_request_likeliest_first():
    detected = replace(result(segment(0, "hello")), language_probabilities={"de": 0.01, "en": 0.9812, "nl": 0.005})
    assert "language_probabilities" not in json.loads(answer(detected).body)
    body = json.loads(answer(detected, language_probabilities=True).body)
    assert list(body["language_probabilities"].items()) == [("en", 0.9812), ("de", 0.01), ("nl", 0.005)]
    named = replace(detected, language_probabilities={})
    assert "language_probabilities" not in json.loads(answer(named, language_probabilities=True).body)


def test_words_are_in_the_answer_only_where_they_were_asked_for():
    words = (Word(" hello", 0.12345, 1.0, 0.98765432),)
    body = json.loads(answer(result(replace(segment(0, "hello"), words=words))).body)
    assert body["segments"][0]["words"] == [{"word": " hello", "start": 0.123, "end": 1.0, "probability": 0.987654}]
    assert json.loads(answer(result(replace(segment(0, "hello"), words=()))).body)["segments"][0]["words"] == []


def test_subtitles_take_their_layout():
    words = (Word(" good", 0.0, 0.5, 0.9), Word(" day", 0.5, 1.0, 0.9))
    said = result(replace(segment(0, "good day"), words=words))
    response = transcription_response(
        said, "srt", Layout(max_words_per_line=1), model="base", request_id="abc", timings=TIMINGS
    )
    assert response.body == b"1\n00:00:00,000 --> 00:00:00,500\ngood\n\n2\n00:00:00,500 --> 00:00:01,000\nday\n\n"


def test_silence_is_an_answer():
    silent = result(segment(0, ""), text="", probability=None)
    body = json.loads(answer(silent).body)
    assert (body["text"], body["segments"], body["language_probability"]) == ("", [], None)
    assert answer(silent, "text").body == b""
    assert answer(silent, "vtt").body == b"WEBVTT\n\n"


def test_segments_without_text_are_left_out_and_the_rest_counted():
    assert [(s.id, s.text) for s in spoken((segment(0, "a"), segment(1, ""), segment(2, " "), segment(3, "b")))] == [
        (0, " a"),
        (1, " b"),
    ]


@pytest.mark.parametrize(
    ("response_format", "media_type", "needle"),
    [
        ("json", "application/json", b'"text":" hello"'),
        ("text", "text/plain; charset=utf-8", b"hello\n"),
        ("srt", "application/x-subrip; charset=utf-8", b"00:00:00,000 --> 00:00:01,235\nhello\n"),
        ("vtt", "text/vtt; charset=utf-8", b"00:00.000 --> 00:01.235\nhello\n"),
        ("tsv", "text/tab-separated-values; charset=utf-8", b"0\t1235\thello\n"),
    ],
)
def test_each_format_has_its_type(response_format, media_type, needle):
    response = answer(result(segment(0, "hello")), response_format)
    assert response.headers["content-type"] == media_type
    assert needle in response.body


def test_every_format_is_one_that_can_be_written_and_every_one_that_can_be_written_may_be_asked_for():
    assert set(MEDIA_TYPES) == set(WRITERS)


@given(st.text(), st.sampled_from(list(MEDIA_TYPES)))
def test_any_text_can_be_answered(text, response_format):
    body = answer(result(segment(0, text), text=text), response_format).body
    decoded = body.decode("utf-8")
    if response_format == "json" and text == text.encode("utf-8", "replace").decode():
        assert json.loads(decoded)["text"] == text


def test_languages_come_likeliest_first():
    body = json.loads(
        language_response(
            "ko", {"en": 0.02, "ko": 0.97, "yue": 0.01}, duration=8.1, model="base", request_id="abc"
        ).body
    )
    assert body == {
        "language": "ko",
        "language_name": "korean",
        "probability": 0.97,
        "probabilities": {"ko": 0.97, "en": 0.02, "yue": 0.01},
        "duration": 8.1,
        "model": "base",
        "request_id": "abc",
    }
    assert list(body["probabilities"]) == ["ko", "en", "yue"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_in_json_is_never_sent(number):
    with pytest.raises(ValueError, match="JSON"):
        json_response({"start": number})


def test_times_have_three_digits_in_json_and_probabilities_six():
    third = 1 / 3
    words = (Word(" a", third, 2 * third, 2 * third),)
    one = replace(
        segment(0, "a"), start=third, avg_logprob=-third, compression_ratio=third, no_speech_prob=third, words=words
    )
    body = json.loads(answer(replace(result(one), warnings=(Skipped("no_voice", third, 2 * third),))).body)
    (told,) = body["segments"]
    assert (told["start"], told["words"]) == (
        0.333,
        [{"word": " a", "start": 0.333, "end": 0.667, "probability": 0.666667}],
    )
    assert (told["avg_logprob"], told["compression_ratio"], told["no_speech_prob"]) == (-0.333333, 0.333333, 0.333333)
    assert body["warnings"] == [{"reason": "no_voice", "start": 0.333, "end": 0.667}]
    heard = language_response("de", {"de": 2 * third, "en": third}, duration=third, model="base", request_id="abc")
    body = json.loads(heard.body)
    assert (body["probability"], body["duration"]) == (0.666667, 0.333)
    assert body["probabilities"] == {"de": 0.666667, "en": 0.333333}

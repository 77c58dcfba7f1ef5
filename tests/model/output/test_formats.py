import io
import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.output.formats import WRITERS, to_json, to_paragraph, to_srt, to_text, to_tsv, to_vtt
from model.output.subtitles import Layout
from model.segments import Segment, Skipped, Transcription, Word


def segment(text: str, start: float = 0.0, end: float = 1.5, number: int = 0) -> Segment:
    return Segment(number, 0, start, end, text, (50364, 400), 0.2, -0.25, 1.3, 0.01)


def transcription(*segments: Segment) -> Transcription:
    text = "".join(one.text for one in segments)
    return Transcription("transcribe", "en", 0.98, 11.0, text, segments, {"en": 0.98, "de": 0.02})


TWO = (segment(" And so, my fellow Americans", 0.0, 4.0), segment(" ask not.", 3725.25, 3726.0005, 1))


def test_text_is_a_line_per_segment() -> None:
    assert to_text(TWO) == "And so, my fellow Americans\nask not.\n"


def test_a_paragraph_is_one_line_of_all_that_was_said() -> None:
    spoken = Transcription("transcribe", "en", None, 2.0, " Hello.\n Who\x00 is\ud800 there? ", ())
    assert to_paragraph(spoken) == "Hello.  Who  is\ufffd there?\n"
    assert to_paragraph(replace(spoken, text=" \n")) == ""


def test_srt_has_numbers_hours_and_commas() -> None:
    assert to_srt(TWO) == (
        "1\n00:00:00,000 --> 00:00:04,000\nAnd so, my fellow Americans\n\n"
        "2\n01:02:05,250 --> 01:02:06,000\nask not.\n\n"
    )


def test_vtt_has_hours_only_where_there_are_some() -> None:
    assert to_vtt(TWO) == (
        "WEBVTT\n\n00:00.000 --> 00:04.000\nAnd so, my fellow Americans\n\n01:02:05.250 --> 01:02:06.000\nask not.\n\n"
    )


def test_tsv_has_milliseconds_under_a_header() -> None:
    assert to_tsv(TWO) == "start\tend\ttext\n0\t4000\tAnd so, my fellow Americans\n3725250\t3726000\task not.\n"


def test_json_holds_every_field_of_every_segment() -> None:
    result = transcription(*TWO)
    read = json.loads(to_json(result))
    expected = json.loads(json.dumps(asdict(result)))
    del expected["language_probabilities"]
    for one in expected["segments"]:
        del one["words"]
    assert read == expected
    assert list(read) == ["task", "language", "language_probability", "duration", "text", "segments", "warnings"]


def test_json_has_words_where_they_were_asked_for() -> None:
    word = Word(" Hi", 0.0, 0.5, 0.75)
    read = json.loads(to_json(transcription(replace(segment(" Hi"), words=(word,)))))
    assert read["segments"][0]["words"] == [{"word": " Hi", "start": 0.0, "end": 0.5, "probability": 0.75}]


def test_json_has_no_dust_of_sums() -> None:
    word = Word(" Hi", 0.1 + 0.2, 3.0 * 1.1, 2.0 / 3.0)
    one = replace(segment(" Hi"), start=0.1 + 0.2, end=380 * 0.02, words=(word,))
    skipped = Skipped("repetition", 24.36 - 0.12, 30.0)
    text = to_json(replace(transcription(one), warnings=(skipped,), duration=7.6000625))
    assert '"start": 0.3, "end": 7.6,' in text
    assert '{"word": " Hi", "start": 0.3, "end": 3.3, "probability": 0.666667}' in text
    assert '{"reason": "repetition", "start": 24.24, "end": 30.0}' in text
    assert '"duration": 7.600062' in text


def test_json_keeps_other_scripts_readable_and_has_no_number_that_json_lacks() -> None:
    odd = replace(segment(" 안녕하세요"), avg_logprob=float("-inf"), compression_ratio=float("nan"))
    text = to_json(transcription(odd))
    assert "안녕하세요" in text
    assert text.count("\n") == 1
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read["segments"][0]["avg_logprob"] is read["segments"][0]["compression_ratio"] is None


def test_vtt_escapes_markup_and_srt_leaves_it() -> None:
    one = (segment(" <i>R&D</i> &amp; --> x"),)
    assert to_vtt(one).splitlines()[3] == "&lt;i&gt;R&amp;D&lt;/i&gt; &amp;amp; --&gt; x"
    assert to_srt(one).splitlines()[2] == "<i>R&D</i> &amp; -> x"


@pytest.mark.parametrize("arrow", ["-->", "--->", "---->", "-->-->", "--->>"])
def test_no_arrow_survives_in_srt_however_it_is_made(arrow: str) -> None:
    """Taking one dash from `--->` would leave an arrow."""
    assert to_srt((segment(arrow),)).count("-->") == 1


def test_segments_without_text_are_left_out_and_not_counted() -> None:
    some = (segment(""), segment(" \n\t "), segment("\0\x1b"), segment(" x"))
    assert to_text(some) == "x\n"
    assert to_srt(some).startswith("1\n")
    assert to_srt(some).count("-->") == to_vtt(some).count("-->") == 1
    assert to_tsv(some).count("\n") == 2


def test_nothing_said_gives_an_empty_file_of_each_kind() -> None:
    nothing = transcription()
    written = {name: write(nothing) for name, write in WRITERS.items()}
    assert written.pop("json").endswith('"text": "", "segments": [], "warnings": []}\n')
    assert written == {"text": "", "srt": "", "vtt": "WEBVTT\n\n", "tsv": "start\tend\ttext\n"}


def test_more_than_a_hundred_hours_take_more_digits() -> None:
    late = (segment(" x", 359_999.9996, 3_600_000.0),)
    assert "100:00:00,000 --> 1000:00:00,000" in to_srt(late)
    assert "100:00:00.000 --> 1000:00:00.000" in to_vtt(late)
    assert "360000000\t3600000000\tx" in to_tsv(late)


def test_a_cue_ends_after_it_starts() -> None:
    for end in (2.0, 2.0004, 1.0, -1.0):
        assert "00:02.000 --> 00:02.001" in to_vtt((segment(" x", 2.0, end),))
        assert "00:00:02,000 --> 00:00:02,001" in to_srt((segment(" x", 2.0, end),))


@pytest.mark.parametrize("layout", [Layout(), Layout(max_line_width=20), Layout(highlight_words=True)])
def test_a_cue_does_not_start_before_the_one_before_it(layout: Layout) -> None:
    """A model may time the end of one clip beyond the start of the next one."""
    some = (segment(" x", 0.0, 2.0), segment(" y", 4.5, 5.0), segment(" z", 3.0, 3.5), segment(" w", 6.0, 7.0))
    starts = re.findall(r"^([\d:.]+) -->", to_vtt(some, layout), re.MULTILINE)
    assert starts == sorted(starts)
    assert len(starts) >= 4
    assert "00:04.500 --> 00:04.501\nz" in to_vtt(some)
    assert "4500\t4500\tz\n" in to_tsv(some)


times = st.floats(-1.0, 4_000_000.0)


@given(times, times)
def test_later_is_never_written_as_earlier(one: float, other: float) -> None:
    first, second = sorted((one, other))
    written = to_srt((segment("x", first, first + 5), segment("y", second, second + 5)))
    starts = [
        ((int(h) * 60 + int(m)) * 60 + int(s)) * 1000 + int(ms)
        for h, m, s, ms in re.findall(r"^(\d+):([0-5]\d):([0-5]\d),(\d{3}) -->", written, re.MULTILINE)
    ]
    assert starts == [max(0, round(time * 1000)) for time in (first, second)]
    assert starts == sorted(starts)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["text", "srt", "vtt", "tsv"])
def test_plain_speech_is_written_as_by_the_reference(name: str, tmp_path: Any) -> None:
    utils = pytest.importorskip("whisper.utils")
    result = transcription(*TWO, segment(" 그래도 괜찮아요 -> \"네\" 'ok' 100%", 359_999.98, 360_000.5, 2))
    writer = utils.get_writer({"text": "txt"}.get(name, name), str(tmp_path))
    theirs = io.StringIO()
    segments = [asdict(one) for one in result.segments]
    for one in segments:
        del one["words"]
    writer.write_result({"segments": segments}, file=theirs)
    if name == "vtt":
        assert WRITERS[name](result).replace("&gt;", ">") == theirs.getvalue()
    else:
        assert WRITERS[name](result) == theirs.getvalue()


def test_it_needs_no_torch() -> None:
    code = "import sys, model.output.formats; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

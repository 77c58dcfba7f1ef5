import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import OptionError
from model.output.formats import to_srt, to_tsv, to_vtt
from model.output.subtitles import Layout, check_format, cues
from model.segments import Segment, Word


def spoken(*words: str, start: float = 0.0, length: float = 0.5, pauses: dict[int, float] | None = None) -> Segment:
    """A segment whose words take `length` seconds each, after a pause where `pauses` names their index."""
    done = []
    for i, word in enumerate(words):
        start += (pauses or {}).get(i, 0.0)
        done.append(Word(word, start, start + length, 0.9))
        start += length
    return Segment(0, 0, done[0].start, start, "".join(words), (), 0.0, -0.1, 1.0, 0.0, words=tuple(done))


def english(text: str, **timing) -> Segment:
    return spoken(*(f" {word}" for word in text.split()), **timing)


def shown(segment: Segment, **layout) -> list[list[str]]:
    return [
        ["".join(word.word for word in line).strip() for line in cue.lines] for cue in cues([segment], Layout(**layout))
    ]


def test_a_width_alone_breaks_lines_and_a_count_ends_cues() -> None:
    segment = english("one two three four five six seven")
    assert shown(segment, max_line_width=9) == [["one two", "three", "four five", "six seven"]]
    assert shown(segment, max_line_width=9, max_line_count=2) == [["one two", "three"], ["four five", "six seven"]]


def test_words_a_line_alone_are_cues_of_one_line() -> None:
    segment = english("one two three four five")
    assert shown(segment, max_words_per_line=2) == [["one two"], ["three four"], ["five"]]
    assert shown(segment, max_words_per_line=2, max_line_width=20) == [["one two", "three", "four five"]]
    assert shown(segment, max_words_per_line=2, max_line_count=2) == [["one two", "three four"], ["five"]]


def test_a_full_cue_ends_at_the_last_mark_of_its_second_half() -> None:
    segment = english("He came in, and then he sat down on a chair")
    limits = {"max_line_width": 17, "max_line_count": 1}
    assert shown(segment, **limits) == [["He came in,"], ["and then he sat"], ["down on a chair"]]
    early = english("So, there was nothing to do")
    assert shown(early, **limits) == [["So, there was"], ["nothing to do"]]


def test_no_scrap_follows_a_full_cue_and_lines_are_of_like_length() -> None:
    segment = english("Ask not what your country can do for all of you here now")
    assert shown(segment, max_line_width=24, max_line_count=2) == [
        ["Ask not what", "your country can"],
        ["do for all of", "you here now"],
    ]
    assert shown(english("one two three four"), max_line_width=15) == [["one two", "three four"]]


def test_a_cue_is_not_held_through_a_pause() -> None:
    segment = english("one two three", pauses={2: 2.5})
    assert shown(segment, max_line_width=40) == [["one two"], ["three"]]
    limits = {"max_line_width": 40, "max_line_count": 1}
    assert shown(english("one two three four five", pauses={4: 2.5}), **limits) == [["one two three four"], ["five"]]
    assert shown(english("one two three", length=2.5), max_line_width=40) == [["one two three"]]  # a word is no pause
    assert to_vtt([segment]) == "WEBVTT\n\n00:00.000 --> 00:04.000\none two three\n\n"  # but whole without a layout


def test_lines_break_before_blanks_and_in_scripts_without_them_anywhere_that_reads_well() -> None:
    assert shown(spoken(" well", "-known", " men"), max_line_width=11) == [["well-known", "men"]]
    rain = spoken("今日", "は", "、", "「", "雨", "」", "です")
    assert shown(rain, max_line_width=3) == [["今日", "は、", "「雨」", "です"]]
    assert shown(spoken("これは", "Whis", "per", "です"), max_line_width=7) == [["これは", "Whisper", "です"]]
    assert shown(spoken("今日", "は", "、", "雨"), max_line_width=3) == [["今日", "は、雨"]]
    assert shown(spoken("今日", "は", "」", "雨"), max_line_width=3) == [["今日", "は」雨"]]
    assert shown(spoken("한국", "어"), max_words_per_line=1) == [["한국어"]]
    assert shown(spoken("กา", "นา"), max_words_per_line=1) == [["กา"], ["นา"]]
    # A base and its mark stay together.
    assert shown(spoken("ก", "ี", "น"), max_line_width=2) == [["กี", "น"]]


def test_what_no_line_can_hold_is_cut_between_its_words_and_a_word_never() -> None:
    assert shown(spoken("Whis", "per", "model", "s"), max_line_width=6) == [["Whis", "per", "models"]]
    assert shown(english("a Donaudampfschiff b"), max_line_width=5) == [["a", "Donaudampfschiff", "b"]]


def test_each_word_is_underlined_while_it_is_spoken() -> None:
    segment = spoken(" a<b", ' "c",', pauses={1: 0.25})
    layout = Layout(highlight_words=True)
    assert to_vtt([segment], layout).split("\n\n")[1:] == [
        '00:00.000 --> 00:00.500\n<u>a&lt;b</u> "c",',
        '00:00.500 --> 00:00.750\na&lt;b "c",',
        '00:00.750 --> 00:01.250\na&lt;b <u>"c",</u>',
        "",
    ]
    assert "1\n00:00:00,000 --> 00:00:00,500\n<u>a<b</u>" in to_srt([segment], layout)


@pytest.mark.parametrize(
    ("layout", "times"),
    [
        (Layout(max_line_width=20), ["0-4", "3-5", "7-10"]),
        (Layout(highlight_words=True), ["0-2 a", "2-4 b", "4-4.5 c", "4.5-5 d", "7-8 e", "8-9", "9-10 g"]),
    ],
)
def test_words_that_overlap_are_underlined_one_after_the_other_and_nothing_is_shown_between_cues(layout, times) -> None:
    said = [
        [(" a", 0, 2), (" b", 2, 4)],
        [(" c", 3, 4.5), (" d", 4.5, 5)],
        [(" e", 7, 8), (" f", 8.5, 8.5), (" g", 9, 10)],
    ]
    words = [tuple(Word(text, start, end, 0.9) for text, start, end in segment) for segment in said]
    made = to_vtt([dataclasses.replace(spoken(" x"), words=segment) for segment in words], layout)
    found = re.findall(r"^00:0?([\d.]+) --> 00:0?([\d.]+)\n(?:.*<u>(.)</u>)?", made, re.MULTILINE)
    assert [f"{float(start):g}-{float(end):g} {word}".strip() for start, end, word in found] == times


def test_whatever_its_words_are_a_cue_stays_one() -> None:
    segment = spoken(" a\n\n00:01.000 --> 00:02.000\n", "\x00\n", " b\ud800", length=1.0)
    layout = Layout(max_line_width=99)
    line = "a 00:01.000 {} 00:02.000  b\ufffd\n\n"
    assert to_vtt([segment], layout) == "WEBVTT\n\n00:00.000 --> 00:03.000\n" + line.format("--&gt;")
    assert to_srt([segment], layout) == "1\n00:00:00,000 --> 00:00:03,000\n" + line.format("->")


def test_words_of_no_length_are_shown_all_the_same() -> None:
    segment = spoken(" one", " two", length=0.0, start=1.0)
    for highlight in (False, True):
        layout = Layout(highlight_words=highlight, max_line_width=20)
        assert to_vtt([segment], layout) == "WEBVTT\n\n00:01.000 --> 00:01.001\none two\n\n"


def test_a_row_of_a_table_is_a_cue_in_one_line() -> None:
    segment = english("one two three four")
    text = to_tsv([segment], Layout(max_line_width=7, max_line_count=2))
    assert text == "start\tend\ttext\n0\t1000\tone two\n1000\t2000\tthree four\n"


def test_a_segment_whose_words_nobody_asked_for_is_shown_whole() -> None:
    segment = dataclasses.replace(english("one two"), words=None)
    assert to_tsv([segment], Layout(max_words_per_line=1)) == "start\tend\ttext\n0\t1000\tone two\n"


@pytest.mark.parametrize(
    ("layout", "named"),
    [
        ({"max_line_width": 0}, "max_line_width"),
        ({"max_line_width": 1001}, "max_line_width"),
        ({"max_line_count": 0, "max_line_width": 9}, "max_line_count"),
        ({"max_line_count": 2}, "max_line_count"),
        ({"max_words_per_line": -1}, "max_words_per_line"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(layout, named) -> None:
    with pytest.raises(OptionError) as caught:
        Layout(**layout)
    assert caught.value.param == named


def test_a_layout_is_for_formats_that_have_lines() -> None:
    check_format(Layout(), "json")
    check_format(Layout(max_line_width=9, highlight_words=True), "vtt")
    check_format(Layout(max_line_width=9, max_line_count=1), "tsv")
    for layout, name, named in (
        (Layout(max_line_width=9), "json", "max_line_width"),
        (Layout(max_line_width=9), "tsv", "max_line_width"),
        (Layout(max_words_per_line=9), "text", "max_words_per_line"),
        (Layout(highlight_words=True), "tsv", "highlight_words"),
    ):
        with pytest.raises(OptionError) as caught:
            check_format(layout, name)
        assert caught.value.param == named


@settings(max_examples=200, deadline=None)
@given(
    words=st.lists(st.text("ab -.,「」日本กี\u0301", min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=12),
    gaps=st.lists(st.sampled_from([0.0, 0.5, 3.0]), min_size=1, max_size=5),
    width=st.none() | st.integers(1, 20),
    count=st.none() | st.integers(1, 3),
    most=st.none() | st.integers(1, 4),
)
def test_no_word_is_lost_and_no_limit_broken(words, gaps, width, count, most) -> None:
    if width is None and most is None:
        count = None
    segment = spoken(*words, pauses={i: gaps[i % len(gaps)] for i in range(1, len(words))})
    layout = Layout(max_line_width=width, max_line_count=count, max_words_per_line=most)
    made = list(cues([segment], layout))
    assert [word for cue in made for word in cue.words] == list(segment.words)
    for cue in made:
        assert all(cue.lines)
        assert count is None or len(cue.lines) <= count
        for line in cue.lines:
            assert width is None or len(line) == 1 or len("".join(word.word for word in line).strip()) <= width

"""R21: whatever a transcript holds, every format reads back as the same segments.

The readers below are written from the formats' own rules, as a strict player would read them, and refuse what is out of
place. "The same text" is `one_line`: line breaks and control characters are a blank, half a surrogate pair is U+FFFD.
"""

import dataclasses
import html
import json
import re
import unicodedata
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.output.formats import WRITERS
from model.output.subtitles import Layout
from model.segments import Segment, Transcription, Word

PIECES = [
    "-->",
    "->",
    "--",
    ">",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "\t",
    "\0",
    "\x1b[2J",
    "\x85",
    "\u2028",
    "<b>",
    "</b>",
    "&",
]
PIECES += [
    "<script>alert(1)</script>",
    "&lt;",
    "&amp;gt;",
    "WEBVTT",
    "NOTE x",
    "STYLE",
    "1",
    "2\n00:00:01,000 --> ",
    '"',
]
PIECES += [
    "00:01.000 --> 00:02.000",
    "{\\an8}",
    "\ud800",
    "\udc00",
    "\ufeff",
    " ",
    "\u3000",
    "<00:01.000>",
    "\\n",
    "한",
]
texts = st.lists(st.sampled_from(PIECES) | st.text(st.characters(), max_size=5), max_size=6).map("".join)
times = st.integers(0, 500_000_000)


@dataclass(frozen=True)
class Cue:
    start: int
    """Milliseconds, like `end`."""
    end: int
    text: str


@st.composite
def transcripts(draw: st.DrawFn) -> Transcription:
    starts = sorted(draw(st.lists(times, max_size=5)))
    segments = tuple(
        Segment(i, 0, ms / 1000, (ms + draw(st.integers(1, 30_000))) / 1000, draw(texts), (1,), 0.0, -0.1, 1.0, 0.0)
        for i, ms in enumerate(starts)
    )
    return Transcription("transcribe", "en", None, 1.0, "".join(one.text for one in segments), segments)


def one_line(text: str) -> str:
    plain = "".join("\ufffd" if unicodedata.category(c) == "Cs" else c for c in text)
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in plain).strip()


def squeezed(text: str) -> str:
    return re.sub(r" +", " ", text)


def expected(result: Transcription) -> list[Cue]:
    cues = (Cue(round(one.start * 1000), round(one.end * 1000), one_line(one.text)) for one in result.segments)
    return [Cue(cue.start, cue.end, squeezed(cue.text)) for cue in cues if cue.text]


def milliseconds(clock: str, mark: str) -> int:
    found = re.fullmatch(r"(?:(\d{2,}):)?([0-5]\d):([0-5]\d)" + re.escape(mark) + r"(\d{3})", clock)
    assert found, clock
    hours, minutes, seconds, rest = (int(part or 0) for part in found.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def blocks(text: str) -> list[list[str]]:
    """Blocks between blank lines, by any line break that a reader may know."""
    assert text == "" or text.endswith("\n\n")
    return [block.splitlines() for block in text.removesuffix("\n\n").split("\n\n")] if text else []


def cue(times_line: str, text: str, mark: str) -> Cue:
    start, end = (milliseconds(clock, mark) for clock in times_line.split(" --> "))
    assert start < end
    return Cue(start, end, text)


def read_srt(text: str) -> list[Cue]:
    cues = []
    for number, (first, times_line, line) in enumerate(blocks(text), start=1):
        assert first == str(number)
        assert "-->" not in line
        cues.append(cue(times_line, squeezed(line), ","))
    return cues


def read_vtt(text: str) -> list[Cue]:
    header, *rest = blocks(text)
    assert header == ["WEBVTT"]
    cues = []
    for times_line, line in rest:
        assert "<" not in line
        assert "-->" not in line
        assert "\0" not in line
        assert not re.search(r"&(?!(amp|lt|gt);)", line)
        cues.append(cue(times_line, squeezed(html.unescape(line)), "."))
    return cues


def read_tsv(text: str) -> list[Cue]:
    header, *rows = text.splitlines()
    assert header == "start\tend\ttext"
    return [Cue(int(start), int(end), squeezed(line)) for start, end, line in (row.split("\t") for row in rows)]


@given(transcripts())
@example(Transcription("transcribe", "en", None, 1.0, "", (Segment(0, 0, 0, 1, "--->\n\n2\n--->", (), 0, 0, 0, 0),)))
@settings(max_examples=300, deadline=None)
def test_R21_every_format_reads_back_as_the_same_segments(result: Transcription) -> None:
    cues = expected(result)
    written = {name: write(result) for name, write in WRITERS.items()}
    for text in written.values():
        assert text.encode("utf-8").decode("utf-8-sig") == text.removeprefix("\ufeff")
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    assert read_vtt(written["vtt"]) == cues
    assert read_tsv(written["tsv"]) == cues
    assert read_srt(written["srt"]) == [Cue(c.start, c.end, re.sub(r"-{2,}>", "->", c.text)) for c in cues]
    assert [squeezed(line) for line in written["text"].splitlines()] == [c.text for c in cues]


@given(transcripts())
@settings(max_examples=200, deadline=None)
def test_R21_json_keeps_every_character(result: Transcription) -> None:
    read = json.loads(WRITERS["json"](result).encode("utf-8"))
    # Two halves that meet are one character to every JSON reader.
    texts = [one.text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") for one in result.segments]
    assert [one["text"] for one in read["segments"]] == texts
    assert [(one["start"], one["end"]) for one in read["segments"]] == [(o.start, o.end) for o in result.segments]


layouts = st.builds(
    Layout,
    max_line_width=st.integers(1, 30),
    max_line_count=st.none() | st.integers(1, 3),
    max_words_per_line=st.none() | st.integers(1, 4),
    highlight_words=st.booleans(),
)


@st.composite
def worded(draw: st.DrawFn) -> Transcription:
    """Transcripts whose words are as strange as their texts, and whose times may be anything but disordered."""
    segments = []
    at = 0
    for i in range(draw(st.integers(0, 3))):
        words = []
        for text in draw(st.lists(texts, max_size=5)):
            at += draw(st.sampled_from([0, 0, 300, 5_000]))
            length = draw(st.sampled_from([0, 20, 700]))
            words.append(Word(text, at / 1000, (at + length) / 1000, 0.5))
            at += length
        whole = "".join(word.word for word in words)
        segments.append(Segment(i, 0, at / 1000, at / 1000, whole, (1,), 0.0, -0.1, 1.0, 0.0, words=tuple(words)))
    return Transcription("transcribe", "en", None, 1.0, "", tuple(segments))


def unblanked(text: str) -> str:
    return "".join(text.split())


@given(worded(), layouts)
@settings(max_examples=300, deadline=None)
def test_R21_lines_and_cues_of_any_shape_read_back_as_the_same_words(result: Transcription, layout: Layout) -> None:
    words = [word for segment in result.segments for word in segment.words or ()]
    said = unblanked("".join(one_line(word.word) for word in words))
    plain = dataclasses.replace(layout, highlight_words=False)
    # SRT has no escapes: an arrow there loses dashes.
    read = shaped(WRITERS["srt"](result, plain), ",")
    assert unblanked("".join(line for _, line in read)).replace("-", "") == said.replace("-", "")
    read = shaped(WRITERS["vtt"](result, plain), ".")
    assert unblanked("".join(html.unescape(line) for _, line in read)) == said
    for name, mark in (("srt", ","), ("vtt", ".")):
        read = shaped(WRITERS[name](result, layout), mark)
        assert [times for times, _ in read] == sorted(times for times, _ in read)
        for _, text in read:
            assert name == "srt" or text.count("<u>") == text.count("</u>") <= 1
    rows = WRITERS["tsv"](result, plain).splitlines()[1:]
    assert unblanked("".join(row.split("\t")[2] for row in rows)) == said


def shaped(text: str, mark: str) -> list[tuple[int, str]]:
    """(start, text) of every cue; refuses what a strict reader would."""
    cues = []
    for block in blocks(text.removeprefix("WEBVTT\n\n")):
        times_line, *lines = block if mark == "." else block[1:]
        assert lines
        assert all(line.strip() for line in lines)
        assert all("-->" not in line for line in lines)
        if mark == ".":
            assert not re.search(r"<(?!/?u>)|&(?!(amp|lt|gt);)", "".join(lines))
        cues.append((cue(times_line, "", mark).start, "".join(lines)))
    return cues

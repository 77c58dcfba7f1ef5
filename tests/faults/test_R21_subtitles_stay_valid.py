"""R21: whatever a transcript holds, every format reads back as the same segments.

The readers below are written from the formats' own rules, as a strict player would read them, and refuse what is out of
place. "The same text" is `one_line`: line breaks and control characters are a blank, half a surrogate pair is U+FFFD.
"""

import html
import json
import re
import unicodedata
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.formats import WRITERS
from model.segments import Segment, Transcription

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

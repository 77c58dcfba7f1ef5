"""Segments to files: text, SubRip (SRT), WebVTT, TSV and JSON.

Gets segments from `transcript`, gives strings to the command line and to the service. Imports no torch.

- What a model writes is not trusted: a file stays valid whatever the text holds, and reads back as the same text.
  In all formats but JSON a segment is one line, or the cues and lines of a `Layout` (`model.output.subtitles`): control
  characters and line breaks become a blank, half a surrogate pair becomes U+FFFD, and what has no text is left out.
  JSON keeps every character.
- WebVTT has escapes and uses them. SRT has none: an arrow in the text loses its dashes but one (`->`), so that no
  reader takes it for a time line; markup in it is left alone, as SRT readers differ about it.
- On plain text with times in order the files are those of the reference, byte for byte.

Sources: openai/whisper utils.py; WebVTT (W3C), section 4; RFC 8259 (JSON).
"""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from model.output.subtitles import Cue, Layout, cues
from model.segments import Segment, Transcription, Word

_PLAIN = Layout()
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ARROW = re.compile(r"-{2,}>")
_JSON_UNSAFE = re.compile(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that JSON allows but that UTF-8, JavaScript or a terminal does not take well."""


def to_text(segments: Sequence[Segment]) -> str:
    """One line per segment."""
    return "".join(f"{line}\n" for _, line in _lines(segments))


def to_paragraph(transcription: Transcription) -> str:
    """The whole text in one line, as it runs on from segment to segment."""
    line = _one_line(transcription.text).strip()
    return f"{line}\n" if line else ""


def to_srt(segments: Sequence[Segment], layout: Layout = _PLAIN) -> str:
    """SubRip: numbered cues, `00:00:01,500 --> 00:00:02,000`."""
    cues = []
    for number, block in enumerate(_blocks(segments, layout, str), start=1):
        lines = "\n".join(_ARROW.sub("->", line) for line in block.lines)
        cues.append(f"{number}\n{_cue_times(block, always_hours=True, mark=',')}\n{lines}\n\n")
    return "".join(cues)


def to_vtt(segments: Sequence[Segment], layout: Layout = _PLAIN) -> str:
    """WebVTT: `00:01.500 --> 00:02.000`, hours only from the first on; `&`, `<` and `>` of the text are escaped."""
    cues = ["WEBVTT\n\n"]
    for block in _blocks(segments, layout, _escape):
        lines = "\n".join(block.lines)
        cues.append(f"{_cue_times(block, always_hours=False, mark='.')}\n{lines}\n\n")
    return "".join(cues)


def to_tsv(segments: Sequence[Segment], layout: Layout = _PLAIN) -> str:
    """Tab-separated start, end and text under a header; times in whole milliseconds, nothing is quoted.

    Always one line a row: of a layout, its cues count and their lines do not.
    """
    blocks = _blocks(segments, replace(layout, highlight_words=False), str)
    rows = (f"{_milliseconds(block.start)}\t{_milliseconds(block.end)}\t{block.text}\n" for block in blocks)
    return "start\tend\ttext\n" + "".join(rows)


def to_json(transcription: Transcription) -> str:
    """One JSON object in one line, with every segment and its evidence, and its words where they were asked for."""
    fields = asdict(transcription)
    del fields["language_probabilities"]
    for segment in fields["segments"]:
        if segment["words"] is None:
            del segment["words"]
    return dump_json(fields) + "\n"


def dump_json(value: object) -> str:
    """JSON in one line that every reader and UTF-8 take: other scripts stay readable, NaN and infinity become null.

    Numbers have six digits behind the point at most: what sums of seconds leave behind them (7.6000000000000005) is
    nothing that was measured.
    """
    text = json.dumps(_written(value), ensure_ascii=False, allow_nan=False)
    # Such characters occur inside strings only, so an escape may stand in their place.
    return _JSON_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Writer(Protocol):
    """Turns a transcription into a file's content."""

    def __call__(self, transcription: Transcription, layout: Layout = _PLAIN) -> str:
        """A whole file that ends in a line break; formats without cues take no notice of `layout`."""
        ...


WRITERS: Mapping[str, Writer] = {
    "text": lambda transcription, layout=_PLAIN: to_text(transcription.segments),  # noqa: ARG005
    "json": lambda transcription, layout=_PLAIN: to_json(transcription),  # noqa: ARG005
    "srt": lambda transcription, layout=_PLAIN: to_srt(transcription.segments, layout),
    "vtt": lambda transcription, layout=_PLAIN: to_vtt(transcription.segments, layout),
    "tsv": lambda transcription, layout=_PLAIN: to_tsv(transcription.segments, layout),
}
"""Every format by its name."""


@dataclass(frozen=True, slots=True)
class _Block:
    """A cue or a row, ready to be written."""

    start: float
    end: float
    lines: tuple[str, ...]
    text: str
    """The lines as one."""


def _blocks(segments: Sequence[Segment], layout: Layout, escape: Callable[[str], str]) -> Iterator[_Block]:
    at = 0.0  # a cue must not start before the one before it (WebVTT, section 4)
    if not layout.needs_words:
        for segment, line in _lines(segments):
            at = max(at, segment.start)
            yield _Block(at, max(at, segment.end), (escape(line),), line)
        return
    for cue in cues([_with_clean_words(segment) for segment in segments], layout):
        text = "".join(word.word for word in cue.words).strip()
        spans = _highlights(cue, at) if layout.highlight_words else []
        if not spans:
            start = max(at, cue.words[0].start)
            spans = [(start, max(start, *(word.end for word in cue.words)), None)]
        for start, end, chosen in spans:
            yield _Block(start, end, _marked(cue, chosen, escape), text)
        at = end if layout.highlight_words else start


def _highlights(cue: Cue, at: float) -> list[tuple[float, float, int | None]]:
    """(start, end, index of the word to underline) from `at` on; None between words. Words of no length have none."""
    spans: list[tuple[float, float, int | None]] = []
    at = max(at, cue.words[0].start)
    for i, word in enumerate(cue.words):
        if word.end > max(at, word.start):
            if word.start > at:
                spans.append((at, word.start, None))
            spans.append((max(at, word.start), word.end, i))
            at = word.end
    return spans


def _marked(cue: Cue, chosen: int | None, escape: Callable[[str], str]) -> tuple[str, ...]:
    """The cue's lines, with one word underlined."""
    lines, number = [], itertools.count()
    for line in cue.lines:
        pieces = []
        for word in line:
            text = escape(word.word)
            core = text.strip()
            pieces.append(text.replace(core, f"<u>{core}</u>") if next(number) == chosen else text)
        lines.append("".join(pieces).strip())
    return tuple(lines)


def _with_clean_words(segment: Segment) -> Segment:
    """The segment with the words that have text, on one line; one whose words nobody asked for is one word."""
    words = segment.words
    if words is None:
        words = (Word(segment.text, segment.start, segment.end, 1.0),)
    cleaned = (replace(word, word=_one_line(word.word)) for word in words)
    return replace(segment, words=tuple(word for word in cleaned if word.word.strip()))


def _escape(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cue_times(block: _Block, *, always_hours: bool, mark: str) -> str:
    start = _milliseconds(block.start)
    # A cue must end after it starts (WebVTT, section 4), even where both round to the same millisecond.
    end = max(_milliseconds(block.end), start + 1)
    return " --> ".join(_clock(time, always_hours=always_hours, mark=mark) for time in (start, end))


def _clock(milliseconds: int, *, always_hours: bool, mark: str) -> str:
    """`[HH:]MM:SS<mark>mmm`; from a hundred hours on, more digits."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    prefix = f"{hours:02d}:" if always_hours or hours else ""
    return f"{prefix}{minutes:02d}:{seconds:02d}{mark}{milliseconds:03d}"


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _lines(segments: Sequence[Segment]) -> Iterator[tuple[Segment, str]]:
    """Segments that have text, and it in one line that UTF-8 can hold."""
    for segment in segments:
        line = _one_line(segment.text).strip()
        if line:
            yield segment, line


def _one_line(text: str) -> str:
    return _SURROGATE.sub("\ufffd", _BREAKS.sub(" ", text))


def _written(value: object) -> object:
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_written(item) for item in value]
    return value

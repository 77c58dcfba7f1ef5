"""Segments to files: text, SubRip (SRT), WebVTT, TSV and JSON.

Gets segments from `transcript`, gives strings to the command line and to the service. Imports no torch.

- What a model writes is not trusted: a file stays valid whatever the text holds, and reads back as the same text.
  In all formats but JSON a segment is one line: control characters and line breaks become a blank, half a surrogate
  pair becomes U+FFFD, and a segment without text is left out. JSON keeps every character.
- WebVTT has escapes and uses them. SRT has none: an arrow in the text loses its dashes but one (`->`), so that no
  reader takes it for a time line; markup in it is left alone, as SRT readers differ about it.
- On plain text the files are those of the reference, byte for byte.

Sources: openai/whisper utils.py; WebVTT (W3C), section 4; RFC 8259 (JSON).
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

from model.segments import Segment, Transcription

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ARROW = re.compile(r"-{2,}>")
_JSON_UNSAFE = re.compile(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that JSON allows but that UTF-8, JavaScript or a terminal does not take well."""


def to_text(segments: Sequence[Segment]) -> str:
    """One line per segment."""
    return "".join(f"{line}\n" for _, line in _lines(segments))


def to_srt(segments: Sequence[Segment]) -> str:
    """SubRip: numbered cues, `00:00:01,500 --> 00:00:02,000`."""
    cues = []
    for number, (segment, line) in enumerate(_lines(segments), start=1):
        times = _cue_times(segment, always_hours=True, mark=",")
        cues.append(f"{number}\n{times}\n{_ARROW.sub('->', line)}\n\n")
    return "".join(cues)


def to_vtt(segments: Sequence[Segment]) -> str:
    """WebVTT: `00:01.500 --> 00:02.000`, hours only from the first on; `&`, `<` and `>` of the text are escaped."""
    cues = ["WEBVTT\n\n"]
    for segment, line in _lines(segments):
        escaped = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        cues.append(f"{_cue_times(segment, always_hours=False, mark='.')}\n{escaped}\n\n")
    return "".join(cues)


def to_tsv(segments: Sequence[Segment]) -> str:
    """Tab-separated start, end and text under a header; times in whole milliseconds, nothing is quoted."""
    rows = ["start\tend\ttext\n"]
    for segment, line in _lines(segments):
        rows.append(f"{_milliseconds(segment.start)}\t{_milliseconds(segment.end)}\t{line}\n")
    return "".join(rows)


def to_json(transcription: Transcription) -> str:
    """One JSON object in one line, with every segment and its evidence."""
    fields = asdict(transcription)
    del fields["language_probabilities"]
    return dump_json(fields) + "\n"


def dump_json(value: object) -> str:
    """JSON in one line that every reader and UTF-8 take: other scripts stay readable, NaN and infinity become null."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)
    # Such characters occur inside strings only, so an escape may stand in their place.
    return _JSON_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


WRITERS: Mapping[str, Callable[[Transcription], str]] = {
    "text": lambda transcription: to_text(transcription.segments),
    "json": to_json,
    "srt": lambda transcription: to_srt(transcription.segments),
    "vtt": lambda transcription: to_vtt(transcription.segments),
    "tsv": lambda transcription: to_tsv(transcription.segments),
}
"""Every format by its name; each gives a whole file that ends in a line break."""


def _cue_times(segment: Segment, *, always_hours: bool, mark: str) -> str:
    start = _milliseconds(segment.start)
    # A cue must end after it starts (WebVTT, section 4), even where both round to the same millisecond.
    end = max(_milliseconds(segment.end), start + 1)
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
        line = _SURROGATE.sub("\ufffd", _BREAKS.sub(" ", segment.text)).strip()
        if line:
            yield segment, line


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value

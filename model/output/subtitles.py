"""Words to subtitle cues that can be read: lines of a bounded length, cut where speech and sentences pause. Pure.

Gets segments with words from `model.longform.transcript`, gives cues to `model.output.formats`. A cue never spans two
segments. Within a segment it ends at a pause; where the text does not fit, it ends after the last mark in its second
half, or else where it is full, or in the middle if only a scrap would follow. Its lines are made of like length. They
break before a blank, and in scripts without blanks between any two characters but before closing marks and after
opening ones; a run of letters stays whole wherever a line can hold it.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from model.errors import OptionError
from model.segments import Segment, Word

MAX_LINE_WIDTH = 1000
MAX_LINE_COUNT = 100
MAX_WORDS_PER_LINE = 1000
_PAUSE = 2.0
"""Seconds of silence that no cue is held through."""
_MARKS = tuple(".,;:!?…。、，；：！？।؟،")
_SPACELESS = ("THAI", "LAO", "MYANMAR", "KHMER", "TIBETAN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How subtitles are cut; by default each segment is a cue of one line. `OptionError` names what is wrong."""

    max_line_width: int | None = None
    """Characters; a single word that is longer keeps a line for itself."""
    max_line_count: int | None = None
    """Lines of a cue; unlimited with a width alone, one with `max_words_per_line` alone."""
    max_words_per_line: int | None = None
    highlight_words: bool = False
    """Underline each word while it is spoken: a cue for every word."""

    def __post_init__(self) -> None:
        _check("max_line_width", self.max_line_width, MAX_LINE_WIDTH)
        _check("max_line_count", self.max_line_count, MAX_LINE_COUNT)
        _check("max_words_per_line", self.max_words_per_line, MAX_WORDS_PER_LINE)
        if self.max_line_count is not None and self.max_line_width is None and self.max_words_per_line is None:
            raise OptionError("max_line_count", "max_line_count needs max_line_width or max_words_per_line")

    @property
    def needs_words(self) -> bool:
        """Whether anything here depends on words and their times."""
        return self != Layout()


@dataclass(frozen=True, slots=True)
class Cue:
    """What is on the screen at once."""

    lines: tuple[tuple[Word, ...], ...]

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all lines."""
        return tuple(word for line in self.lines for word in line)


def _check(param: str, value: int | None, most: int) -> None:
    if value is not None and not 1 <= value <= most:
        raise OptionError(param, f"{param} must be between 1 and {most}")


def check_format(layout: Layout, name: str) -> None:
    """`OptionError` for a layout that means nothing in the format of this name (`model.output.formats.WRITERS`)."""
    for param in ("max_line_width", "max_line_count", "max_words_per_line"):
        if getattr(layout, param) is not None and name not in ("srt", "vtt", "tsv"):
            raise OptionError(param, f"{param} is for srt, vtt and tsv, not for {name}")
    if layout.highlight_words and name not in ("srt", "vtt"):
        raise OptionError("highlight_words", f"highlight_words is for srt and vtt, not for {name}")
    if name == "tsv" and layout.max_line_width is not None and layout.max_line_count is None:
        raise OptionError("max_line_width", "max_line_width needs max_line_count in tsv, whose rows have no lines")


def cues(segments: Sequence[Segment], layout: Layout) -> Iterator[Cue]:
    """The cues of all segments, in order; every word is in exactly one of them."""
    for segment in segments:
        units = _units(segment.words or (), layout.max_line_width)
        while units:
            count = _cue_length(units, layout)
            lines = _even_lines(units[:count], layout)
            yield Cue(tuple(tuple(word for unit in line for word in unit) for line in lines))
            units = units[count:]


_Unit = tuple[Word, ...]
"""Words between which no line breaks."""


def _units(words: Sequence[Word], width: int | None) -> list[_Unit]:
    units: list[_Unit] = []
    for word in words:
        if units and not _may_break(units[-1][-1].word, word.word):
            units[-1] = (*units[-1], word)
        else:
            units.append((word,))
    if width is None:
        return units
    # What no line can hold is cut between its words.
    parts = ([unit] if len(_text([unit])) <= width else [(word,) for word in unit] for unit in units)
    return [part for group in parts for part in group]


def _may_break(before: str, after: str) -> bool:
    last, first = before[-1:], after[:1]
    if first.isspace() or last.isspace():
        return True
    closes = first in _MARKS or unicodedata.category(first)[0] == "M" or unicodedata.category(first) in ("Pe", "Pf")
    if closes or unicodedata.category(last) in ("Ps", "Pi"):
        return False
    return _is_spaceless(last) or _is_spaceless(first)


def _is_spaceless(character: str) -> bool:
    """Whether this character's script goes without blanks: Chinese and Japanese with their marks, Thai and the like."""
    name = unicodedata.name(character, "")
    # Korean letters are as wide as Chinese ones, and their words have blanks.
    is_wide = unicodedata.east_asian_width(character) in ("W", "F") and not name.startswith("HANGUL")
    return is_wide or name.startswith(_SPACELESS)


def _cue_length(units: Sequence[_Unit], layout: Layout) -> int:
    """How many units the next cue takes."""
    most_lines = layout.max_line_count
    if most_lines is None and layout.max_line_width is None and layout.max_words_per_line is not None:
        most_lines = 1
    count = len(units)
    for i in range(1, count):
        if units[i][0].start - units[i - 1][-1].end > _PAUSE:
            count = i
            break
    if most_lines is None:
        return count
    full = sum(len(line) for line in _lines(units[:count], layout)[:most_lines])
    if full == count:
        return count
    taken, left = len(_text(units[:full])), len(_text(units[full:count]))
    cut = _last_mark(units[:full])
    if cut == full and layout.max_line_width is not None and 2 * left < taken:
        # Two cues of like length read better than a full one and a scrap.
        return min(range(1, full + 1), key=lambda i: abs(len(_text(units[:i])) - (taken + left) / 2))
    return cut


def _last_mark(units: Sequence[_Unit]) -> int:
    """Units up to the last mark, if that is in the second half of the text; otherwise all."""
    half = len(_text(units)) / 2
    for count in range(len(units), 0, -1):
        text = _text(units[:count])
        if len(text) < half:
            break
        if text.rstrip("\"'”’»」』)]）").endswith(_MARKS):
            return count
    return len(units)


def _lines(units: Sequence[_Unit], layout: Layout) -> list[list[_Unit]]:
    """Units in lines, each as full as it may be."""
    lines: list[list[_Unit]] = []
    for unit in units:
        if lines and _fits([*lines[-1], unit], layout):
            lines[-1].append(unit)
        else:
            lines.append([unit])
    return lines


def _even_lines(units: Sequence[_Unit], layout: Layout) -> list[list[_Unit]]:
    """As many lines as `_lines` makes, none longer than it must be."""
    lines = _lines(units, layout)
    if layout.max_line_width is None or len(lines) == 1:
        return lines
    for width in range(len(_text(units)) // len(lines), layout.max_line_width):
        if len(narrow := _lines(units, replace(layout, max_line_width=width))) <= len(lines):
            return narrow
    return lines


def _fits(line: Sequence[_Unit], layout: Layout) -> bool:
    if layout.max_words_per_line is not None and len(line) > layout.max_words_per_line:
        return False
    return layout.max_line_width is None or len(_text(line)) <= layout.max_line_width


def _text(units: Sequence[_Unit]) -> str:
    return "".join(word.word for unit in units for word in unit).strip()

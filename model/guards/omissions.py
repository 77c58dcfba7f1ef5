"""What was cut out of a window's text, as stretches of the recording. Pure.

Gets what `model.guards.doubt` noted of its cuts in the window's result, and what `model.guards.missed` found written
already; gives `warnings` to `model.longform.transcript`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from model.dims import FRAMES_PER_SECOND
from model.segments import Segment, Skipped
from model.window import TIMESTAMP_SECONDS, DecodingResult, Place, Window


def left_out(
    result: DecodingResult, window: Window, segments: Sequence[Segment], timestamp_begin: int, *, until: int
) -> list[Skipped]:
    """Where in the recording something was cut out of the window's text; `segments` are what is left of it.

    `until`: the frame from which the recording is heard again, so that nothing is lost from there on.
    """
    offset, stop = window.seek / FRAMES_PER_SECOND, (window.seek + window.n_frames) / FRAMES_PER_SECOND
    left: list[Skipped] = []

    def note(reason: Literal["repetition", "unconfirmed"], places: Sequence[Place]) -> None:
        for first, last in places:
            end = stop if last is None else offset + (last - timestamp_begin) * TIMESTAMP_SECONDS
            left.append(Skipped(reason, offset + (first - timestamp_begin) * TIMESTAMP_SECONDS, min(stop, end)))

    note("repetition", result.repeats)
    note("unconfirmed", result.unconfirmed)
    if result.looped and segments:
        last = segments[-1]
        # Without a timestamp at its end, what is left of the loop lasts as long as the window, and is named as a whole.
        left.append(Skipped("repetition", last.end if last.end < stop else last.start, stop))
    elif result.endless and not result.looked and until >= window.seek + window.n_frames:
        # Where the decoder looked is known, the rest is heard again, or nobody speaks there.
        times = [token for token in result.tokens if token >= timestamp_begin] or [timestamp_begin]
        left.append(Skipped("token_limit", offset + (times[-1] - timestamp_begin) * TIMESTAMP_SECONDS, stop))
    again = until / FRAMES_PER_SECOND
    return [
        replace(one, end=min(one.end, again))
        for one in left
        if one.start < one.end and round(one.start * FRAMES_PER_SECOND) < until
    ]


def echoed(echoes: Sequence[Segment], window: Window) -> list[Skipped]:
    """Where in the recording those segments stood; the model may time them beyond the window."""
    stop = (window.seek + window.n_frames) / FRAMES_PER_SECOND
    return [Skipped("repetition", echo.start, min(echo.end, stop)) for echo in echoes if echo.start < stop]

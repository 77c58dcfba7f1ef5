"""Where a recording has no sound for a while: its packets say when they are heard, and some are not there.

Asked by `model.audio.ffmpeg`. Calls that are recorded on their way (WebRTC) have nothing where somebody is muted or
silent, and telephones (AMR) a few bytes that are no sound; players wait there, and so does what is said later:
without the silence its times would be too early.
"""

import av

from model.audio.containers import AMR, MATROSKA, MP4, Container

_TIMED = (MATROSKA, MP4, AMR)
"""Times in other files start anew, jump, or are made up from lengths."""
_TOLERANCE_SECONDS = 0.3
"""Two clocks may be so far apart after an hour; silence that is not sent leaves out 0.38 s at a time."""
_MOST_SECONDS = 3600.0
"""More is damage: a bit of a time that is wrong makes no recording too long to be heard."""


class Gaps:
    """The silence between the frames of a file, which come in turn."""

    def __init__(self, container: Container) -> None:
        self._timed = container in _TIMED
        self._due = 0.0 if container is AMR else None  # whose times are counted from its first byte
        """When the next frame begins, in seconds of the file: it is never early, for what was heard stays heard."""

    def before(self, frame: av.AudioFrame) -> float:
        """Seconds of silence before this frame; mostly 0."""
        gap = 0.0
        if self._timed and frame.pts is not None and frame.time_base is not None:
            begin = float(frame.pts * frame.time_base)
            if self._due is None:
                self._due = begin
            if _TOLERANCE_SECONDS < begin - self._due < _MOST_SECONDS:
                gap = begin - self._due
        if self._due is not None:
            self._due += gap + frame.samples / frame.sample_rate
        return gap

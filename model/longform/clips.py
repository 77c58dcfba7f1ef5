"""How long a recording is in frames, and which stretches of it a caller wants. Pure."""

from model.dims import FRAMES_PER_SECOND, HOP_LENGTH, SAMPLE_RATE
from model.errors import OptionError
from model.segments import Skipped
from model.voice.speech import Stretch, overlap


def count_frames(n_samples: int) -> int:
    """Frames of 10 ms of a recording: one at least for any sample."""
    return max(n_samples // HOP_LENGTH, min(n_samples, 1))


def clip_frames(timestamps: tuple[float, ...], n_frames: int) -> list[Stretch]:
    """Start and end frames of each clip; no timestamps are one clip of everything."""
    points = [round(t * FRAMES_PER_SECOND) for t in timestamps] or [0]
    if len(points) % 2:
        points.append(n_frames)
    return list(zip(points[::2], points[1::2], strict=True))


def clips_within(timestamps: tuple[float, ...], n_samples: int) -> list[Stretch]:
    """What of the clips lies in the recording; `OptionError` where that is none of it."""
    n_frames = count_frames(n_samples)
    clips = overlap(clip_frames(timestamps, n_frames), [(0, n_frames)])
    if timestamps and not clips:
        length = f"{n_samples / SAMPLE_RATE:g} s"
        raise OptionError("clip_timestamps", f"clip_timestamps has no part of the recording, which is {length} long")
    return clips


def empty_clips(timestamps: tuple[float, ...], n_frames: int) -> list[Skipped]:
    """The clips in which there is nothing to hear: behind the end of the recording, or shorter than a frame."""
    clips = clip_frames(timestamps, n_frames) if timestamps else []
    nothing = [(start, end) for start, end in clips if min(end, n_frames) <= start]
    return [
        Skipped("empty_clip", start / FRAMES_PER_SECOND, max(start, end) / FRAMES_PER_SECOND) for start, end in nothing
    ]

"""How long a recording is in frames, and which stretches of it a caller wants. Pure."""

from model.dims import FRAMES_PER_SECOND, HOP_LENGTH


def count_frames(n_samples: int) -> int:
    """Frames of 10 ms of a recording: one at least for any sample."""
    return max(n_samples // HOP_LENGTH, min(n_samples, 1))


def clip_frames(timestamps: tuple[float, ...], n_frames: int) -> list[tuple[int, int]]:
    """Start and end frames of each clip; no timestamps are one clip of everything."""
    points = [round(t * FRAMES_PER_SECOND) for t in timestamps] or [0]
    if len(points) % 2:
        points.append(n_frames)
    return list(zip(points[::2], points[1::2], strict=True))

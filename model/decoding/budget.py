"""How many rows a device has memory for, with a window each. Pure.

Used by `service.worker.rows` when no slot is allocated yet: what `model.network.cache` or `model.native.inference` will
take is known by arithmetic, what a step or an encoder pass takes is not: on a GPU a share is kept for it. **Never
compared with what a GPU really takes.** Where it is too little, `service.worker.room` makes the batch smaller.
"""

from dataclasses import dataclass

from model.dims import ModelDimensions
from model.window import SEARCH_BEAMS

MOST_ROWS = 64
"""Rows beyond which it does not go: by arithmetic a large model's step then takes as many times longer as it has more
rows, because every row brings its own audio to read; latency grows, throughput hardly."""
ACTIVATIONS = 0.2
"""Share of the memory at hand that is kept for all but slots: activations, logits, captured steps, workspaces."""
_SPARE_ROWS = 2
"""Row slots beyond the rows: one for language detection, one that takes the writes of padding."""
SEARCHES = 4
"""Windows on a CPU whose unsure texts are searched for again at once, at most (`model.decoding.searches`)."""
NATIVE = "native"
"""How `model.native` keeps the audio's keys and values; those of the text are float32 there."""
_EIGHT_BITS = {"int8": (1, 2), "fp8": (1, 0), NATIVE: (1, 4)}
"""Bytes of a number, and of the scale of a position and head (`model.network.audio_memory`, `model.native`)."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes of a device, as a worker finds them."""

    total: int
    free: int
    """Whoever holds the rest."""
    held: int
    """By this worker, for its weights."""

    def usable(self, share: float) -> int:
        """What a worker that may take `share` of the device can still allocate."""
        return max(0, min(self.free, int(self.total * share) - self.held))


def window_bytes(dims: ModelDimensions, itemsize: int, cross_kv: str = "auto") -> int:
    """Cross-attention keys and values of one window slot, in numbers of `itemsize` bytes unless kept in 8 bits."""
    number, scale = _EIGHT_BITS.get(cross_kv, (itemsize, 0))
    position = dims.n_text_state * number + dims.n_text_head * scale
    return 2 * dims.n_text_layer * dims.n_audio_ctx * position


def row_bytes(dims: ModelDimensions, itemsize: int) -> int:
    """Self-attention keys and values of one row slot."""
    return 2 * dims.n_text_layer * dims.n_text_ctx * dims.n_text_state * itemsize


def fitting_rows(
    dims: ModelDimensions, *, itemsize: int, memory: DeviceMemory, share: float, cross_kv: str = "auto"
) -> int:
    """Rows, with a window each, for which there is memory; 0 where not even one fits."""
    row = row_bytes(dims, itemsize)
    slots = int(memory.usable(share) * (1.0 - ACTIVATIONS)) - _SPARE_ROWS * row
    return max(0, min(MOST_ROWS, slots // (row + window_bytes(dims, itemsize, cross_kv))))


def searches(n_windows: int) -> int:
    """Of so many windows, those that may be searched at once."""
    return min(n_windows, SEARCHES)


def slots_beside(n_windows: int) -> int:
    """Row slots that a CPU has besides those of the rows: a shadow for each window, and the beams of searches."""
    return n_windows + searches(n_windows) * (SEARCH_BEAMS - 1)


def batch_bytes(
    dims: ModelDimensions, rows: int, *, itemsize: int, cross_kv: str = "auto", has_shadows: bool = False
) -> int:
    """Memory that `model.decoding.batch` allocates for the slots of so many rows, with a window each.

    With shadows, as on a CPU, each row has another one beside it, and all of them a window of silence and the rows of
    searches. What the decoder in C has besides, a row and a few positions of each window, is not counted.
    """
    windows, texts = (rows + 1, rows + 1 + slots_beside(rows)) if has_shadows else (rows, rows + 1)
    return windows * window_bytes(dims, itemsize, cross_kv) + texts * row_bytes(dims, itemsize)

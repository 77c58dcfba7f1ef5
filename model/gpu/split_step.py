"""A decode step in a fixed shape whose attention is the kernel of `model.gpu.split_attention`.

`model.gpu.graphs` captures it on a GPU, in the place of `FixedStepView`: both read nothing but the buffer of the step's
inputs. Here windows may be short, slots lie anywhere, and of a row's text only what there is of it is read.
"""

from typing import cast

import torch
from torch import Tensor

from model.gpu.fixed_view import FixedView
from model.gpu.shapes import AskedShape, Shape
from model.gpu.split_attention import Asked, Memory, attend, remember
from model.network.audio_memory import AudioMemory
from model.network.cache import KVCache


class SplitStepView(FixedView):
    """`model.network.cache.StepView` in a fixed shape; see `model.network.blocks.Attention`."""

    def __init__(self, cache: KVCache, shape: Shape, inputs: Tensor) -> None:
        """`inputs`: tokens, lengths and row slots to write, (rows,) each, then the shape's table."""
        shape = cast(AskedShape, shape)
        rows, groups = shape.rows, shape.groups
        parts = [rows, rows, rows, groups, groups, groups * shape.width, rows]
        named = torch.split(inputs[: sum(parts)], parts)
        self.tokens, self.positions, self._slots, slots, lengths, members, places = named
        self._cache = cache
        self._processors = processors_of(inputs.device)
        self._audio = Asked(slots, lengths, members.view(groups, shape.width), places)
        own = torch.arange(rows, device=inputs.device)
        self._text = Asked(self._slots, self.positions + 1, own[:, None], own)

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(rows, n_state) each, over what each row holds."""
        memory = Memory(self._cache.keys[layer], self._cache.values[layer])
        remember(key, value, memory, self._slots, self.positions)
        # In one part: a text is short, and what joins parts takes as long as the rest of it.
        return attend(query, memory, self._text, processors=1)

    def cross_attention(self, layer: int, query: Tensor) -> Tensor:
        """(rows, n_state) in and out."""
        memory = audio_of(self._cache.cross_keys, self._cache.cross_values, layer)
        return attend(query, memory, self._audio, processors=self._processors)


def audio_of(keys: AudioMemory, values: AudioMemory, layer: int) -> Memory:
    """A layer of the audio as it is kept."""
    if keys.scales is None or values.scales is None:
        return Memory(keys.data[layer], values.data[layer])
    return Memory(keys.data[layer], values.data[layer], keys.scales[layer], values.scales[layer])


def processors_of(device: torch.device) -> int:
    """Processors of a card; 1 elsewhere, where nothing is gained by cutting."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1

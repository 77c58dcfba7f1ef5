"""Decode steps that are captured once for each shape and then replayed, as CUDA graphs want them.

Used by `model.decoding.inference` on a GPU, where launching the kernels of a step takes longer than running them.
Whatever differs between steps of one shape (`model.gpu.shapes`) lies in one buffer that is written before the replay:
tokens, lengths, row slots, places of the queries. The captured function reads nothing else: no Python list, no shape
that depends on data, no answer awaited. Keys and values of the audio are written elsewhere, before
(`KVCache.fill_windows`). A step ends with logits, or with the tokens chosen from them (`model.search.selection`), which
the next step then finds there.

- Padding rows write to a scratch row slot; what they read and answer is nobody's business.
- Capture and replay are a seam (`Backend`; a GPU's is `model.gpu.cuda`), so that tests run all the rest without one.
  **It was never run on a GPU**: docs/performance.md says what is open.
- Graphs share one pool of memory, so a replay may overwrite what another one answered; callers get copies.
- Where memory runs out all graphs are forgotten with their pool, and `torch.OutOfMemoryError` says so to
  `service.worker.engine`, which tries fewer windows.

Source: torch's notes on CUDA graphs (side stream for warm-up, static inputs, shared pool).
"""

from array import array
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, Protocol, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from model.gpu.fixed_view import FixedView
from model.gpu.shapes import AskedShape, Shape, StepShape
from model.network.cache import KVCache
from model.network.whisper import TextDecoder
from model.search.selection import Selection
from model.transfer import pinned

LONGEST_PROMPT = 4
"""Tokens of a prompt without a text before it: start, language, task, no timestamps."""

Run: TypeAlias = Callable[[], Tensor]
"""Work on fixed memory; the answer lies in memory that the next run may overwrite."""
_Key: TypeAlias = tuple[Shape, Literal["fed", "logits", "greedy", "drawn"]]
"""A shape, and what is captured: logits after tokens that the host feeds, or after those that were chosen on the
device; or tokens, as the most probable ones or with draws among them."""


class Backend(Protocol):
    """How work is recorded."""

    def capture(self, run: Run) -> Run:
        """Record `run`; the answer repeats it. The recording itself may or may not have run it."""
        ...

    def reset(self) -> None:
        """Give up the memory of everything recorded so far, none of which will be repeated."""
        ...


class Immediate:
    """No recording: work runs as it comes."""

    def capture(self, run: Run) -> Run:
        """See `Backend`."""
        return run

    def reset(self) -> None:
        """See `Backend`."""


class StepGraphs:
    """Steps of one decoder over one memory, by shape."""

    def __init__(
        self,
        decoder: TextDecoder,
        cache: KVCache,
        backend: Backend,
        *,
        max_windows: int,
        max_rows: int,
        view: Callable[[KVCache, Shape, Tensor], FixedView] | None = None,
    ) -> None:
        """`cache` has a row slot more than `max_rows`, its last one: the scratch slot.

        `view`: over steps of an `AskedShape`; None is torch's operators, where every window must be whole.
        """
        self._decoder, self._cache, self._backend = decoder, cache, backend
        self._max_windows, self._max_rows = max_windows, max_rows
        self._is_listed = view is not None
        self._shapes = AskedShape if self._is_listed else StepShape
        self._view = view or FixedStepView
        most = 6 * max_rows + max_windows * (2 + max_rows)
        self._inputs = torch.zeros(most, dtype=torch.long, device=cache.keys.device)
        self._graphs: dict[_Key, Run] = {}

    def step(self, tokens: Sequence[int], *, lengths: Sequence[int], windows: Sequence[int]) -> Tensor:
        """See `model.decoding.inference.Inference.step`.

        `torch.OutOfMemoryError` where the memory for it is lacking; then nothing is lost but the graphs.
        """
        shape = self._shape(windows)
        self._write(shape, tokens, lengths, windows)
        return self._replay((shape, "fed"), partial(self._run, shape))[: len(tokens)].clone()

    def takes(self, prompts: Sequence[Sequence[int]]) -> bool:
        """Whether `prompts` can read these: short ones, as most are, for each length is a shape of its own."""
        tokens = sum(len(prompt) for prompt in prompts)
        return self._is_listed and len(prompts[0]) <= LONGEST_PROMPT and tokens <= self._max_rows

    def prompts(self, prompts: Sequence[Sequence[int]], *, row: int, windows: Sequence[int]) -> Tensor:
        """Logits (tokens, n_vocab) after every token of prompts of one length, in the rows from `row` on.

        A step as any other, in which each token is a row: all are written before any of them looks back, and none
        looks beyond itself. The answer's memory may be used again by the next step. Raises what `step` does.
        """
        length = len(prompts[0])
        tokens = [token for prompt in prompts for token in prompt]
        slots = [row + i for i in range(len(prompts)) for _ in range(length)]
        heard = [window for window in windows for _ in range(length)]
        shape = self._shape(heard)
        self._write(shape, tokens, [*range(length)] * len(prompts), heard, slots=slots)
        return self._replay((shape, "fed"), partial(self._run, shape))[: len(tokens)]

    def advance(
        self,
        selection: Selection,
        *,
        homes: Sequence[int],
        counts: Sequence[int],
        lengths: Sequence[int],
        windows: Sequence[int],
        drawing: bool | None,
    ) -> Tensor:
        """See `model.decoding.inference.PyTorchInference.advance`. Raises what `step` does."""
        shape = self._shape(windows)
        spare = shape.rows - len(homes)
        known = [*homes, *[selection.scratch] * spare, *selection.within(counts), *[0] * spare]
        unread = [0] * len(homes)  # the tokens are on the device
        self._write(shape, unread, lengths, windows, before=known)
        run = partial(self._run_on, shape, selection, drawing)
        if drawing is None:
            return self._replay((shape, "logits"), run)[: len(homes)]
        return self._replay((shape, "drawn" if drawing else "greedy"), run)[:, : len(homes)]

    def _shape(self, windows: Sequence[int]) -> Shape:
        return self._shapes.of(windows, max_windows=self._max_windows, max_rows=self._max_rows)

    def _replay(self, key: _Key, run: Run) -> Tensor:
        """Repeat what was captured under this name; capture it first where it is new."""
        try:
            if key not in self._graphs:
                self._graphs[key] = self._backend.capture(run)
            return self._graphs[key]()
        except Exception as error:  # Triton's own are no RuntimeError
            self._graphs.clear()
            self._backend.reset()
            if _is_exhausted(error) and not isinstance(error, torch.OutOfMemoryError):
                raise torch.OutOfMemoryError("memory ran out while a decode step was captured") from error
            raise

    def _write(
        self,
        shape: Shape,
        tokens: Sequence[int],
        lengths: Sequence[int],
        windows: Sequence[int],
        before: Sequence[int] = (),
        slots: Sequence[int] | None = None,
    ) -> None:
        """One copy to the device, which does not wait: the pinned memory is not used again before it has ended."""
        n, padding = len(tokens), shape.rows - len(tokens)
        values = [*before, *tokens, *[0] * padding, *lengths, *[0] * padding]
        values += [*(range(n) if slots is None else slots), *[self._max_rows] * padding]
        values += shape.table(windows, self._cache.filled)
        host = torch.frombuffer(array("q", values), dtype=torch.long)  # a tensor of a list takes ten times as long
        self._inputs[: len(values)].copy_(pinned(host, self._inputs.device), non_blocking=True)

    def _run(self, shape: Shape) -> Tensor:
        """What is captured: logits (rows, n_vocab) of the buffer's rows."""
        view = self._view(self._cache, shape, self._inputs)
        return self._decoder.logits(view.hidden_states(self._decoder, view.tokens))

    def _run_on(self, shape: Shape, selection: Selection, drawing: bool | None) -> Tensor:
        """What is captured where the tokens stay on the device: (2, rows) of `Selection.choose`, or logits for None.

        Homes and counts precede what a step reads otherwise.
        """
        rows = self._inputs[: 2 * shape.rows].view(2, -1)
        view = self._view(self._cache, shape, self._inputs[2 * shape.rows :])
        logits = self._decoder.logits(view.hidden_states(self._decoder, selection.last(rows)))
        return logits if drawing is None else view.choose(selection, logits, rows, drawing=drawing)


class FixedStepView(FixedView):
    """`model.network.cache.StepView` in a fixed shape; see `model.network.blocks.Attention`."""

    def __init__(self, cache: KVCache, shape: Shape, inputs: Tensor) -> None:
        """`inputs`: tokens, lengths, row slots to write and places, (rows,) each; all windows are whole."""
        self._cache, self._shape = cache, cast(StepShape, shape)
        self.tokens, self.positions, self._slots, self._places = inputs[: 4 * shape.rows].view(4, -1).unbind()
        n_ctx = cache.keys.shape[3]
        unseen = torch.arange(n_ctx, device=inputs.device) > self.positions[:, None]
        mask = torch.zeros(unseen.shape, device=inputs.device, dtype=cache.keys.dtype)
        self._mask = mask.masked_fill_(unseen, -torch.inf)[:, None, None]

    def self_attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(rows, n_state) each. Over the whole text context, for its part that counts differs from row to row."""
        rows, n_head = self._shape.rows, self._cache.n_head
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys[self._slots, :, self.positions] = key.view(rows, n_head, -1)
        values[self._slots, :, self.positions] = value.view(rows, n_head, -1)
        heads = F.scaled_dot_product_attention(
            query.view(rows, n_head, 1, -1), keys[:rows], values[:rows], attn_mask=self._mask
        )
        return heads.flatten(1)

    def cross_attention(self, layer: int, query: Tensor) -> Tensor:
        """(rows, n_state) in and out: queries go to their windows, answers come back."""
        shape, n_head = self._shape, self._cache.n_head
        asked = query.new_zeros(shape.n_places + 1, query.shape[1])
        asked[self._places] = query
        places = asked[:-1].view(shape.windows, shape.width, n_head, -1).transpose(1, 2)
        windows = slice(shape.windows)
        keys, values = self._cache.cross_keys.read(layer, windows), self._cache.cross_values.read(layer, windows)
        heads = F.scaled_dot_product_attention(places, keys, values)
        answers = heads.transpose(1, 2).reshape(shape.n_places, -1)
        return answers[self._places.clamp(max=shape.n_places - 1)]


def _is_exhausted(error: BaseException | None) -> bool:
    """Whether memory ran out, here or before: leaving a capture that failed raises once more, and that is no
    `torch.OutOfMemoryError`.
    """
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False

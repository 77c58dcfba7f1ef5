"""The decoder together with its memory: what `model.decoding.batch` needs of a device to turn tokens into logits.

`Inference` is the seam (the reference's name for it): `PyTorchInference` runs `model.network.whisper.TextDecoder` over
`model.network.cache` on any device, `model.native` runs int8 in C on a CPU. Slots and rows are numbers that the caller
hands out: one **window slot** for each encoded window, one **row** for each hypothesis; several rows may read one
window.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from model.gpu.cuda import CudaBackend
from model.gpu.fixed_view import FixedView
from model.gpu.graphs import Backend, Immediate, StepGraphs
from model.native.inference import NativeInference
from model.native.weights import NativeDecoder
from model.network.cache import KVCache, PrefillView, StepView
from model.network.capture import CaptureView
from model.network.whisper import TextDecoder, Whisper
from model.search.selection import Selection
from model.transfer import send


class Inference(Protocol):
    """Decoder passes over the attention memory of all windows and rows of one device."""

    def fill_windows(self, features: Tensor, slots: Sequence[int]) -> None:
        """Project encoder features (batch, n_ctx, n_state) into window slots; n_ctx may be below n_audio_ctx."""
        ...

    def prefill(self, tokens: Sequence[int], *, row: int, window: int, keep: Sequence[int]) -> Tensor:
        """Run a prompt through a row from its start; logits (len(keep), n_vocab), float32, at the positions asked."""
        ...

    def prefill_many(
        self, prompts: Sequence[Sequence[int]], *, row: int, windows: Sequence[int], keep: Sequence[Sequence[int]]
    ) -> Tensor:
        """Prompts of one length through the rows from `row` on, each with its window.

        Logits (len(prompts), n, n_vocab), float32, at the n positions asked of each.
        """
        ...

    def step(self, tokens: Sequence[int], *, lengths: Sequence[int], windows: Sequence[int]) -> Tensor:
        """One token for each of the rows 0 .. n-1, which hold `lengths` tokens and hear `windows`.

        Logits (n, n_vocab), float32.
        """
        ...

    def attention(
        self, tokens: Sequence[int], *, window: int, heads: tuple[tuple[int, int], ...], keep: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """One pass over a text that no row remembers, noting where (layer, head) pairs look in a window.

        Logits (len(keep), n_vocab) at the positions asked, and scores before the softmax (len(heads), len(tokens),
        n_ctx), both float32.
        """
        ...

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int], length: int, *, start: int = 0) -> None:
        """Rows take over the first `length` tokens of other rows, all read before any is written.

        `start`: how many of them each has in common with the other already.
        """
        ...

    def replace_rows(self, source: int, targets: Sequence[int], length: int) -> None:
        """Rows that another had, or nobody, become copies of one that holds `length` tokens."""
        ...

    def clear_row(self, row: int) -> None:
        """Forget a row's last owner, whatever it held."""
        ...


def make_inference(model: Whisper, *, n_windows: int, n_rows: int) -> Inference:
    """The implementation that the model's decoder was laid out for."""
    if isinstance(model.decoder, NativeDecoder):
        return NativeInference(model.decoder, n_windows=n_windows, n_rows=n_rows)
    backend = CudaBackend(model.device) if model.device.type == "cuda" and model.captures_steps else None
    return PyTorchInference(model, n_windows=n_windows, n_rows=n_rows, backend=backend)


class PyTorchInference:
    """`Inference` with torch's own operators, on any device and in any float format.

    With a backend, steps are captured and replayed (`model.gpu.graphs`); without, they run as they come. Their
    attention is torch's, or with `model.cross_attention` of `triton` the kernel of `model.gpu.split_attention`; that
    one reads short prompts as well.
    """

    def __init__(
        self,
        model: Whisper,
        *,
        n_windows: int,
        n_rows: int,
        backend: Backend | None = None,
        cross_attention: str | None = None,
    ) -> None:
        """Allocate the memory of all slots at once. `cross_attention`: None is the model's."""
        self._is_split = (cross_attention or model.cross_attention) == "triton"
        if self._is_split and backend is None:
            backend = Immediate()
        if not isinstance(model.decoder, TextDecoder):
            raise TypeError(f"{type(model.decoder).__name__} is not made of torch's operators")
        self._decoder, self._device = model.decoder, model.device
        self.n_windows = n_windows
        slots = n_rows if backend is None else n_rows + 1  # the last one is scratch
        self._cache = KVCache(
            model.dims,
            n_windows=n_windows,
            n_rows=slots,
            device=model.device,
            dtype=model.dtype,
            cross_kv=model.cross_kv,
        )
        self._graphs: StepGraphs | None = None
        if backend is not None:
            view = _view_of(fused=model.fuses_steps) if self._is_split else None
            self._graphs = StepGraphs(
                self._decoder, self._cache, backend, max_windows=n_windows, max_rows=n_rows, view=view
            )

    def fill_windows(self, features: Tensor, slots: Sequence[int]) -> None:
        """See `Inference`."""
        self._cache.fill_windows(self._decoder, features, slots)

    def prefill(self, tokens: Sequence[int], *, row: int, window: int, keep: Sequence[int]) -> Tensor:
        """See `Inference`."""
        return self.prefill_many([tokens], row=row, windows=[window], keep=[keep])[0]

    def prefill_many(
        self, prompts: Sequence[Sequence[int]], *, row: int, windows: Sequence[int], keep: Sequence[Sequence[int]]
    ) -> Tensor:
        """See `Inference`."""
        length = len(prompts[0])
        kept = send([i * length + position for i, asked in enumerate(keep) for position in asked], self._device)
        if self._graphs is not None and self._graphs.takes(prompts):
            logits = self._graphs.prompts(prompts, row=row, windows=windows)[kept]
            return logits.view(len(prompts), -1, logits.shape[1])
        tokens = send([token for prompt in prompts for token in prompt], self._device)
        positions = torch.arange(length, device=self._device).repeat(len(prompts))
        hidden = self._decoder(tokens, positions, PrefillView(self._cache, row=row, windows=windows))
        logits = self._decoder.logits(hidden[kept])
        return logits.view(len(prompts), -1, logits.shape[1])

    def step(self, tokens: Sequence[int], *, lengths: Sequence[int], windows: Sequence[int]) -> Tensor:
        """See `Inference`."""
        if (graphs := self._graphs_for(windows)) is not None:
            return graphs.step(tokens, lengths=lengths, windows=windows)
        view = StepView(self._cache, lengths=lengths, windows=windows)
        last = send(tokens, self._device)
        return self._decoder.logits(self._decoder(last, view.positions, view))

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
        """A step, and the choice that follows it, without the host: see `Selection.choose` for the answer, (2, rows).

        `homes` and `counts` say which token each row feeds and what it may say; `drawing`: whether any row draws; None
        is for who chooses by himself, out of logits (rows, n_vocab). A row may be taken one step beyond the text
        context; what it says there means nothing. The answer's memory may be used again by the next step.
        """
        lengths = [min(length, self._cache.keys.shape[3] - 1) for length in lengths]
        if (graphs := self._graphs_for(windows)) is not None:
            return graphs.advance(
                selection, homes=homes, counts=counts, lengths=lengths, windows=windows, drawing=drawing
            )
        rows = selection.rows(homes, counts)
        view = StepView(self._cache, lengths=lengths, windows=windows)
        logits = self._decoder.logits(self._decoder(selection.last(rows), view.positions, view))
        return logits if drawing is None else selection.choose(logits, rows, drawing=drawing)

    def _graphs_for(self, windows: Sequence[int]) -> StepGraphs | None:
        """Captured steps that can hear these windows: torch's attention of a fixed shape wants whole ones."""
        return self._graphs if self._is_split or self._cache.are_whole(windows) else None

    def attention(
        self, tokens: Sequence[int], *, window: int, heads: tuple[tuple[int, int], ...], keep: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """See `Inference`."""
        text = send(tokens, self._device)
        positions = torch.arange(len(tokens), device=self._device)
        view = CaptureView(self._cache, window=window, heads=heads)
        hidden = self._decoder(text, positions, view)
        return self._decoder.logits(hidden[send(keep, self._device)]), view.scores

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int], length: int, *, start: int = 0) -> None:
        """See `Inference`."""
        self._cache.copy_rows(sources, targets, slice(start, length))

    def replace_rows(self, source: int, targets: Sequence[int], length: int) -> None:  # noqa: ARG002
        """See `Inference`. Whole rows: a masked position takes part in products, and must hold no NaN of others."""
        self._cache.copy_rows([source] * len(targets), targets, slice(None))

    def take_over(self, sources: Tensor, targets: Tensor, positions: slice) -> None:
        """`copy_rows` of some positions, for rows that only the device knows, (n,) each."""
        self._cache.take_over(sources, targets, positions)

    def clear_row(self, row: int) -> None:
        """See `Inference`."""
        self._cache.clear_row(row)


def _view_of(*, fused: bool) -> type[FixedView]:
    """That of steps with our kernels, which can be imported only where Triton is."""
    if fused:
        from model.gpu.fused_step import FusedStepView

        return FusedStepView
    from model.gpu.split_step import SplitStepView

    return SplitStepView

"""Tokens that are chosen where the logits are: the host launches steps, and reads one small tensor for each.

Implements `model.decoding.choice` for a GPU. A row's last token never leaves the device on its way into the next step
(`model.search.selection`), so the next step can be launched before the host has read this one: while the device works
on it, the host reads, ends windows, and lets others in.

- What was launched and not read yet is a **flight**, read in order. A row that turns out to have ended has made one
  step too many: its place in the flight is emptied, and what it wrote lies in memory that is its own or nobody's.
- Rows with beams go through the host (`HostChoice`), and while there are any, every step is read at once; rows without
  beams keep their homes and their draws meanwhile.
"""

from collections import deque
from collections.abc import Sequence

from torch import Tensor

from model.decoding.choice import Choice, HostChoice
from model.decoding.inference import Inference, PyTorchInference
from model.decoding.native_choice import NativeChoice
from model.decoding.row import Row
from model.gpu.graphs import LONGEST_PROMPT
from model.gpu.shapes import sizes
from model.native.inference import NativeInference
from model.network.whisper import Whisper
from model.search.rules import Rules
from model.search.selection import Selection
from model.tokenizer import Tokenizer
from model.transfer import Fetched


def make_choice(model: Whisper, inference: Inference, rules: Rules, tokenizer: Tokenizer, *, n_rows: int) -> Choice:
    """On a GPU whose steps are captured the choice is made there, beside the decoder in C it is made in C."""
    if isinstance(inference, NativeInference):
        return NativeChoice(inference, rules, tokenizer.timestamp_begin)
    host = HostChoice(inference, rules, model.device)
    captured = model.device.type == "cuda" and model.captures_steps
    if not captured or not isinstance(inference, PyTorchInference):
        return host
    selection = Selection(model.dims, tokenizer, rules, n_rows=n_rows, device=model.device)
    return DeviceChoice(inference, host, selection, rules, ahead=True)


class _Flight:
    """Tokens on their way to the host."""

    def __init__(self, rows: Sequence[Row], chosen: Tensor) -> None:
        self.rows: list[Row | None] = list(rows)
        self._chosen = Fetched(chosen)
        for row in rows:
            row.in_flight += 1

    def land(self) -> None:
        tokens, logprobs = self._chosen.read().tolist()
        for row, token, logprob in zip(self.rows, tokens, logprobs, strict=True):
            if row is not None:
                row.in_flight -= 1
                row.push(int(token), logprob)


class DeviceChoice:
    """`Choice` on a device, at most one step ahead of the host."""

    def __init__(
        self, inference: PyTorchInference, host: HostChoice, selection: Selection, rules: Rules, *, ahead: bool
    ) -> None:
        """`ahead`: whether a step is launched before the one before it is read."""
        self._inference, self._host, self._selection, self._rules = inference, host, selection, rules
        self._ahead = ahead
        self._homes: dict[Row, int] = {}
        self._free = list(range(selection.scratch))
        self._flights: deque[_Flight] = deque()

    def prepare(self, together: int) -> None:
        """Have the steps of greedy rows and of draws recorded, and the prompts of up to so many windows that begin.

        To be called while there are no rows: what it writes, whoever comes writes over.
        """
        most = min(self._inference.n_windows, self._selection.scratch)
        for n in sizes(most):
            for drawing in (False, True):
                self._inference.advance(
                    self._selection,
                    homes=range(n),
                    counts=[0] * n,
                    lengths=[0] * n,
                    windows=range(n),
                    drawing=drawing,
                )
        for length in range(1, LONGEST_PROMPT + 1):
            for n in range(1, min(together, most) + 1):
                self._inference.prefill_many([(0,) * length] * n, row=0, windows=range(n), keep=[(0,)] * n)

    def begin(self, rows: Sequence[Row], logits: Tensor) -> None:
        """See `Choice`."""
        for row in rows:
            self.leave(row)
        alone = [i for i, row in enumerate(rows) if row.decoding.beams is None]
        if len(alone) < len(rows):
            beams = [i for i, row in enumerate(rows) if row.decoding.beams is not None]
            self._host.begin([rows[i] for i in beams], logits[beams])
        if alone:
            for i in alone:
                self._settle_in(rows[i])
            self._choose([rows[i] for i in alone], logits if len(alone) == len(rows) else logits[alone])
        if not self._ahead:
            self._land(0)

    def step(self, rows: Sequence[Row]) -> None:
        """See `Choice`."""
        beams = [i for i, row in enumerate(rows) if row.decoding.beams is not None]
        if not beams:
            self._flights.append(_Flight(rows, self._advance(rows)))
            self._land(1 if self._ahead else 0)
        elif self._flights:
            self._land(0)  # and no step: who has ended must go first
        else:
            self._step_with(beams, rows)

    def leave(self, row: Row) -> None:
        """See `Choice`."""
        if row in self._homes:
            self._free.append(self._homes.pop(row))
        row.in_flight = 0
        for flight in self._flights:
            flight.rows = [None if flown is row else flown for flown in flight.rows]

    def _settle_in(self, row: Row) -> None:
        home = self._homes[row] = self._free.pop()
        options = row.decoding.options
        self._selection.begin(
            home,
            row.decoding.suppressed,
            temperature=row.decoding.temperature,
            seed=row.seed,
            first_to=self._rules.first_time_to(options),
        )

    def _advance(self, rows: Sequence[Row]) -> Tensor:
        return self._inference.advance(
            self._selection,
            homes=[self._homes[row] for row in rows],
            counts=[row.said for row in rows],
            lengths=[row.length for row in rows],
            windows=[row.decoding.slot for row in rows],
            drawing=_is_drawing(rows),
        )

    def _step_with(self, beams: list[int], rows: Sequence[Row]) -> None:
        """A step of a batch with beams, every token of which the host knows, before and after."""
        logits = self._host.logits(rows)
        chosen = set(beams)
        alone = [i for i in range(len(rows)) if i not in chosen]
        if alone:
            self._choose([rows[i] for i in alone], logits[alone])
        self._host.choose(logits[beams], [rows[i] for i in beams])
        self._land(0)

    def _choose(self, rows: Sequence[Row], logits: Tensor) -> None:
        """Rows say a token out of logits that are there already."""
        places = self._selection.rows([self._homes[row] for row in rows], [row.said for row in rows])
        self._flights.append(_Flight(rows, self._selection.choose(logits, places, drawing=_is_drawing(rows))))

    def _land(self, keep: int) -> None:
        """Read all flights but the last `keep`."""
        while len(self._flights) > keep:
            self._flights.popleft().land()


def _is_drawing(rows: Sequence[Row]) -> bool:
    return any(row.seed is not None for row in rows)

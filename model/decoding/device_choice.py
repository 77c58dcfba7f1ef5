"""Tokens that are chosen where the logits are: the host launches steps, and reads one small tensor for each.

Implements `model.decoding.choice` for a GPU. A row's last token never leaves the device on its way into the next step
(`model.search.selection`), so the next step can be launched before the host has read this one: while the device works
on it, the host reads, ends windows, and lets others in.

- What was launched and not read yet is a **flight**, read in order (`model.decoding.flight`). A row that turns out to
  have ended has made one step too many: it is struck out of the flight, and what it wrote lies in memory that is its
  own or nobody's.
- Beams survive on the device as well (`model.search.beam_selection`); the host gets their candidates a step later, and
  comes to the same survivors. While there are any, logits are captured and the choice is launched operator by operator.
"""

from collections import deque
from collections.abc import Sequence

from torch import Tensor

from model.decoding.choice import Choice, HostChoice
from model.decoding.flight import Candidates, Flight, Tokens
from model.decoding.inference import Inference, PyTorchInference
from model.decoding.native_choice import NativeChoice
from model.decoding.row import Decoding, Row
from model.gpu.graphs import LONGEST_PROMPT
from model.gpu.shapes import sizes
from model.native.inference import NativeInference
from model.network.whisper import Whisper
from model.search.beam_selection import extend
from model.search.rules import Rules
from model.search.selection import Selection
from model.tokenizer import Tokenizer
from model.transfer import send


def make_choice(model: Whisper, inference: Inference, rules: Rules, tokenizer: Tokenizer, *, n_rows: int) -> Choice:
    """On a GPU whose steps are captured the choice is made there, beside the decoder in C it is made in C."""
    if isinstance(inference, NativeInference):
        return NativeChoice(inference, rules, tokenizer.timestamp_begin)
    captured = model.device.type == "cuda" and model.captures_steps
    if not captured or not isinstance(inference, PyTorchInference):
        return HostChoice(inference, rules, model.device)
    selection = Selection(model.dims, tokenizer, rules, n_rows=n_rows, device=model.device)
    return DeviceChoice(inference, selection, rules, ahead=True)


class DeviceChoice:
    """`Choice` on a device, at most one step ahead of the host."""

    def __init__(self, inference: PyTorchInference, selection: Selection, rules: Rules, *, ahead: bool) -> None:
        """`ahead`: whether a step is launched before the one before it is read."""
        self._inference, self._selection, self._rules = inference, selection, rules
        self._ahead = ahead
        self._homes: dict[Row, int] = {}
        self._free = list(range(selection.scratch))
        self._flights: deque[Flight] = deque()

    def prepare(self, together: int) -> None:
        """Have the steps of greedy rows and of draws recorded, and the prompts of up to so many windows that begin.

        To be called while there are no rows: what it writes, whoever comes writes over. The largest come first: in the
        memory that they leave the others find room, and not the other way round.
        """
        most = min(self._inference.n_windows, self._selection.scratch)
        for n in reversed(sizes(most)):
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
            self._settle_in(row)
        self._choose(rows, logits)
        if not self._ahead:
            self._land(0)

    def step(self, rows: Sequence[Row]) -> None:
        """See `Choice`."""
        if any(row.decoding.beams is not None for row in rows):
            self._choose(rows, self._advance(rows, drawing=None), moves=True)
        else:
            self._flights.append(Flight([Tokens(rows, self._advance(rows, drawing=_is_drawing(rows)))]))
        self._land(1 if self._ahead else 0)

    def leave(self, row: Row) -> None:
        """See `Choice`."""
        if row in self._homes:
            self._free.append(self._homes.pop(row))
        row.in_flight = 0
        for flight in self._flights:
            flight.strike(row)

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

    def _advance(self, rows: Sequence[Row], *, drawing: bool | None) -> Tensor:
        return self._inference.advance(
            self._selection,
            homes=[self._homes[row] for row in rows],
            counts=[row.said for row in rows],
            lengths=[row.length for row in rows],
            windows=[row.decoding.slot for row in rows],
            drawing=drawing,
        )

    def _choose(self, rows: Sequence[Row], logits: Tensor, *, moves: bool = False) -> None:
        """Rows say a token out of logits that are there already, (len(rows), n_vocab).

        `moves`: whether beams that take over another one's past have a past of their own.
        """
        places = {row: i for i, row in enumerate(rows)}
        parts: list[Tokens | Candidates] = []
        alone = [row for row in rows if row.decoding.beams is None]
        if alone:
            own = logits if len(alone) == len(rows) else logits[send([places[row] for row in alone], logits.device)]
            parts.append(Tokens(alone, self._selection.choose(own, self._said(alone), drawing=_is_drawing(alone))))
        widths: dict[int, list[Decoding]] = {}
        for decoding in dict.fromkeys(row.decoding for row in rows if row.decoding.beams is not None):
            widths.setdefault(len(decoding.rows), []).append(decoding)
        for width, decodings in widths.items():
            beams = [row for decoding in decodings for row in decoding.rows]
            index = send([places[row] for row in beams], logits.device)
            candidates, sources = extend(self._selection, logits[index], self._said(beams), width)
            if moves and width > 1:  # rows of the batch are where their logits are, and a window's share its prompt
                said = slice(min(d.n_prompt for d in decodings), max(row.length for row in beams) + 1)
                self._inference.take_over(index[sources], index, said)
            parts.append(Candidates(decodings, candidates))
        self._flights.append(Flight(parts))

    def _said(self, rows: Sequence[Row]) -> Tensor:
        """What `Selection` wants to know of rows."""
        return self._selection.rows([self._homes[row] for row in rows], [row.said for row in rows])

    def _land(self, keep: int) -> None:
        """Read all flights but the last `keep`."""
        while len(self._flights) > keep:
            self._flights.popleft().land()


def _is_drawing(rows: Sequence[Row]) -> bool:
    return any(row.seed is not None for row in rows)

"""The continuous batch: encoded windows in, one token a step for every row, decoded windows out as they end.

Gets log-Mel windows from `model.mel` and what to do with each from `model.longform.transcript`; drives the encoder and
`model.decoding.inference`; gives a `DecodingResult` for each window. `model.transcriber` and the service use the same
object.

- A row joins when its window is encoded and leaves when it ends; nobody waits for a batch to form or to finish.
- The fallback ladder runs here: a retry goes back to the end of the prompt, whose keys, values and logits are kept, so
  that it neither encodes nor prefills again.
- On a CPU an unsure text is searched for again with beams (`model.guards.doubt`), for which a few windows at a time
  have row slots besides, and the others wait (`model.decoding.searches`).
- A doubtful text is heard again by witnesses (`model.guards.doubt`), in the same row, as if they were rungs behind the
  ladder; on a CPU beside a shadow (`model.decoding.contrast`), which has a row slot of its own and takes none from a
  window.
- Beams and candidates are rows of one window, whose audio is read once for all of them.
- Everything is per row: language, task, prompt, temperature, generator, rules.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from model.decoding.alignment import Aligner
from model.decoding.budget import searches, slots_beside
from model.decoding.choice import Choice
from model.decoding.contrast import Shadows
from model.decoding.device_choice import DeviceChoice, make_choice
from model.decoding.inference import Inference, make_inference
from model.decoding.ladder import SEARCH, Listen
from model.decoding.opening import Opening, Start
from model.decoding.row import Decoding, Row
from model.decoding.rows import Rows
from model.decoding.searches import Searches
from model.guards.doubt import is_said_again, told_apart
from model.native.weights import NativeDecoder
from model.network.whisper import Whisper
from model.options import TranscribeOptions
from model.search.rules import Rules
from model.tokenizer import Tokenizer
from model.window import DecodingResult, Window


class DecodingBatch:
    """Rows that step together on one device. Not thread-safe: one owner drives it."""

    def __init__(self, model: Whisper, tokenizer: Tokenizer, *, max_windows: int, max_rows: int | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        n_rows = max_windows if max_rows is None else max_rows
        self.max_windows, self.max_rows = max_windows, n_rows
        self._device = model.device
        # A slot more than rows: language detection borrows it. Shadows and searches have others, and silence a window.
        has_shadows = model.device.type == "cpu"
        n_slots = n_rows + 1 + (slots_beside(max_windows) if has_shadows else 0)
        self._inference: Inference = make_inference(model, n_windows=max_windows + has_shadows, n_rows=n_slots)
        self._aligner = Aligner(self._inference, tokenizer, model.dims, model.alignment_heads)
        self._rules = Rules(model.dims, tokenizer, model.device)
        self._choice: Choice = make_choice(model, self._inference, self._rules, tokenizer, n_rows=n_rows)
        has_shadows = has_shadows and not isinstance(self._choice, DeviceChoice)
        self._shadows = Shadows(model, self._inference, tokenizer, slot=max_windows) if has_shadows else None
        self._opening = Opening(self._inference, tokenizer, self._rules)
        self._free = list(reversed(range(max_windows)))
        self._rows = Rows(self._inference, self._choice)
        self._searches = Searches(self._rows, self._inference, most=searches(max_windows))
        self._decodings: dict[int, Decoding] = {}
        self._ended: list[tuple[int, DecodingResult]] = []
        self.steps: Counter[int] = Counter()
        """Decode steps taken, by number of rows."""
        self.fallbacks: Counter[str] = Counter()
        """Windows decoded again, by reason."""
        self.on_attempt: Callable[[Decoding, DecodingResult], None] | None = None
        """Told of every attempt at a window, refused ones and witnesses too."""

    @property
    def free_rows(self) -> int:
        """Rows that nobody will need: a window keeps as many as its widest temperature takes."""
        return self.max_rows - sum(decoding.width for decoding in self._decodings.values())

    @property
    def free_windows(self) -> int:
        """Windows of one row each that can be encoded and started now."""
        return min(len(self._free), self.free_rows)

    @property
    def active_rows(self) -> int:
        """Rows that the next step will advance, and windows that wait for a search."""
        return len(self._rows) + self._searches.waiting

    @torch.inference_mode()
    def prepare(self, together: int) -> None:
        """Have what a GPU records recorded now and not while somebody waits; nothing elsewhere. While no row is there.

        `together`: windows that begin at once at most.
        """
        if isinstance(self._choice, DeviceChoice):
            self._choice.prepare(together)

    @torch.inference_mode()
    def encode(self, mel: Tensor, n_frames: Sequence[int] | None = None) -> list[int]:
        """Encode log-Mel windows (batch, n_mels, 3000); the answer is the slot that each one now occupies.

        `n_frames`: those of each window that have content, the others being 0.0; None is all.
        """
        features = self.model.encode(mel.to(device=self._device, dtype=self.model.dtype), n_frames)
        slots = self._free[-len(mel) :]
        self._inference.fill_windows(features, slots)
        del self._free[-len(mel) :]
        return slots

    @torch.inference_mode()
    def detect_languages(self, slots: Sequence[int]) -> list[dict[str, float]]:
        """Probability of every language for each encoded window, most probable first; {} for English-only models."""
        return self._opening.languages(slots, row=len(self._rows))

    def detect_language(self, slot: int) -> dict[str, float]:
        """`detect_languages` of one window."""
        return self.detect_languages([slot])[0]

    def start(self, slot: int, window: Window, options: TranscribeOptions, listen: Listen | None = None) -> None:
        """`start_all` of one window."""
        self.start_all([Start(slot, window, options, listen)])

    @torch.inference_mode()
    def start_all(self, starts: Sequence[Start]) -> None:
        """Begin to decode encoded windows: they take part in the next step and free their slots when they end.

        `ValueError` if fewer rows are free than their `options.width` together. Whatever it raises, `drop` undoes it.
        """
        width = sum(start.options.width for start in starts)
        if width > self.free_rows:
            raise ValueError(f"{width} rows are wanted and {self.free_rows} are free")
        decodings = self._opening.open(starts, row=len(self._rows))
        for decoding in decodings:
            self._decodings[decoding.slot] = decoding
            decoding.ladder.contrasts = self._shadows is not None
            decoding.ladder.rounds = isinstance(self.model.decoder, NativeDecoder)
            decoding.most_tokens = decoding.fitting_tokens(self.model.dims.n_text_ctx)
            self._rows.add(decoding)
        self._begin(decodings, rung=0)
        self._settle()

    @torch.inference_mode()
    def step(self) -> list[tuple[int, DecodingResult]]:
        """Advance every row by one token; the windows that ended, by the slots that they occupied until now."""
        self._search()
        if rows := self._rows.all:
            self.steps[len(rows)] += 1
            self._choice.step(rows)
            self._settle()
        ended, self._ended = self._ended, []
        for slot, _ in ended:
            self.release(slot)  # not before: a window may end as it starts, and another one be encoded before the step
        return ended

    def drop(self, slot: int) -> None:
        """Forget a window, whatever became of it: nobody waits for it."""
        if decoding := self._decodings.pop(slot, None):
            self._searches.leave(decoding)
            self._rows.keep(decoding, 0)
        self._ended = [(ended, result) for ended, result in self._ended if ended != slot]
        self.release(slot)

    def release(self, slot: int) -> None:
        """Free the slot of an encoded window that is not being decoded."""
        if slot not in self._free:
            self._free.append(slot)
            self._free.sort(reverse=True)  # the lowest is next: a captured step reads all slots up to the highest

    def _begin(self, decodings: Sequence[Decoding], rung: int) -> None:
        """Start windows at a rung of their ladders, or behind them: the first row of each has the prompt for all."""
        rows: list[Row] = []
        logits: list[Tensor] = []
        for decoding in decodings:
            if decoding.first_logits is None:
                raise ValueError("the window has no prompt yet")
            width = decoding.ladder.width_at(rung)
            if width > 1:
                (home,) = decoding.rows
                self._rows.add(decoding, width - 1)
                copies = [row.index for row in decoding.rows[1:]]
                self._inference.replace_rows(home.index, copies, len(decoding.read_before(rung)))
            if self._shadows is not None and decoding.ladder.is_witness_at(rung) and decoding.shadow is None:
                self._rows.add_shadow(self._shadows.cast(decoding, len(self._rows)))
            decoding.begin(rung, self._rules, self.tokenizer)
            if decoding.rows[0].tokens:
                continue  # the next step says what they lead to
            rows += decoding.rows
            logits.append(decoding.first_logits.repeat(width, 1))
            if decoding.shadow is not None and decoding.silent_logits is not None:
                rows.append(decoding.shadow)
                logits.append(decoding.silent_logits)
        if rows:
            self._choice.begin(rows, logits[0] if len(logits) == 1 else torch.cat(logits))

    def _settle(self) -> None:
        """Have every window that is done go on, or end."""
        for decoding in list(self._decodings.values()):
            self._go_on(decoding)

    def _search(self) -> None:
        """Let windows that wait for a search begin it, as far as there is room."""
        while decoding := self._searches.next():
            self._begin([decoding], SEARCH)
            self._go_on(decoding)

    def _go_on(self, decoding: Decoding) -> None:
        """Begin a window again that has said all, where the fallback ladder or a doubt says so, or take it out."""
        while self._is_complete(decoding):
            result = decoding.result(self.tokenizer)
            if self.on_attempt is not None:
                self.on_attempt(decoding, result)
            self._searches.leave(decoding)
            decoding.ladder.note(self._told_apart(decoding, result))
            rung = decoding.ladder.next_rung(self.tokenizer)
            if rung is None:
                self._end(decoding)
                return
            reason = decoding.ladder.reason or ("unsure" if rung == SEARCH else None)
            if reason is not None and not decoding.ladder.witnesses:
                self.fallbacks[reason] += 1
            if rung == SEARCH and not self._searches.admits(decoding):
                return
            self._rows.keep(decoding, 1)
            self._begin([decoding], rung)

    def _end(self, decoding: Decoding) -> None:
        result = decoding.ladder.kept(self.tokenizer)
        asked = decoding.slot, decoding.window, decoding.options
        result = self._aligner.add_looks(self._aligner.add_times(result, *asked), *asked)
        self._ended.append((decoding.slot, result))
        self._rows.keep(decoding, 0)
        del self._decodings[decoding.slot]

    def _told_apart(self, decoding: Decoding, result: DecodingResult) -> DecodingResult:
        """The result, and of a doubtful one that says something again whether it heard that again."""
        if not decoding.ladder.doubts(result) or not is_said_again(result, self.tokenizer):
            return result
        seconds = self._aligner.looked_at(result, decoding.slot, decoding.window, decoding.options)
        return told_apart(result, seconds, self.tokenizer)

    def _is_complete(self, decoding: Decoding) -> bool:
        """Whether every hypothesis has ended; the rows of those that have are given up, but for the last one."""
        if decoding.beams is not None:
            return decoding.beams.is_complete or decoding.rows[0].is_full
        for row in list(decoding.rows):
            if row.tokens and (row.is_full or row.tokens[-1] == self.tokenizer.eot):
                decoding.end(row, self.tokenizer.eot)
                if len(decoding.rows) == 1:
                    return True
                self._rows.remove(row)
        return False


def run_to_end(batch: DecodingBatch) -> Iterable[tuple[int, DecodingResult]]:
    """Step until no row is left; the windows as they end."""
    while batch.active_rows:
        yield from batch.step()

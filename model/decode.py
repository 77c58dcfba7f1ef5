"""The continuous batch: encoded windows in, one token a step for every row, decoded windows out as they end.

Gets log-Mel windows from `model.mel` and what to do with each from `model.transcript`; drives the encoder and
`model.inference`; gives a `DecodingResult` for each window. `model.transcriber` and the service use the same object.

- A row joins when its window is encoded and leaves when it ends; nobody waits for a batch to form or to finish.
- The fallback ladder runs here: a retry goes back to the end of the prompt, whose keys, values and logits are kept, so
  that it neither encodes nor prefills again.
- Everything is per row: language, task, prompt, temperature, generator, rules.
"""

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

from model.alignment import Aligner
from model.inference import Inference, PyTorchInference
from model.options import TranscribeOptions
from model.rules import Rules
from model.sampling import row_seed, sample
from model.tokenizer import Tokenizer
from model.whisper import Whisper
from model.window import DecodingResult, Window, compression_ratio, fallback_reason, initial_tokens


class Row:
    """One hypothesis of a window: where it stands, and what it may do next."""

    def __init__(self, slot: int, window: Window, options: TranscribeOptions, language: str) -> None:
        self.slot, self.window, self.options, self.language = slot, window, options, language
        self.language_probs: dict[str, float] = {}
        self.no_speech_prob = 0.0
        self.suppressed: tuple[int, ...] = ()
        self.n_prompt = 0
        self.first_logits: Tensor | None = None

    def begin(self, rung: int, rules: Rules, device: torch.device) -> None:
        """Start sampling at this rung of the temperature ladder, with nothing sampled yet."""
        self.rung = rung
        self.temperature = self.options.temperature[rung]
        self.grammar = rules.grammar(self.options)
        self.tokens: list[int] = []
        self.sum_logprob = 0.0
        self.generator: torch.Generator | None = None
        if self.temperature > 0:
            seed = row_seed(self.options.seed, self.window.index, rung)
            self.generator = torch.Generator(device).manual_seed(seed)

    def push(self, token: int, logprob: float) -> None:
        """Note a sampled token."""
        self.tokens.append(token)
        self.sum_logprob += logprob
        self.grammar.push(token)

    @property
    def length(self) -> int:
        """Tokens whose keys and values are in the cache: all but the last sampled one."""
        return self.n_prompt + len(self.tokens) - 1


class DecodingBatch:
    """Rows that step together on one device. Not thread-safe: one owner drives it."""

    def __init__(self, model: Whisper, tokenizer: Tokenizer, *, max_windows: int, max_rows: int | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        n_rows = max_windows if max_rows is None else max_rows
        self.max_rows = n_rows
        self._device = model.device
        # One row slot more than rows: language detection borrows it.
        self._inference: Inference = PyTorchInference(model, n_windows=max_windows, n_rows=n_rows + 1)
        self._aligner = Aligner(self._inference, tokenizer, model.dims, model.alignment_heads)
        self._rules = Rules(model.dims, tokenizer, model.device)
        self._free = list(reversed(range(max_windows)))
        self._rows: list[Row] = []
        self._ended: list[tuple[int, DecodingResult]] = []
        self.steps: Counter[int] = Counter()
        """Decode steps taken, by number of rows."""
        self.fallbacks: Counter[str] = Counter()
        """Windows decoded again, by reason."""

    @property
    def free_windows(self) -> int:
        """Windows that can be encoded and started now."""
        return min(len(self._free), self.max_rows - len(self._rows))

    @property
    def active_rows(self) -> int:
        """Rows that the next step will advance."""
        return len(self._rows)

    @torch.inference_mode()
    def encode(self, mel: Tensor) -> list[int]:
        """Encode log-Mel windows (batch, n_mels, 3000); the answer is the slot that each one now occupies."""
        features = self.model.encoder(mel.to(device=self._device, dtype=self.model.dtype))
        slots = self._free[-len(mel) :]
        self._inference.fill_windows(features, slots)
        del self._free[-len(mel) :]
        return slots

    @torch.inference_mode()
    def detect_language(self, slot: int) -> dict[str, float]:
        """Probability of every language for an encoded window, most probable first; {} for English-only models.

        One decoder step after the start of transcript (the paper, section 2.3), on the encoding that is there.
        """
        codes = self.tokenizer.language_codes
        if not codes:
            return {}
        logits = self._inference.prefill((self.tokenizer.sot,), row=len(self._rows), window=slot, keep=(0,))[0]
        index = torch.tensor(self.tokenizer.language_tokens, device=self._device)
        probs = logits[index].softmax(-1).tolist()
        return dict(sorted(zip(codes, probs, strict=True), key=lambda item: -item[1]))

    @torch.inference_mode()
    def start(self, slot: int, window: Window, options: TranscribeOptions) -> None:
        """Begin to decode an encoded window: it takes part in the next step and frees its slot when it ends."""
        language, probs = window.language, {}
        if language is None:
            probs = self.detect_language(slot)
            language = next(iter(probs), "en")
        row = Row(slot, window, options, language)
        row.language_probs = probs
        prompt = initial_tokens(self.tokenizer, window, language, options)
        row.n_prompt = len(prompt)
        row.suppressed = self._rules.suppressed(options)
        sot_index = prompt.index(self.tokenizer.sot)
        self._inference.clear_row(len(self._rows))
        keep = (sot_index, len(prompt) - 1)
        logits = self._inference.prefill(prompt, row=len(self._rows), window=slot, keep=keep)
        row.no_speech_prob = logits[0].softmax(-1)[self.tokenizer.no_speech].item()
        row.first_logits = logits[1]
        self._rules.suppress(row.first_logits[None], [row.suppressed])
        if options.suppress_blank:
            self._rules.suppress_blank(row.first_logits)
        self._rows.append(row)
        self._begin(row, rung=0)
        self._settle()

    @torch.inference_mode()
    def step(self) -> list[tuple[int, DecodingResult]]:
        """Advance every row by one token; the windows that ended, by the slots that they occupied until now."""
        if rows := self._rows:
            self.steps[len(rows)] += 1
            logits = self._inference.step(
                [row.tokens[-1] for row in rows],
                lengths=[row.length for row in rows],
                windows=[row.slot for row in rows],
            )
            self._rules.suppress(logits, [row.suppressed for row in rows])
            self._sample(logits, rows)
            self._settle()
        ended, self._ended = self._ended, []
        return ended

    def drop(self, slot: int) -> None:
        """Forget a window, whatever became of it: nobody waits for it."""
        for index, row in enumerate(self._rows):
            if row.slot == slot:
                self._remove(index)
                break
        self._ended = [(ended, result) for ended, result in self._ended if ended != slot]
        self.release(slot)

    def release(self, slot: int) -> None:
        """Free the slot of an encoded window that is not being decoded."""
        if slot not in self._free:
            self._free.append(slot)

    def _begin(self, row: Row, rung: int) -> None:
        """Sample the first token of a row from the logits of its prompt."""
        if row.first_logits is None:
            raise ValueError("the row has no prompt yet")
        row.begin(rung, self._rules, self._device)
        self._sample(row.first_logits[None].clone(), [row])

    def _sample(self, logits: Tensor, rows: list[Row]) -> None:
        """Choose the next token of each row from its suppressed logits (rows, n_vocab)."""
        self._rules.constrain(logits, [row.grammar.limits() for row in rows])
        tokens, logprobs = sample(logits, [row.temperature for row in rows], [row.generator for row in rows])
        for row, token, logprob in zip(rows, tokens, logprobs, strict=True):
            row.push(token, logprob)

    def _settle(self) -> None:
        """Take out the rows that ended, or begin them again where the fallback ladder says so."""
        for index in reversed(range(len(self._rows))):
            row = self._rows[index]
            while self._is_complete(row):
                result = self._result(row)
                reason = fallback_reason(result, row.options)
                if reason is None or row.rung + 1 == len(row.options.temperature):
                    result = self._aligner.add_times(result, row.slot, row.window, row.options)
                    self._remove(index)
                    self.release(row.slot)
                    self._ended.append((row.slot, result))
                    break
                self.fallbacks[reason] += 1
                self._begin(row, row.rung + 1)

    def _is_complete(self, row: Row) -> bool:
        n_ctx = self.model.dims.n_text_ctx
        limit = row.options.sample_len or n_ctx // 2
        return (
            row.tokens[-1] == self.tokenizer.eot or len(row.tokens) >= limit or row.n_prompt + len(row.tokens) > n_ctx
        )

    def _result(self, row: Row) -> DecodingResult:
        tokens = row.tokens[:-1] if row.tokens[-1] == self.tokenizer.eot else row.tokens
        text = self.tokenizer.decode(tokens).strip()
        return DecodingResult(
            language=row.language,
            tokens=tuple(tokens),
            text=text,
            avg_logprob=row.sum_logprob / (len(tokens) + 1),
            no_speech_prob=row.no_speech_prob,
            temperature=row.temperature,
            compression_ratio=compression_ratio(text),
            language_probs=row.language_probs,
        )

    def _remove(self, index: int) -> None:
        """Take a row out and move the last one into its place, so that rows stay dense."""
        last = self._rows.pop()
        if index < len(self._rows):
            # The whole row: a masked position still takes part in the product, and must hold no NaN of its last owner.
            self._inference.copy_rows([len(self._rows)], [index], self.model.dims.n_text_ctx)
            self._rows[index] = last


def run_to_end(batch: DecodingBatch) -> Iterable[tuple[int, DecodingResult]]:
    """Step until no row is left; the windows as they end."""
    while batch.active_rows:
        yield from batch.step()

"""The first look at encoded windows: which language is spoken, and what the prompt leads to.

Used by `model.decoding.batch`, which turns what comes back into rows. Windows that begin together share passes: one for
the languages that nobody named, one for all prompts of equal length; and the host reads what it must know of all of
them at once, and what it need not know yet later. On a CPU windows come one at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from model.decoding.inference import Inference
from model.decoding.ladder import Listen
from model.decoding.row import Decoding
from model.options import TranscribeOptions
from model.search.rules import Rules
from model.tokenizer import Tokenizer
from model.transfer import Fetched
from model.window import Window, initial_tokens, spoken_language


@dataclass(frozen=True, slots=True)
class Start:
    """An encoded window that is to be decoded."""

    slot: int
    window: Window
    options: TranscribeOptions
    listen: Listen | None = None


class Opening:
    """Turns encoded windows into decodings that have read their prompt."""

    def __init__(self, inference: Inference, tokenizer: Tokenizer, rules: Rules) -> None:
        self._inference, self._tokenizer, self._rules = inference, tokenizer, rules

    def languages(self, slots: Sequence[int], *, row: int) -> list[dict[str, float]]:
        """Probability of every language for each window, most probable first; {} for English-only models.

        One decoder step after the start of transcript (the paper, section 2.3), on the encoding that is there; the rows
        from `row` on are borrowed for it.
        """
        codes = self._tokenizer.language_codes
        if not codes or not slots:
            return [{} for _ in slots]
        prompts = [(self._tokenizer.sot,)] * len(slots)
        logits = self._inference.prefill_many(prompts, row=row, windows=slots, keep=[(0,)] * len(slots))[:, 0]
        every = logits[:, self._rules.index(self._tokenizer.language_tokens)].softmax(-1).tolist()
        return [dict(sorted(zip(codes, probs, strict=True), key=lambda item: -item[1])) for probs in every]

    def open(self, starts: Sequence[Start], *, row: int) -> list[Decoding]:
        """The windows as decodings that belong into the rows from `row` on, where their prompts are now, in this order.

        Their first logits are suppressed already. Nothing but rows that nobody has is changed.
        """
        alike: dict[int, list[Decoding]] = {}
        prompts: dict[Decoding, tuple[int, ...]] = {}
        for start, probs in zip(starts, self._detected(starts, row), strict=True):
            decoding, prompt = self._decoding(start, probs)
            prompts[decoding] = prompt
            alike.setdefault(len(prompt), []).append(decoding)
        opened: list[Decoding] = []
        silences: list[torch.Tensor] = []
        for decodings in alike.values():
            silences.append(self._prefill(decodings, [prompts[d] for d in decodings], row + len(opened)))
            opened += decodings
        fetched = Fetched(torch.cat(silences))
        for i, decoding in enumerate(opened):
            decoding.silence = partial(_number, fetched, i)
        return opened

    def _detected(self, starts: Sequence[Start], row: int) -> list[dict[str, float]]:
        """What is heard of the language, for those that do not know it; {} for the others."""
        unknown = [start.slot for start in starts if start.window.language is None]
        heard = dict(zip(unknown, self.languages(unknown, row=row), strict=True))
        return [heard.get(start.slot, {}) for start in starts]

    def _decoding(self, start: Start, probs: dict[str, float]) -> tuple[Decoding, tuple[int, ...]]:
        window, language = start.window, start.window.language
        options = window.heard_with(start.options)
        if language is None:
            language = spoken_language(probs, window.follows)
            if window.follows not in (None, language):
                # A text in another language would lead it astray.
                window = replace(window, prompt=window.prompt[: window.n_fixed])
        prompt = initial_tokens(self._tokenizer, window, language, options)
        decoding = Decoding(start.slot, window, options, language, prompt)
        decoding.language_probs = probs
        decoding.ladder.listen = start.listen
        decoding.suppressed = self._rules.suppressed(options)
        return decoding, prompt

    def _prefill(self, decodings: Sequence[Decoding], prompts: Sequence[tuple[int, ...]], row: int) -> torch.Tensor:
        """Read prompts of one length; probability of no speech for each, still on the device."""
        for i in range(len(decodings)):
            self._inference.clear_row(row + i)
        logits = self._inference.prefill_many(
            prompts,
            row=row,
            windows=[decoding.slot for decoding in decodings],
            keep=[(prompt.index(self._tokenizer.sot), len(prompt) - 1) for prompt in prompts],
        )
        for decoding, own in zip(decodings, logits, strict=True):
            decoding.first_logits = own[1:]
            self._rules.suppress(decoding.first_logits, [decoding.suppressed])
            if decoding.options.suppress_blank:
                self._rules.suppress_blank(decoding.first_logits[0])
        return logits[:, 0].softmax(-1)[:, self._tokenizer.no_speech]


def _number(fetched: Fetched, index: int) -> float:
    return float(fetched.read()[index])

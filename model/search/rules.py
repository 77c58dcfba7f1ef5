"""Which tokens a row may sample next: suppression lists and the timestamp grammar, for all rows at once.

Gets the rows' logits from the decoder, gives them, masked in place, to `model.search.sampling`. A row's grammar state
is a few integers kept in Python (`TimestampGrammar`); a step turns them into three limits a row and masks the whole
batch with a handful of operations, without a loop over the vocabulary and without a read from the device.

Source: openai/whisper `decoding.py` (SuppressBlank, SuppressTokens, ApplyTimestampRules); the paper, section 2.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.dims import ModelDimensions
from model.options import TranscribeOptions
from model.tokenizer import Tokenizer
from model.transfer import send

_MOST_LISTS = 64
"""Lists of tokens that are kept on the device."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The tokens that a row's grammar admits: [text_from, timestamp_begin) and [time_from, time_to)."""

    text_from: int
    time_from: int
    time_to: int
    timed: bool
    """Whether timestamps win when together they are more probable than every text token."""


class TimestampGrammar:
    """The state of one row: timestamps come in pairs, never go back, and open every window."""

    def __init__(self, tokenizer: Tokenizer, *, first_to: int | None) -> None:
        """`first_to`: one more than the highest first timestamp; None for a row without timestamps."""
        self._begin, self._eot, self._end = tokenizer.timestamp_begin, tokenizer.eot, tokenizer.n_vocab
        self._first_to = first_to
        self._last: int | None = None
        self._before_last: int | None = None
        self._last_time: int | None = None

    def push(self, token: int) -> None:
        """Note the token that the row sampled."""
        self._before_last, self._last = self._last, token
        if token >= self._begin:
            self._last_time = token

    def limits(self) -> Limits:
        """What the next token may be."""
        if self._first_to is None:
            return Limits(0, self._end, self._end, timed=False)
        if self._last is None:
            return Limits(self._begin, self._begin, self._first_to, timed=True)
        text_from, time_from = 0, self._begin
        opens_pair = False
        if self._last >= self._begin:
            if self._before_last is None or self._before_last >= self._begin:
                return Limits(0, self._end, self._end, timed=True)
            text_from, opens_pair = self._eot, True
        if self._last_time is not None:
            time_from = self._last_time if opens_pair else self._last_time + 1
        return Limits(text_from, time_from, self._end, timed=True)


class Rules:
    """The masks of one model on one device; rows with the same suppression share one index tensor."""

    def __init__(self, dims: ModelDimensions, tokenizer: Tokenizer, device: torch.device) -> None:
        self._tokenizer, self._device = tokenizer, device
        self._ids = torch.arange(dims.n_vocab, device=device)
        self._step = 30.0 / dims.n_audio_ctx
        """Seconds from one timestamp to the next."""
        self._indices: dict[tuple[int, ...], Tensor] = {}

    def grammar(self, options: TranscribeOptions) -> TimestampGrammar:
        """A fresh grammar for one row."""
        return TimestampGrammar(self._tokenizer, first_to=self.first_time_to(options))

    def first_time_to(self, options: TranscribeOptions) -> int | None:
        """One more than the highest first timestamp of a row; None where it has no timestamps at all."""
        if options.without_timestamps:
            return None
        if not options.max_initial_timestamp:  # the reference reads 0 as "no bound", as it does None
            return self._tokenizer.n_vocab
        return self._tokenizer.timestamp_begin + round(options.max_initial_timestamp / self._step) + 1

    def suppressed(self, options: TranscribeOptions) -> tuple[int, ...]:
        """Token ids that a row with these options never samples."""
        tokenizer, chosen = self._tokenizer, set(options.suppress_tokens)
        if -1 in chosen:
            chosen |= set(tokenizer.non_speech_tokens)
        if chosen:
            chosen |= {tokenizer.transcribe, tokenizer.translate, tokenizer.sot, tokenizer.sot_prev}
            chosen |= {tokenizer.sot_lm, tokenizer.no_speech}
        if not options.without_timestamps:
            chosen.add(tokenizer.no_timestamps)
        return tuple(sorted(token for token in chosen if token >= 0))

    def suppress(self, logits: Tensor, suppressed: Sequence[tuple[int, ...]]) -> None:
        """Mask each row's list in `logits` (rows, n_vocab), in place."""
        if len(set(suppressed)) == 1:
            logits.index_fill_(1, self.index(suppressed[0]), -torch.inf)
            return
        for row, tokens in enumerate(suppressed):
            logits[row].index_fill_(0, self.index(tokens), -torch.inf)

    def suppress_blank(self, row_logits: Tensor) -> None:
        """Forbid a row (n_vocab,) to begin with a space or with the end of the text."""
        blank = (*self._tokenizer.blank_tokens, self._tokenizer.eot)
        row_logits.index_fill_(0, self.index(blank), -torch.inf)

    def constrain(self, logits: Tensor, limits: Sequence[Limits]) -> None:
        """Apply the rows' grammar to `logits` (rows, n_vocab), in place."""
        if any(x.timed for x in limits):
            bounds = send(torch.tensor([(x.text_from, x.time_from, x.time_to) for x in limits]), self._device)
            timed = send(torch.tensor([x.timed for x in limits]), self._device)[:, None]
            self.bound(logits, bounds, timed, bounds_text=any(x.text_from for x in limits))

    def bound(self, logits: Tensor, bounds: Tensor, timed: Tensor, *, bounds_text: bool = True) -> None:
        """`constrain`, in place, for what `Limits` says in tensors: `bounds` (rows, 3) and `timed` (rows, 1).

        `bounds_text`: whether any row's text is bounded.
        """
        begin = self._tokenizer.timestamp_begin
        text, times = logits[:, :begin], logits[:, begin:]
        text_from, time_from, time_to = bounds[:, :1], bounds[:, 1:2], bounds[:, 2:]
        outside = (self._ids[begin:] < time_from) | (self._ids[begin:] >= time_to)
        times.masked_fill_(outside & timed, -torch.inf)
        if bounds_text:
            text.masked_fill_(self._ids[:begin] < text_from, -torch.inf)
        # A timestamp is due when all of them together outweigh every single text token.
        due = times.logsumexp(-1, keepdim=True) > text.amax(-1, keepdim=True)
        text.masked_fill_(due & timed, -torch.inf)

    def index(self, tokens: tuple[int, ...]) -> Tensor:
        """These token ids on the device, (n,)."""
        index = self._indices.get(tokens)
        if index is None:
            if len(self._indices) >= _MOST_LISTS:  # callers may name lists of their own
                self._indices.clear()
            index = self._indices[tokens] = send(tokens, self._device)
        return index

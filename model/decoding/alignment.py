"""Words in time: where in a window's audio each of its text tokens was spoken.

Gets a finished window from `model.decoding.batch` while its slot still holds the audio's keys and values; gives
`TokenTimes`, from which `model.words` makes words, and tells what was said twice from what was heard once
(`model.guards.doubt`). For anything else nothing here runs, and nothing is recorded.

- One pass of the decoder over the window's text, teacher-forced, in which `model.decoding.inference` notes what the
  alignment heads look at: (heads, tokens, frames). Normalised, smoothed and averaged, that is a map of the window on
  which the text is the cheapest monotonic path (dynamic time warping).
- The sums of the warping are the reference's, cell by cell, in an order that makes an anti-diagonal one operation; the
  way back goes from token to token and not from frame to frame.

Source: openai/whisper `timing.py` (find_alignment, median_filter, dtw).
"""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model.decoding.inference import Inference
from model.dims import FRAMES_PER_SECOND, ModelDimensions
from model.guards.missed import drags
from model.native.alignment import find_frames
from model.native.inference import NativeInference
from model.options import TranscribeOptions
from model.tokenizer import Tokenizer
from model.transfer import send
from model.window import SURE_LOGPROB, DecodingResult, TokenTimes, Window, finished_tokens, is_silent

_REACH = 3
"""Frames to each side of a median of seven."""


class Aligner:
    """Adds token times to the results of one batch."""

    def __init__(
        self, inference: Inference, tokenizer: Tokenizer, dims: ModelDimensions, heads: tuple[tuple[int, int], ...]
    ) -> None:
        """`heads`: (layer, head) of the cross-attention that follows the speech."""
        self._inference, self._tokenizer, self._heads = inference, tokenizer, heads
        self._library = inference.library if isinstance(inference, NativeInference) else None
        self._frames_per_position = dims.frames_per_token

    def add_times(
        self, result: DecodingResult, slot: int, window: Window, options: TranscribeOptions
    ) -> DecodingResult:
        """The result with `token_times`, if `options` ask for words; `slot` must still hold the window."""
        if not options.finds_words or is_silent(result, options):
            return result
        tokens = finished_tokens(result.tokens, self._tokenizer.timestamp_begin)
        text = [token for token in tokens if token < self._tokenizer.eot]
        if not text:
            return replace(result, token_times=TokenTimes((0.0,), ()))
        start = self._tokenizer.sot_sequence(result.language, options.task)
        return replace(result, token_times=self._align(text, start, slot, window.n_frames))

    def add_looks(
        self, result: DecodingResult, slot: int, window: Window, options: TranscribeOptions
    ) -> DecodingResult:
        """The result with what was `looked_at`, if a segment lasts too long for its text or breaks off.

        The model must be sure of what it writes with timestamps, whatever its compression; not so without them, where
        it may end after a word, and in translations, of which it seldom is. Not of a text that the caller cuts. The
        words of a translation are in another order than what was said: its looks are put in order of time.
        """
        translates = options.task == "translate"
        sure = translates or options.without_timestamps or result.avg_logprob >= SURE_LOGPROB
        cut = result.endless and options.sample_len is not None
        if not (options.guards and sure) or cut or not drags(result, window, self._tokenizer.timestamp_begin):
            return result
        looked = self.looked_at(result, slot, window, options)
        return replace(result, looked=tuple(sorted(looked) if translates else looked))

    def looked_at(self, result: DecodingResult, slot: int, window: Window, options: TranscribeOptions) -> list[float]:
        """Seconds from the window's start at which the decoder looks most for each text token, in no order of time."""
        text = [token for token in result.tokens if token < self._tokenizer.timestamp_begin]
        start = self._tokenizer.sot_sequence(result.language, options.task)
        _, scores, n_positions = self._look(text, start, slot, window.n_frames)
        seen = attention_map(scores[:, :, :n_positions].softmax(-1))[len(start) : len(start) + len(text)]
        seconds: list[float] = (seen.argmax(-1) * self._frames_per_position / FRAMES_PER_SECOND).tolist()
        return seconds

    def _align(self, text: list[int], start: tuple[int, ...], slot: int, n_frames: int) -> TokenTimes:
        n_start, n_text = len(start), len(text)
        logits, scores, n_positions = self._look(text, start, slot, n_frames)
        # Special tokens take no part in the text's probabilities.
        logits = logits[:, : self._tokenizer.eot]
        chosen = logits.gather(1, send(text, logits.device)[:, None])[:, 0]
        probabilities = (chosen - logits.logsumexp(-1)).exp().tolist()
        frames = self._first_frames(scores, n_positions, n_start, n_text + 1)
        seconds = frames * self._frames_per_position / FRAMES_PER_SECOND
        return TokenTimes(tuple(seconds.tolist()), tuple(probabilities))

    def _look(self, text: list[int], start: tuple[int, ...], slot: int, n_frames: int) -> tuple[Tensor, Tensor, int]:
        """Logits (n_text, n_vocab) that each text token is chosen from, scores of the heads (heads, tokens, n_ctx), and
        of how many positions these count."""
        tokens = [*start, self._tokenizer.no_timestamps, *text, self._tokenizer.eot]
        keep = range(len(start), len(start) + len(text))  # each position predicts the next token
        logits, scores = self._inference.attention(tokens, window=slot, heads=self._heads, keep=keep)
        return logits, scores, max(1, n_frames // self._frames_per_position)

    def _first_frames(self, scores: Tensor, n_frames: int, first: int, n_text: int) -> NDArray[np.int64]:
        """Scores (heads, tokens, n_ctx) -> frames (n_text,) of the tokens from `first` on."""
        if self._library is not None:
            found = find_frames(self._library, scores, n_frames=n_frames, first=first, n_text=n_text)
            return found.astype(np.int64)
        cost = -attention_map(scores[:, :, :n_frames].softmax(-1))[first : first + n_text]
        return first_frames(cost.double().cpu().numpy())


def attention_map(weights: Tensor) -> Tensor:
    """Attention (heads, tokens, frames) -> (tokens, frames): normalised over the tokens, smoothed, averaged."""
    std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    # A frame at which every token looks alike says nothing; the division by zero there must not spread.
    weights = ((weights - mean) / std).nan_to_num_(0.0, 0.0, 0.0)
    # Head by head: the planes of one stay in the processor's memory.
    return torch.stack([median_filter(head[None])[0] for head in weights]).mean(0)


def median_filter(x: Tensor) -> Tensor:
    """Running median of width 7 along the last dimension of (heads, tokens, frames), mirrored at both ends.

    Whole-map minima and maxima, where sorting would visit every frame. Neighbouring sevens share sorted threes: of
    two threes the middle two bound the median, and the seventh frame decides between them.
    """
    if x.shape[-1] <= _REACH:  # too short to be mirrored
        return x
    padded = F.pad(x, (_REACH, _REACH), mode="reflect")
    frames = padded.flatten()  # sevens across two rows are computed and left out
    low, high = torch.minimum(frames[:-1], frames[1:]), torch.maximum(frames[:-1], frames[1:])
    low, high, third = low[:-1], high[:-1], frames[2:]
    middle = torch.maximum(low, third)
    threes = torch.minimum(low, third), torch.minimum(high, middle), torch.maximum(high, middle)
    n = len(frames) - 2 * _REACH
    (a1, a2, a3), (b1, b2, b3) = [t[:n] for t in threes], [t[_REACH : _REACH + n] for t in threes]
    below = torch.minimum(torch.minimum(a3, b3), torch.minimum(torch.maximum(a1, b2), torch.maximum(a2, b1)))
    above = torch.maximum(torch.maximum(a1, b1), torch.maximum(torch.minimum(a3, b2), torch.minimum(a2, b3)))
    medians = torch.maximum(below, torch.minimum(above, frames[2 * _REACH :]))
    return medians.as_strided(x.shape, padded.stride())


def first_frames(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """The frame at which the cheapest monotonic path through `cost` (tokens, frames) reaches each token: (tokens,).

    The path starts at the first token and frame and ends at the last ones. A step to the next token, with or without
    the next frame, must be cheaper than the two others; a tie stays with the token, even between two that are cheaper
    than staying, as in the reference. Takes memory and time in proportion to tokens * (tokens + frames).
    """
    n, m = cost.shape
    # Row k of `skewed` is the anti-diagonal token + frame = k; beyond the map the cost is infinite.
    padded = np.full((n, n + m), np.inf)
    padded[:, :m] = cost
    skewed = np.ascontiguousarray(padded.ravel()[: n * (n + m - 1)].reshape(n, n + m - 1).T)
    sums = np.full((n + m + 1, n + 1), np.inf)
    sums[0, 0] = 0.0
    best, tied = np.empty(n), np.empty(n, dtype=bool)
    for k in range(2, n + m + 1):
        both, advanced, stayed = sums[k - 2, :-1], sums[k - 1, :-1], sums[k - 1, 1:]
        np.minimum(both, advanced, out=best)
        np.equal(both, advanced, out=tied)
        np.copyto(best, np.inf, where=tied)
        np.minimum(best, stayed, out=best)
        np.add(best, skewed[k - 2], out=sums[k, 1:])
    token, frame = np.arange(n)[:, None], np.arange(m)
    both, advanced, stayed = sums[:-2, :-1], sums[1:-1, :-1], sums[1:-1, 1:]
    came_from_both = ((both < advanced) & (both < stayed))[token + frame, token]
    came_from_token = ((advanced < both) & (advanced < stayed))[token + frame, token]
    # For every cell, the frame at which a path that ends there came to the cell's token.
    entry = np.maximum.accumulate(np.where(came_from_both | came_from_token, frame, 0), axis=1)
    first = np.empty(n, dtype=np.int64)
    at = m - 1
    for row in reversed(range(n)):
        at = first[row] = entry[row, at]
        at -= int(came_from_both[row, at])
    return first

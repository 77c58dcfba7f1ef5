"""What the audio adds to a text: the scores of tokens from the same decoder hearing a window, and hearing silence.

Used by `model.decoding.choice` where a doubtful text is heard again (`model.guards.doubt`). A language model without
ears goes on as its text suggests; where speech is faint, Whisper's decoder does the same, and invents. What it would
say without any sound is measured by a **shadow**: a second row of the same window that is given the same tokens and
hears silence. A token that the audio makes more probable is preferred to one that the text alone explains.

Source: contrastive decoding, X. L. Li et al. (2022), with its plausibility constraint; against a distorted input as in
"Mitigating Object Hallucinations ... through Visual Contrastive Decoding", S. Leng et al. (2023).
"""

import math

import torch
from torch import Tensor

from model.decoding.inference import Inference
from model.decoding.row import Decoding, Row
from model.dims import N_FRAMES
from model.network.whisper import Whisper
from model.tokenizer import Tokenizer

_WEIGHT = 0.5
"""How much of what silence makes probable is taken off (benchmarks/LOG.md)."""
_PLAUSIBLE = math.log(0.1)
"""A token less probable than so much of the most probable one is not chosen, whatever silence says."""
_SILENCE = -1.5
"""What the log-Mel spectrogram makes of digital silence."""


class Shadows:
    """Gives windows their shadows, which all hear one slot of silence; it is filled when one is first heard."""

    def __init__(self, model: Whisper, inference: Inference, tokenizer: Tokenizer, *, slot: int) -> None:
        self._model, self._inference, self._slot = model, inference, slot
        self._special = range(tokenizer.eot + 1, tokenizer.timestamp_begin)
        """Tokens that are no text. Rare as they are in a text, silence makes the names of languages rarer still."""
        self._is_filled = False

    def cast(self, decoding: Decoding, index: int) -> Row:
        """The shadow of a window's only row, at its place among the rows; it has read the window's prompt."""
        if not self._is_filled:
            shape = 1, self._model.dims.n_mels, N_FRAMES
            mel = torch.full(shape, _SILENCE, device=self._model.device, dtype=self._model.dtype)
            self._inference.fill_windows(self._model.encode(mel), [self._slot])
            self._is_filled = True
        decoding.suppressed = tuple(sorted({*decoding.suppressed, *self._special}))
        if decoding.first_logits is not None:
            decoding.first_logits[..., self._special.start : self._special.stop] = -torch.inf
        self._inference.clear_row(index)
        decoding.silent_logits = self._inference.prefill(
            decoding.prompt, row=index, window=self._slot, keep=[decoding.n_prompt - 1]
        )
        shadow = decoding.shadow = Row(decoding, index, shadow=self._slot)  # last: what raised has left no row behind
        return shadow


def contrast(heard: Tensor, silent: Tensor) -> Tensor:
    """Scores (n_vocab,) of the tokens after a text: -inf for those that the audio leaves implausible.

    `heard`: masked logits with the audio; `silent`: logits with silence, masked or not.
    """
    plausible = heard >= heard.amax(-1, keepdim=True) + _PLAUSIBLE
    return torch.where(plausible, heard + _WEIGHT * (heard - silent), -torch.inf)

"""How close a choice of the reference was: the distance of two tokens at one position, in its own log-probabilities.

Where text stands against timestamps, the reference compares the probability of all timestamps together with the best
text token (`ApplyTimestampRules`); then that comparison's margin is the gap.
"""

import math

import torch
from torch import Tensor
from whisper.decoding import ApplyTimestampRules, DecodingOptions, DecodingTask
from whisper.model import Whisper


@torch.inference_mode()
def choice_gap(
    network: Whisper,
    features: Tensor,
    options: DecodingOptions,
    prefix: tuple[int, ...],
    *,
    chosen: int | None,
    other: int | None,
) -> float | None:
    """Log-probability of `chosen` less that of `other` (None: end of text) after `prefix`, under the reference's rules.

    `features` (1500, n_state) are the window's. None where the rules forbid one of the tokens.
    """
    task = DecodingTask(network, options)
    end = task.tokenizer.eot
    chosen, other = (end if token is None else token for token in (chosen, other))
    tokens = torch.tensor([[*task.initial_tokens, *prefix]], device=features.device)
    logits = network.logits(tokens, features[None])[:, -1].float()
    before = logits.clone()
    for rule in task.logit_filters:
        rule.apply(logits, tokens)
        if not isinstance(rule, ApplyTimestampRules):
            rule.apply(before, tokens)
    begin = task.tokenizer.timestamp_begin
    if (chosen >= begin) != (other >= begin):
        gap = _mass_gap(before[0], logits[0], begin)
        return gap if chosen >= begin else -gap
    gap = (logits[0, chosen] - logits[0, other]).item()
    return gap if math.isfinite(gap) else None


def _mass_gap(before: Tensor, after: Tensor, begin: int) -> float:
    """Log of the probability of the allowed timestamps together, less that of the best text token."""
    allowed = after[begin:].isfinite()
    return (before[begin:][allowed].logsumexp(0) - before[:begin].max()).item()

"""The next token of each row from its masked logits: the most probable one, or a draw above temperature 0.

Every row draws from a generator of its own, so that its neighbours in the batch cannot change its text. On the same
seed a draw is the reference's (`torch.distributions.Categorical`, which is `torch.multinomial`).
"""

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

_COLDEST = 1e-4
"""Below it every draw is the most probable token, and some quotients are no numbers."""


def row_seed(seed: int, window: int, rung: int, candidate: int = 0) -> int:
    """Seed of the draws of one window's candidate at one rung of the temperature ladder, from the request's seed."""
    name = f"{seed}/{window}/{rung}" + (f"/{candidate}" if candidate else "")
    digest = blake2b(name.encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


def sample(
    logits: Tensor,
    temperatures: Sequence[float],
    generators: Sequence[torch.Generator | None],
    scores: Tensor | None = None,
) -> tuple[list[int], list[float]]:
    """Tokens, and their log-probabilities at temperature 1, for masked logits (rows, n_vocab).

    `scores`: what the tokens are chosen by, where that is not the logits (`model.decoding.contrast`). A row at
    temperature 0 needs no generator. This is the step's only read from the device.
    """
    scores = logits if scores is None else scores
    tokens = scores.argmax(-1)
    for row, temperature in enumerate(temperatures):
        if temperature > 0:
            tokens[row] = _draw(scores[row], temperature, generators[row])
    logprobs = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
    both = torch.stack((tokens.double(), logprobs.double())).cpu()
    return both[0].long().tolist(), both[1].tolist()


def _draw(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    scaled = logits / max(temperature, _COLDEST)
    scaled = scaled - scaled.logsumexp(-1, keepdim=True)
    return torch.multinomial(scaled.softmax(-1), 1, replacement=True, generator=generator)[0]

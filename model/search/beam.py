"""Beam search over one window: which continuations live, which are finished, when to stop. Pure, free of torch.

Gets, for every beam, its best next tokens with the sums of log-probabilities; says which beam each survivor continues.
`model.decoding.batch` moves the rows' memory accordingly.

Source: openai/whisper `decoding.py` (BeamSearchDecoder, MaximumLikelihoodRanker); patience is that of "Beam Decoding
with Controlled Patience" (Kasai et al., 2022), the length penalty that of "Google's Neural Machine Translation System".
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text that a window may mean: sampled tokens without the end of text, and their summed log-probability."""

    tokens: tuple[int, ...]
    sum_logprob: float
    logprobs: tuple[float, ...] = ()
    """Of each token."""

    @property
    def avg_logprob(self) -> float:
        """Mean over the tokens and the end of the text."""
        return self.sum_logprob / (len(self.tokens) + 1)


@dataclass(frozen=True, slots=True)
class Extension:
    """A surviving continuation: beam `source` goes on with `token`."""

    source: int
    token: int
    sum_logprob: float


class BeamSearch:
    """The finished texts of one window, and the choice among the unfinished ones."""

    def __init__(
        self,
        beam_size: int,
        patience: float | None,
        eot: int,
        *,
        said: tuple[int, ...] = (),
        logprobs: tuple[float, ...] = (),
    ) -> None:
        """`patience`: finished texts to wait for, as a multiple of the beams; None is 1.

        `said`: tokens with which all texts begin, and `logprobs` of each.
        """
        self.beam_size, self._eot = beam_size, eot
        self._wanted = max(1, round(beam_size * (patience or 1.0)))
        self._finished: dict[tuple[int, ...], Candidate] = {}
        self._logprobs: dict[tuple[int, ...], tuple[float, ...]] = {said: logprobs}
        """Of each token of the unfinished texts."""

    @property
    def is_complete(self) -> bool:
        """Whether enough texts are finished."""
        return len(self._finished) >= self._wanted

    def extend(
        self, beams: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]], sums: Sequence[Sequence[float]]
    ) -> list[Extension]:
        """The `beam_size` best unfinished continuations, best first; finished ones are noted.

        `beams`: tokens of each beam so far; `tokens`, `sums`: its `beam_size + 1` best next tokens, and the
        log-probabilities of the whole with each.
        """
        scores: dict[tuple[int, ...], float] = {}
        sources: dict[tuple[int, ...], int] = {}
        for beam, (prefix, following, totals) in enumerate(zip(beams, tokens, sums, strict=True)):
            for token, total in zip(following, totals, strict=True):
                text = (*prefix, token)  # beams that are still equal (the first step) count once
                scores[text], sources[text] = total, beam
        extensions: list[Extension] = []
        pasts, self._logprobs = self._logprobs, {}
        for text in sorted(scores, key=lambda text: -scores[text]):
            past = pasts[text[:-1]]
            if text[-1] != self._eot:
                extensions.append(Extension(sources[text], text[-1], scores[text]))
                self._logprobs[text] = (*past, scores[text] - sum(past))
                if len(extensions) == self.beam_size:
                    break
            elif not self.is_complete:
                self._finished[text] = Candidate(text[:-1], scores[text], past)
        return extensions

    def candidates(self, beams: Sequence[Sequence[int]], sums: Sequence[float]) -> list[Candidate]:
        """The finished texts; filled up with the best unfinished ones where they are fewer than the beams."""
        found = dict(self._finished)
        for beam in sorted(range(len(beams)), key=lambda beam: -sums[beam]):
            if len(found) >= self.beam_size:
                break
            text = tuple(beams[beam])
            found[(*text, self._eot)] = Candidate(text, sums[beam], self._logprobs[text])
        return list(found.values())


def best_candidate(candidates: Sequence[Candidate], length_penalty: float | None) -> Candidate:
    """The most probable text for its length; the first of equals.

    Without a penalty the length divides; with one, ((5 + length) / 6) to its power does.
    """

    def score(candidate: Candidate) -> float:
        length = len(candidate.tokens)
        return candidate.sum_logprob / (
            max(length, 1) if length_penalty is None else ((5 + length) / 6) ** length_penalty
        )

    return max(candidates, key=score)

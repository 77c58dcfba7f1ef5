"""Explains a clip whose tokens differ: runs both systems once more and measures the choice in which they part."""

from benchmarks.accuracy.gap import choice_gap
from benchmarks.accuracy.items import Item
from benchmarks.accuracy.parity import NEAR_TIE, Difference, Divergence, classify, first_divergence
from benchmarks.accuracy.reference import Reference
from benchmarks.accuracy.systems import Ours, Samples
from model.segments import Transcription


class Judge:
    """Has both systems at hand, and knows below which gap rounding decides."""

    def __init__(self, ours: Ours, reference: Reference, *, compute_type: str) -> None:
        self._ours, self._reference = ours, reference
        self._near = NEAR_TIE[compute_type]

    def explain(self, item: Item, samples: Samples) -> Difference:
        """Where and why the systems part on this recording."""
        ours = self._ours.transcribe(samples, language=item.language, task=item.task)
        reference = self._reference.transcribe(samples, language=item.language, task=item.task)
        if ours.language != reference.language:
            return _language_difference(item.name, ours, reference)
        divergence = first_divergence(self._ours.attempts, self._reference.attempts)
        gap = self._gap(divergence)
        reason = classify(divergence, gap, near=self._near)
        return Difference(item.name, reason, divergence, gap, self._detail(divergence))

    def _gap(self, divergence: Divergence | None) -> float | None:
        if divergence is None or divergence.position is None:
            return None
        step = next(
            step
            for step in self._reference.steps
            if (step.window, step.options.temperature) == (divergence.window, divergence.temperature)
        )
        return choice_gap(
            self._reference.network,
            step.result.audio_features,
            step.options,
            tuple(step.result.tokens[: divergence.position]),
            chosen=divergence.reference,
            other=divergence.ours,
        )

    def _detail(self, divergence: Divergence | None) -> str:
        if divergence is None:
            return "every decoding is equal, the segments made of them are not"
        if divergence.position is not None:
            words = (self._token(divergence.reference), self._token(divergence.ours))
            return f"reference {words[0]}, ours {words[1]}"
        sides = ("reference", self._reference.attempts), ("ours", self._ours.attempts)
        return "; ".join(
            f"{name} "
            + ", ".join(
                f"t={attempt.temperature} logprob {attempt.avg_logprob:.5f} compression {attempt.compression_ratio:.5f}"
                f" no-speech {attempt.no_speech_prob:.5f}"
                for attempt in attempts
                if attempt.window == divergence.window
            )
            for name, attempts in sides
        )

    def _token(self, token: int | None) -> str:
        return "the end" if token is None else repr(self._ours.decode_with_timestamps([token]))


def _language_difference(file: str, ours: Transcription, reference: Transcription) -> Difference:
    ahead = reference.language_probabilities[reference.language]
    gap = ahead - reference.language_probabilities[ours.language]
    detail = f"reference {reference.language} {ahead:.4f}, ours {ours.language} {ours.language_probability or 0:.4f}"
    return Difference(file, "language detection", None, gap, detail)

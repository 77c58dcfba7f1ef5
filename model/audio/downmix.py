"""Many channels to one, so that nothing that was audible in any of them is lost.

Stands between the readers and the resampler (`model.audio`). The plain average, which most programs take, turns a
recording with one reversed microphone lead into silence, and takes 6 dB from a speaker whose other channel is empty
(18 dB in 7.1). Here instead:

1. Channels are added in order of energy, each with a weight that follows its correlation r with the sum so far: 1 for
   channels that agree or have nothing to do with each other (two speakers), -1 for one in opposite phase. In between
   it is 1 + 2r, but never less than a half either way: what they share is then weakened and not cancelled, and whoever
   is heard in that channel alone is heard. Correlation is taken over the whole recording and without the mean, so
   weights never change in time and a constant offset means nothing.
2. The sum is scaled so that its peak is the peak of the loudest channel. An empty channel then costs nothing, two
   equal channels give their average, and nothing clips that did not clip before.

Both need the whole recording, hence two passes: `ChannelStatistics` over the first, `Downmix` over the second. All sums
are float64, so the size of the blocks changes results by rounding only.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.audio.readers import Block

_TURN = -0.25
"""Correlation below which a channel is turned round."""
_LEAST = 0.5


class ChannelStatistics:
    """First pass: how loud the channels are, and how they go together."""

    def __init__(self, channels: int) -> None:
        self._products = np.zeros((channels, channels))
        self._sums = np.zeros(channels)
        self._count = 0

    def add(self, block: Block) -> None:
        """Take in a block, (frames, channels)."""
        exact = block.astype(np.float64)
        self._products += exact.T @ exact
        self._sums += np.ones(len(exact)) @ exact  # a product: summing down the columns takes ten times as long
        self._count += len(block)

    def weights(self) -> npt.NDArray[np.float64]:
        """The weight of every channel in the sum, (channels,), each from -1 to 1."""
        covariance = self._products - np.outer(self._sums, self._sums) / max(self._count, 1)
        energy = np.maximum(np.diag(covariance), 0.0)
        weights = np.zeros(len(energy))
        for channel in np.argsort(-energy, kind="stable"):
            shared = float(weights @ covariance[channel])
            size = float(weights @ covariance @ weights) * energy[channel]
            correlation = shared / np.sqrt(size) if size > 0.0 else 0.0
            weight = np.clip(1.0 + 2.0 * correlation, -1.0, 1.0)
            weights[channel] = weight if correlation >= _TURN else min(weight, -_LEAST)
        return weights


@dataclass
class Downmix:
    """Second pass: the weighted sum of the channels, and at the end the scale that goes with it."""

    weights: npt.NDArray[np.float64]
    _channel_peak: float = 0.0
    _sum_peak: float = 0.0

    def mix(self, block: Block) -> npt.NDArray[np.float32]:
        """(frames, channels) -> (frames,), not yet scaled."""
        mixed = (block.astype(np.float64) @ self.weights).astype(np.float32)
        self._channel_peak = max(self._channel_peak, _peak(block))
        self._sum_peak = max(self._sum_peak, _peak(mixed))
        return mixed

    @property
    def scale(self) -> float:
        """What the sum of all blocks so far is to be multiplied with."""
        return self._channel_peak / self._sum_peak if self._sum_peak > 0.0 else 1.0


def _peak(block: Block) -> float:
    return max(float(block.max(initial=0)), -float(block.min(initial=0)))

"""How many times as long one of two takes that ran in turn: the median over the rounds, and how sure it is."""

import random
import statistics
from collections.abc import Sequence


def ratio_interval(pairs: Sequence[tuple[float, float]], *, draws: int = 2000) -> tuple[float, float, float]:
    """Median of second/first over the rounds, and its 95 % bootstrap interval (rounds drawn with replacement)."""
    ratios = [second / first for first, second in pairs]
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(draws))
    return statistics.median(ratios), medians[int(0.025 * draws)], medians[int(0.975 * draws)]

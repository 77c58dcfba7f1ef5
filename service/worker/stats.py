"""What an engine has done since its start, as counters for `service.wire.messages.WorkerStats`."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

Stage = Literal["hear", "encode", "decode"]
"""Before a recording's first window; log-Mel and encoder; language, prompt, steps and what comes of a window's text."""
STAGES: tuple[Stage, ...] = get_args(Stage)


class StageClock:
    """Tells what the turns of an engine are spent on; nothing goes by it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._since = now, now()
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        """By stage; together all turns."""

    def start(self) -> None:
        """A turn begins."""
        self._since = self._now()

    def lap(self, stage: Stage) -> None:
        """What the time since the start of the turn, or its last lap, went to."""
        since, self._since = self._since, self._now()
        self.seconds[stage] += self._since - since


@dataclass
class EngineStats:
    """Counters since the start, beside those that the batch keeps itself."""

    audio_seconds: float = 0.0
    """Of recordings that are done."""
    heard: int = 0
    """Pieces of recordings, before their first window."""
    encodes: int = 0
    """Windows."""
    tokens: int = 0
    guards: Counter[str] = field(default_factory=Counter)
    """Stretches of recordings that were skipped, by reason."""
    clock: StageClock = field(default_factory=StageClock)

"""What an engine has done since its start, as counters for `service.wire.messages.WorkerStats`."""

from collections import Counter
from dataclasses import dataclass, field


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

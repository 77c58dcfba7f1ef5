"""What the HTTP side needs of the pools behind it: protocols, so that tests put fakes in their place.

`service.children.audio_pool.AudioPool` and `service.children.worker_pool.WorkerPool` fulfil them.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

from service.wire.audio_messages import SampleFormat
from service.wire.messages import (
    DetectLanguage,
    Finished,
    LanguageDetected,
    ModelInfo,
    SegmentsReady,
    Started,
    Transcribe,
    WorkerStats,
)

Event = Started | SegmentsReady | LanguageDetected | Finished


class Audio(Protocol):
    """A decoded recording: mono samples at 16 kHz."""

    @property
    def fd(self) -> int:
        """The samples' file descriptor, which `close` closes."""

    @property
    def sample_format(self) -> SampleFormat:
        """How a sample is written in the file."""

    @property
    def n_samples(self) -> int:
        """How many there are."""

    @property
    def seconds(self) -> float:
        """Length of the recording."""

    def close(self) -> None:
        """Give the memory back; called once."""


class AudioDecoder(Protocol):
    """Sandboxed processes that turn uploads into samples."""

    async def start(self) -> None:
        """Start the children."""

    async def stop(self) -> None:
        """End the children."""

    @property
    def ready(self) -> bool:
        """Whether an upload would be decoded now."""

    @property
    def busy(self) -> int:
        """Children at work."""

    @property
    def restarts(self) -> int:
        """Children replaced since the start."""

    async def decode(self, upload_fd: int) -> Audio:
        """The upload's samples; `InvalidAudio`, `TooLarge` or `Unavailable`. Cancelling it leaks nothing."""


class Workers(Protocol):
    """Model workers, one process a device."""

    async def start(self) -> None:
        """Start the processes; they get warm in their own time."""

    async def stop(self, grace_seconds: float) -> None:
        """End the processes, by force after `grace_seconds`."""

    @property
    def ready(self) -> bool:
        """Whether at least one worker is warm."""

    @property
    def model(self) -> ModelInfo | None:
        """What the workers loaded, once the first of them is warm."""

    @property
    def failure(self) -> str | None:
        """Why no worker can ever start (bad weights, too little memory), once each has said so."""

    @property
    def restarts(self) -> int:
        """Workers replaced since the start."""

    def stats(self) -> dict[str, WorkerStats]:
        """The latest counters of each live worker, by device."""

    def in_hand(self) -> dict[str, int]:
        """Requests that each live worker has, by device."""

    def run(self, job: Transcribe | DetectLanguage, fd: int) -> AsyncGenerator[Event, None]:
        """Events of one job until it is done; `ServiceError` or `OSError`. Closing the generator cancels the job."""

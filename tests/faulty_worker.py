"""A real worker that comes to harm when it is sent certain recordings; started in the place of `service.worker`.

A recording's length in samples says what happens when its first window is due: see `Harm`.
"""

import os
import signal
import time
from enum import IntEnum
from pathlib import Path

from service.worker import __main__ as worker
from service.worker.intake import Intake
from service.worker.job import Job


class Harm(IntEnum):
    """What a recording of so many samples does to the worker that starts to decode it."""

    DIES = 16_001
    HANGS = 16_003
    DIES_ONCE = 16_005
    """Dies in the first worker only; a file beside the checkpoint remembers."""
    IS_KILLED = 16_007
    """Gets SIGKILL every time, as from somebody outside."""
    RAISES = 16_009
    """Raises an error that quotes what the request came with."""


def harm(job: Job, marker: Path) -> None:
    length = len(job.samples)
    if length == Harm.DIES_ONCE and not marker.exists():
        marker.touch()
        os.abort()
    if length == Harm.DIES:
        os.abort()
    if length == Harm.IS_KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if length == Harm.HANGS:
        time.sleep(3600)
    if length == Harm.RAISES:
        raise RuntimeError(f"nothing was made of {job.options.initial_prompt!r} and {job.options.hotwords!r}")


def main() -> None:
    marker = Path(worker.parse().model).with_suffix(".marker")
    launch = Intake.launch

    def harmed(intake, entries, now):
        for entry in entries:
            harm(entry.job, marker)
        return launch(intake, entries, now)

    Intake.launch = harmed  # type: ignore[method-assign]
    worker.main()


if __name__ == "__main__":
    main()

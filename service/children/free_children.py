"""The audio children that have no file, and who waits for one of them: first come, first served.

Used by `service.children.audio_pool`, which starts the children and says why there are none.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from service.children.audio_process import AudioProcess
from service.errors import ServiceError


class FreeChildren:
    """Children on one side, those who wait for them on the other; never somebody on both. Used from one event loop."""

    def __init__(self) -> None:
        self._free: deque[AudioProcess] = deque()
        self._waiting: deque[asyncio.Future[AudioProcess]] = deque()

    async def take(self) -> AudioProcess:
        """A free child, now or when it is our turn; it may have died meanwhile. Raises what `refuse` says."""
        return self._free.popleft() if self._free else await self._turn()

    async def _turn(self) -> AudioProcess:
        turn: asyncio.Future[AudioProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None:
                self.give(turn.result())
            raise

    def give(self, child: AudioProcess) -> None:
        """A child has no file, or none any more: whoever waits longest has it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(child)
                return
        self._free.append(child)

    def remove(self, child: AudioProcess) -> None:
        """A child has ended; nothing if it was not free."""
        with contextlib.suppress(ValueError):
            self._free.remove(child)

    def refuse(self, error: Callable[[], ServiceError]) -> None:
        """Tell everybody who waits that there will be no child, each with an error of its own."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(error())

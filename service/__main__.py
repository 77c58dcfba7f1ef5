"""`python -m service`: settings, pools, application, server; the exit status says how it ended.

0 after a drain, or a signal to end before there is anything to drain; 1 when a pool can never start (weights,
memory), 2 when a setting is wrong, 3 when the address is taken.
"""

import signal
import sys

from service import signals

if __name__ == "__main__":
    # The first process of a container has no default action for signals, and what is imported below takes a second or
    # more: a SIGTERM meanwhile would be lost, and its sender would wait for as long as a drain may take. Ctrl-C
    # would be a traceback.
    ending = signals.ending()

    def _end_before_serving(*_: object) -> None:
        signals.ignore(ending)
        sys.exit(0)

    for number in ending:
        signal.signal(number, _end_before_serving)

import asyncio
import logging
import os
from collections.abc import Sequence

from service import logs
from service.children.audio_pool import AudioPool
from service.environment import described, load, unknown_variables
from service.http.app import create_app
from service.http.server import Server
from service.ports import Workers
from service.settings import PREFIX, Settings, SettingsError


def _workers(settings: Settings) -> Workers:
    from service.children.worker_pool import WorkerPool

    return WorkerPool(settings)


async def serve(settings: Settings) -> int:
    """Run the service until a signal or a failure ends it; the exit status."""
    audio_pool = AudioPool(
        children=settings.audio_children,
        max_seconds=settings.max_audio_seconds,
        max_decoded_bytes=settings.max_decoded_bytes,
        decode_seconds=settings.decode_seconds,
        memory_bytes=settings.audio_child_memory_bytes,
    )
    app = create_app(settings, audio_pool, _workers(settings))
    state, deadline = app.state, settings.upload_seconds
    server = Server(
        app, state.lifecycle, state.metrics, host=settings.host, port=settings.port, header_seconds=deadline
    )
    await server.serve()
    return state.lifecycle.exit_code or 0


def main(arguments: Sequence[str] = ()) -> int:
    """The process; its exit status. There are no `arguments` but `--help`, and others are no reason to start."""
    if arguments in (["--help"], ["-h"]):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that has seen enough, such as `head`, is no fault
        print(described())
        return 0
    try:
        if arguments:
            raise SettingsError(f"arguments: there are none but --help; say {PREFIX}PORT=9000 in the environment")
        settings = load()
    except SettingsError as error:
        logs.configure("info")
        logs.event("bad_settings", level=logging.ERROR, detail=str(error))
        return 2
    logs.configure(settings.log_level)
    for variable in unknown_variables():
        logs.event("unknown_setting", level=logging.WARNING, variable=variable)
    auth = "keys" if settings.api_keys else "open"
    logs.event("starting", pid=os.getpid(), model=settings.model, auth=auth, docs=settings.docs_enabled)
    try:
        return asyncio.run(serve(settings))
    except SettingsError as error:
        logs.event("bad_settings", level=logging.ERROR, detail=str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

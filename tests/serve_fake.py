"""The real application and server on fake pools, as a process: `python -m tests.serve_fake [--warm-delay S] [...]`.

Settings come from the environment as for the service itself; port 0 is logged as `listening`.
"""

import argparse
import asyncio
import sys

from service import logs
from service.environment import load
from service.http.app import create_app
from service.http.server import Server
from tests.fakes import ENGLISH_MODEL, FakeAudioPool, FakeWorkerPool


async def serve(arguments: argparse.Namespace) -> int:
    settings = load()
    workers = FakeWorkerPool(warm_delay=arguments.warm_delay, failure=arguments.failure)
    if arguments.english:
        workers.model_info = ENGLISH_MODEL
    app = create_app(settings, FakeAudioPool(), workers)
    state, deadline = app.state, settings.upload_seconds
    server = Server(
        app, state.lifecycle, state.metrics, host=settings.host, port=settings.port, header_seconds=deadline
    )
    await server.serve()
    return state.lifecycle.exit_code or 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--warm-delay", type=float, default=0.0)
    parser.add_argument("--failure", default=None, help="what the worker pool says it can never start for")
    parser.add_argument("--english", action="store_true", help="the model is English-only")
    logs.configure("debug")
    return asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())

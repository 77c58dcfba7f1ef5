"""Load balancers compared by what clients see: two real replicas on fake engines behind each real program.

    python -m benchmarks.balancers [haproxy nginx nginx-unbuffered] [--seconds 10]

Scenarios: a large upload, slow clients, overload, a replica killed, a replica that hangs, a rolling restart with small
and with large uploads, a streamed answer. Prints one JSON line for each balancer and scenario. Needs the programs.
"""

import argparse
import asyncio
import contextlib
import json
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx

from tests.fakes import script
from tests.serving import form, read_answer, request_head
from tests.stack import Stack, load, outcome


async def restarting(stack: Stack, upload: bytes, _seconds: float) -> dict[str, Any]:
    """Each replica gets SIGTERM in turn and comes back."""
    async with load(stack.balancer.url, upload, 6) as tally:
        await asyncio.sleep(1)
        for number in (0, 1):
            await asyncio.to_thread(stack.roll, number)
            await asyncio.sleep(1)
    return {"failed": tally.failed(), "slowest": round(tally.slowest, 2), **tally.outcomes}


async def rolling_small(stack: Stack, seconds: float) -> dict[str, Any]:
    """A rolling restart while small uploads come."""
    return await restarting(stack, script(window_delay=0.2), seconds)


async def rolling_large(stack: Stack, seconds: float) -> dict[str, Any]:
    """A rolling restart while uploads of 4 MB come, which no balancer can keep in a small buffer."""
    return await restarting(stack, script(window_delay=0.2) + b" " * 4_000_000, seconds)


async def killed(stack: Stack, seconds: float) -> dict[str, Any]:
    """One replica is killed with six requests in progress."""
    upload = script(window_delay=0.2) + b" " * 300_000
    async with load(stack.balancer.url, upload, 6) as tally:
        await asyncio.sleep(2)
        stack.replicas[0].process.kill()
        await asyncio.sleep(seconds)
    return {"failed": tally.failed(), "slowest": round(tally.slowest, 2), **tally.outcomes}


async def hanging(stack: Stack, seconds: float) -> dict[str, Any]:
    """One replica is stopped (SIGSTOP): it accepts and never answers."""
    async with load(stack.balancer.url, script(window_delay=0.2), 6) as tally:
        await asyncio.sleep(2)
        stack.replicas[0].process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        done = tally.outcomes.total()
        stack.replicas[0].process.send_signal(signal.SIGCONT)
    return {"done_before_it_woke": done, "failed": tally.failed(), "slowest": round(tally.slowest, 2), **tally.outcomes}


async def overloaded(stack: Stack, seconds: float) -> dict[str, Any]:
    """Sixty clients on eight places."""
    async with load(stack.balancer.url, script(window_delay=0.5) + b" " * 1_000_000, 60) as tally:
        await asyncio.sleep(seconds)
    return {"slowest": round(tally.slowest, 2), **tally.outcomes}


async def slow_clients(stack: Stack, seconds: float) -> dict[str, Any]:
    """Sixteen clients that trickle a body hold eight places, or do not; others go on."""
    body = form(script(window_delay=0.05) + b" " * 20_000)
    address = stack.balancer.port

    async def trickle() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", address)
        writer.write(request_head(len(body)))
        with contextlib.suppress(ConnectionError):
            for byte in range(int(seconds * 10)):
                writer.write(body[byte * 20 : byte * 20 + 20])
                await writer.drain()
                await asyncio.sleep(0.1)
        writer.close()

    slow = [asyncio.create_task(trickle()) for _ in range(16)]
    await asyncio.sleep(1)
    async with load(stack.balancer.url, script(window_delay=0.05), 2) as tally:
        await asyncio.sleep(seconds - 2)
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    return {"failed": tally.failed(), **tally.outcomes}


async def large_upload(stack: Stack, _seconds: float) -> dict[str, Any]:
    """80 MB, straight to a replica and through the balancer; the balancer's memory and disk."""
    upload = script(windows=1) + b" " * 80_000_000
    seconds = {}
    about = Path(f"/proc/{stack.balancer.process.pid}")
    disk = int(re.findall(r"write_bytes: (\d+)", (about / "io").read_text())[0])
    for name, url in (("direct", stack.replicas[0].url), ("balanced", stack.balancer.url)):
        begin = time.monotonic()
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as session:
            seconds[name + "_status"] = await outcome(session, upload)
        seconds[name] = str(round(time.monotonic() - begin, 2))
    disk = int(re.findall(r"write_bytes: (\d+)", (about / "io").read_text())[0]) - disk
    memory = int(re.findall(r"VmRSS:\s+(\d+)", (about / "status").read_text())[0])
    return {**seconds, "rss_mb": memory >> 10, "disk_mb": disk // 1_000_000}


async def refused_large(stack: Stack, _seconds: float) -> dict[str, Any]:
    """A full service refuses 20 MB: how long that takes, and whether a client that reads late sees the answer."""
    async with load(stack.balancer.url, script(window_delay=8), 8):
        await asyncio.sleep(1)
        body = form(b" " * 20_000_000)

        def naive() -> tuple[str, float]:
            begin = time.monotonic()
            with socket.create_connection(("127.0.0.1", stack.balancer.port), timeout=20) as connection:
                try:
                    connection.sendall(request_head(len(body)) + body)
                    return str(read_answer(connection)[0]), time.monotonic() - begin
                except OSError as error:
                    return type(error).__name__, time.monotonic() - begin

        answers = [await asyncio.to_thread(naive) for _ in range(10)]
    return {
        **Counter(answer for answer, _ in answers),
        "median_seconds": round(sorted(s for _, s in answers)[5], 2),
    }


Scenario = Callable[[Stack, float], Coroutine[Any, Any, dict[str, Any]]]
FULL = {"WHISPER_MAX_QUEUE_REQUESTS": "4"}
SCENARIOS: dict[str, tuple[Scenario, dict[str, str]]] = {
    "large upload": (large_upload, {}),
    "slow clients": (slow_clients, FULL),
    "overload": (overloaded, FULL),
    "large refused": (refused_large, FULL),
    "killed": (killed, {}),
    "hanging": (hanging, {}),
    "rolling, small": (rolling_small, {}),
    "rolling, large": (rolling_large, {}),
    "rolling, large, no accept": (rolling_large, {"WHISPER_DRAIN_ACCEPT_SECONDS": "0"}),
}


def main() -> None:
    """Every scenario for every balancer asked for."""
    parser = argparse.ArgumentParser(description="Load balancers compared.")
    parser.add_argument("balancers", nargs="*", default=["haproxy", "nginx", "nginx-unbuffered"])
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    for kind in options.balancers:
        for name in options.scenario or SCENARIOS:
            run, environment = SCENARIOS[name]
            with Stack(kind, **environment) as stack:
                result = asyncio.run(run(stack, options.seconds))
            print(json.dumps({"balancer": kind, "scenario": name, **result}), flush=True)


if __name__ == "__main__":
    main()

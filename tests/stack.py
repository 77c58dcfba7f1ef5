"""Two replicas behind a real balancer, as processes on fake engines or real ones, and clients that press on them."""

import asyncio
import contextlib
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import httpx
import yaml

from tests.balancers import Balancer, free_ports
from tests.serving import ROOT, ServiceProcess

COMPOSITION = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
SETTINGS: dict[str, str] = {
    name: re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", value)
    for name, value in COMPOSITION["whisper-1"]["environment"].items()
    if value is not None
}
"""What the shipped composition tells its replicas, but for what it passes on from the operator."""


class Stack:
    """A balancer and its two replicas; `second` is what the second one alone is told."""

    def __init__(
        self,
        kind: str,
        second: Mapping[str, str] | None = None,
        /,
        *,
        module: str = "tests.serve_fake",
        **environment: str,
    ) -> None:
        self._module = module
        self._environments = [SETTINGS | environment, SETTINGS | environment | dict(second or {})]
        self.ports = free_ports(2)
        self.replicas: list[ServiceProcess] = []
        try:
            for number in range(2):
                self.replicas.append(self._start(number))
            for replica in self.replicas:
                replica.wait_ready(120)
            self.balancer = Balancer(kind, self.ports)
        except BaseException:
            self._stop_replicas()
            raise
        try:
            self.balancer.wait_ready()
        except BaseException:
            self.__exit__()
            raise

    def _start(self, number: int) -> ServiceProcess:
        environment = self._environments[number] | {"WHISPER_PORT": str(self.ports[number])}
        return ServiceProcess(module=self._module, **environment)

    def restart(self, number: int) -> None:
        """Start a replica anew on its port, once the former process is gone."""
        self.replicas[number].process.wait(60)
        self.replicas[number].stop()
        self.replicas[number] = self._start(number)
        self.replicas[number].wait_ready(120)

    def roll(self, number: int) -> None:
        """SIGTERM, and back."""
        self.replicas[number].process.send_signal(signal.SIGTERM)
        self.restart(number)

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, *_: object) -> None:
        self.balancer.__exit__()
        self._stop_replicas()

    def _stop_replicas(self) -> None:
        for replica in self.replicas:
            if replica.process.poll() is None:
                replica.process.send_signal(signal.SIGCONT)
            replica.stop()


@dataclass(slots=True)
class Tally:
    """What became of the requests: their outcomes, and when the failed ones began."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failed_at: list[float] = field(default_factory=list)
    slowest: float = 0.0

    def failed(self) -> int:
        return self.outcomes.total() - self.outcomes["200"]


@contextlib.asynccontextmanager
async def load(url: str, upload: bytes, concurrency: int) -> AsyncIterator[Tally]:
    """Clients that send one request after another for as long as the block runs; then their last ones are awaited."""
    tally, stop = Tally(), asyncio.Event()

    async def client() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as session:
            while not stop.is_set():
                begin = time.monotonic()
                became = await outcome(session, upload)
                tally.outcomes[became] += 1
                if became != "200":
                    tally.failed_at.append(begin)
                tally.slowest = max(tally.slowest, time.monotonic() - begin)

    clients = [asyncio.create_task(client()) for _ in range(concurrency)]
    try:
        yield tally
    finally:
        stop.set()
        await asyncio.gather(*clients)


async def outcome(session: httpx.AsyncClient, upload: bytes) -> str:
    """A status, with its error code where there is one, or how the connection broke."""
    try:
        reply = await session.post("/v1/transcribe", files={"file": ("a.wav", upload)})
    except httpx.HTTPError as error:
        return type(error).__name__
    if reply.status_code == 200:
        return "200"
    try:
        code = reply.json()["error"]["code"]
    except ValueError:
        code = "not ours"
    return f"{reply.status_code} {code}" + (" Retry-After" if "retry-after" in reply.headers else "")

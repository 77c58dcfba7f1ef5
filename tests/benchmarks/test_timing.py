"""The arithmetic of the timing programs, and the load program against an application in memory."""

import asyncio
import json

import httpx
import pytest

from benchmarks.concurrency import Upload, one_by_one, together
from benchmarks.latency import Timing, interleave
from benchmarks.ratio import ratio_interval


def test_rounds_alternate_who_goes_first() -> None:
    order: list[str] = []

    def run(system: str) -> Timing:
        order.append(system)
        return Timing(1.0, 3.0) if system == "a" else Timing(2.0, 4.0)

    assert interleave(run, "a", "b", 3) == [(Timing(1.0, 3.0), Timing(2.0, 4.0))] * 3  # type: ignore[arg-type]
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_the_ratio_is_the_median_of_rounds_inside_its_interval() -> None:
    ratio, low, high = ratio_interval([(1.0, 1.4), (2.0, 3.0), (1.0, 1.6), (1.0, 9.0), (1.0, 1.5)])
    assert ratio == pytest.approx(1.5)
    assert 1.4 <= low <= 1.5 <= high <= 9.0
    assert ratio_interval([(1.0, 2.0)] * 4) == (2.0, 2.0, 2.0)


class Service:
    """Answers with what it was sent, later ones sooner, and notes how many it held at once."""

    def __init__(self) -> None:
        self.held = self.most = self.count = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.held += 1
        self.most = max(self.most, self.held)
        self.count += 1
        body = await request.aread()
        await asyncio.sleep(0.03 / self.count)
        self.held -= 1
        if b"unreadable" in body:
            return httpx.Response(400, json={"error": {"message": "not audio"}})
        text = next(line for line in body.decode().splitlines() if line.startswith("text-"))
        return httpx.Response(200, content=json.dumps({"text": text, "duration": 2.0}))


def run_against(service: Service, contents: list[bytes], *, concurrency: int) -> list[object]:
    uploads = [Upload(f"{index}.wav", content) for index, content in enumerate(contents)]

    async def both() -> list[object]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(service), base_url="http://test") as client:
            alone = await one_by_one(client, uploads, {"language": "en"})
            assert service.most == 1
            company = await together(client, uploads, {"language": "en"}, concurrency)
        return [[reply.text for reply in replies] for replies in (alone, company)]

    return asyncio.run(both())


def test_replies_come_in_the_order_of_the_files() -> None:
    service = Service()
    contents = [f"text-{index}".encode() for index in range(8)]
    alone, company = run_against(service, contents, concurrency=4)
    assert alone == company == [content.decode() for content in contents]
    assert service.most == 4


def test_a_refusal_is_a_reply() -> None:
    alone, company = run_against(Service(), [b"unreadable", b"text-1"], concurrency=2)
    assert alone == company == ["not audio", "text-1"]

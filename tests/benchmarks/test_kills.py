"""What the kill benchmark takes for wrong."""

import asyncio

import httpx
import pytest

from benchmarks.concurrency import Upload
from benchmarks.kills import Record, gauges, keep_sending

FILE = Upload("a.wav", b"a")


def _send(*answers: httpx.Response | httpx.HTTPError) -> Record:
    """The record of a client that gets these answers."""
    record, stop, left = Record(), asyncio.Event(), list(answers)

    def answer(_: httpx.Request) -> httpx.Response:
        one = left.pop(0)
        if not left:
            stop.set()
        if isinstance(one, httpx.HTTPError):
            raise one
        return one

    async def run() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://test") as client:
            await keep_sending(client, [FILE], {"a.wav": "right"}, record, stop)

    asyncio.run(run())
    return record


def test_the_right_text_and_a_refusal_with_its_time_are_well() -> None:
    record = _send(
        httpx.Response(200, json={"text": "right"}), httpx.Response(503, headers={"retry-after": "3"}, json={})
    )
    assert (record.wrong, dict(record.statuses)) == ([], {"200": 1, "503": 1})


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, json={"text": "wrong"}),
        httpx.Response(500, json={}),
        httpx.Response(503, json={}),
        httpx.ReadTimeout("it hangs"),
        httpx.ReadError("it broke off"),
    ],
)
def test_anything_else_is_wrong(answer) -> None:
    assert len(_send(answer).wrong) == 1


def test_the_gauges_of_the_house_are_read() -> None:
    assert gauges("# HELP x\nwhisper_queue_requests 2.0\nwhisper_other 1\n") == {"whisper_queue_requests": 2.0}

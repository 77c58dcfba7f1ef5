"""R02: 200 posts at once at a limit of 16: never more than 16 inside, each one answered, every permit back."""

import asyncio

import pytest

from tests.fakes import script
from tests.serving import client, in_loop, make_app, statuses

pytestmark = pytest.mark.fault
LIMIT, BURST = 16, 200


@in_loop
async def test_r02_a_burst_is_answered_and_bounded():
    app, audio, workers = make_app(max_queue_requests=LIMIT)
    admission, most = app.state.admission, 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, admission.requests)
            await asyncio.sleep(0)

    async with client(app) as c:
        watcher = asyncio.create_task(watch())
        upload = {"file": ("a.wav", script(decode_delay=0.01, window_delay=0.02, windows=2))}
        answers = await asyncio.gather(*(c.post("/v1/transcribe", files=upload) for _ in range(BURST)))
        watcher.cancel()
    codes = statuses(answers)
    assert len(codes) == BURST
    assert set(codes) == {200, 503}
    assert LIMIT <= codes.count(200) < BURST
    assert most == LIMIT
    assert workers.most_running <= LIMIT
    assert all(1 <= int(a.headers["retry-after"]) <= 60 for a in answers if a.status_code == 503)
    assert (admission.requests, admission.audio_seconds, audio.held) == (0, 0.0, 0)

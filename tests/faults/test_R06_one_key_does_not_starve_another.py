"""R06: a key that floods gets 429; another key's requests still start, in order."""

import asyncio

import pytest

from tests.fakes import script
from tests.serving import client, error_of, in_loop, make_app, statuses

pytestmark = pytest.mark.fault


@in_loop
async def test_r06_a_flood_is_answered_429_and_others_start_in_order():
    app, _, workers = make_app(max_queue_requests=16, max_key_requests=4, api_keys=("flooding-key", "patient-key"))
    async with client(app) as c:

        def post(key: str, name: str):
            headers = {"authorization": f"Bearer {key}", "x-request-id": name}
            files = {"file": ("a.wav", script(window_delay=0.3))}
            return asyncio.create_task(c.post("/v1/transcribe", files=files, headers=headers))

        flood = [post("flooding-key", f"flood-{n}") for n in range(40)]
        await asyncio.sleep(0.1)
        patient = []
        for number in range(4):
            patient.append(post("patient-key", f"patient-{number}"))
            await asyncio.sleep(0.01)
        flooded, served = await asyncio.gather(*flood), await asyncio.gather(*patient)
    assert statuses(flooded) == [200] * 4 + [429] * 36
    assert statuses(served) == [200] * 4
    for answer in flooded:
        if answer.status_code == 429:
            assert error_of(answer, 429)["type"] == "rate_limit_error"
            assert 1 <= int(answer.headers["retry-after"]) <= 60
    started = [job.request_id.split(".")[0] for job in workers.started if job.request_id.startswith("patient")]
    assert started == [f"patient-{number}" for number in range(4)]
    assert app.state.admission.requests == 0

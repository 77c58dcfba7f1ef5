"""R03: ten files of ten minutes while the count is free: the budget of audio-seconds refuses the excess."""

import asyncio

import pytest

from tests.fakes import script
from tests.serving import client, error_of, in_loop, make_app, statuses

pytestmark = pytest.mark.fault


@in_loop
async def test_r03_long_files_are_refused_by_their_length():
    app, audio, workers = make_app(max_queue_requests=64, max_audio_seconds=600, max_queue_audio_seconds=2400)
    upload = {"file": ("a.wav", script(seconds=600, window_delay=0.3))}
    async with client(app) as c:
        answers = await asyncio.gather(*(c.post("/v1/transcribe", files=upload) for _ in range(10)))
        assert statuses(answers) == [200] * 4 + [503] * 6
        for answer in answers:
            if answer.status_code == 503:
                assert error_of(answer, 503)["code"] == "overloaded"
                assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert len(workers.started) == 4
        assert (await c.post("/v1/transcribe", files=upload)).status_code == 200
    assert (app.state.admission.audio_seconds, audio.held) == (0.0, 0)


@in_loop
async def test_r03_uploads_waiting_for_a_decoder_are_bounded_by_their_bytes():
    app, _, _ = make_app(max_upload_bytes=10_000, max_queue_upload_bytes=25_000)
    upload = {"file": ("a.wav", script(decode_delay=0.3).ljust(9000))}
    async with client(app) as c:
        answers = await asyncio.gather(*(c.post("/v1/transcribe", files=upload) for _ in range(5)))
    assert statuses(answers) == [200, 200, 503, 503, 503]
    assert app.state.admission.upload_bytes == 0

import asyncio
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.http.worker_metrics import WorkerCollector
from service.worker.stats import STAGES
from tests.fakes import FakeAudioPool, FakeWorkerPool, script
from tests.serving import client, form, in_loop, make_app, real_service, request_head, wait_until
from tests.sounds import float_wav, speechlike

PROMISED = {
    "whisper_requests": "counter",
    "whisper_request_duration_seconds": "histogram",
    "whisper_time_to_first_segment_seconds": "histogram",
    "whisper_queue_wait_seconds": "histogram",
    "whisper_queue_requests": "gauge",
    "whisper_queue_audio_seconds": "gauge",
    "whisper_in_flight_requests": "gauge",
    "whisper_audio_seconds": "counter",
    "whisper_audio_duration_seconds": "histogram",
    "whisper_real_time_factor": "histogram",
    "whisper_batch_rows": "histogram",
    "whisper_decode_steps": "counter",
    "whisper_tokens": "counter",
    "whisper_fallbacks": "counter",
    "whisper_guards": "counter",
    "whisper_rejections": "counter",
    "whisper_cancellations": "counter",
    "whisper_worker_up": "gauge",
    "whisper_worker_restarts": "counter",
    "whisper_worker_busy_seconds": "counter",
    "whisper_worker_last_progress_timestamp_seconds": "gauge",
    "whisper_device_memory_bytes": "gauge",
    "whisper_out_of_memory": "counter",
    "whisper_build_info": "gauge",
}
LABELS = {
    "endpoint",
    "status",
    "model",
    "task",
    "language",
    "device",
    "reason",
    "stage",
    "kind",
    "le",
    "version",
    "python",
    "compute_type",
    "cross_kv",
    "decoder",
    "encoder_context",
}

CPU = (("device", "cpu"),)


def parse(page: str):
    families = {family.name: family for family in text_string_to_metric_families(page)}
    samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families.values() for s in f.samples}
    return families, samples


@in_loop
async def test_every_promised_metric_is_on_the_one_page():
    app, _, _ = make_app()
    async with client(app) as c:
        await c.post("/v1/transcribe", files={"file": ("a.wav", script(seconds=4, windows=2))})
        await c.post("/v1/transcribe", files={"file": ("a.wav", b"x")}, data={"task": "x"})
        answer = await c.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families, samples = parse(answer.text)
    assert {name: families[name].type for name in PROMISED if name in families} == PROMISED
    for family in families.values():
        assert family.name.startswith(("whisper_", "process_"))
        assert family.documentation
        assert all(set(sample.labels) <= LABELS for sample in family.samples)
    (build,) = families["whisper_build_info"].samples
    assert (build.labels["compute_type"], build.labels["decoder"], build.value) == ("float32", "torch", 1.0)
    transcribed = (("endpoint", "/v1/transcribe"), ("status", "200"))
    assert samples["whisper_requests_total", transcribed] == 1.0
    refused = (("endpoint", "/v1/transcribe"), ("status", "400"))
    assert [samples["whisper_request_duration_seconds_count", of] for of in (transcribed, refused)] == [1.0, 1.0]
    by_language = (("language", "en"), ("model", "base"), ("task", "transcribe"))
    assert samples["whisper_audio_seconds_total", by_language] == 4.0
    assert samples["whisper_rejections_total", (("reason", "invalid_value"),)] == 1.0
    assert samples["whisper_time_to_first_segment_seconds_count", ()] == 1.0
    assert samples["whisper_fallbacks_total", (("device", "cpu"), ("reason", "compression_ratio"))] == 2.0
    assert samples["whisper_worker_busy_seconds_total", (*CPU, ("stage", "encode"))] == 2.5
    assert samples["whisper_batch_rows_sum", (("device", "cpu"),)] == 13.0
    assert samples["whisper_batch_rows_bucket", (("device", "cpu"), ("le", "2.0"))] == 5.0
    assert samples["whisper_batch_rows_count", (("device", "cpu"),)] == 7.0
    for name in ("whisper_queue_requests", "whisper_queue_audio_seconds", "whisper_in_flight_requests"):
        assert samples[name, ()] == 0.0
    assert 0 < samples["process_open_fds", ()] < samples["process_max_fds", ()]


@in_loop
async def test_who_waited_in_vain_waited_too():
    app, _, _ = make_app()
    async with client(app) as c:
        for words in ({}, {"worker_error": "deadline"}, {"error": "invalid_audio"}):
            await c.post("/v1/transcribe", files={"file": ("a.wav", script(**words))})
        _, samples = parse((await c.get("/metrics")).text)
    assert samples["whisper_queue_wait_seconds_count", ()] == 2.0


@in_loop
async def test_what_alerts_watch_is_counted_from_zero_on():
    app, _, _ = make_app()
    async with client(app) as c:
        _, samples = parse((await c.get("/metrics")).text)
    for path in ("transcribe", "detect-language", "audio/transcriptions", "audio/translations"):
        for status in ("200", "500", "503", "504"):
            assert samples["whisper_requests_total", (("endpoint", f"/v1/{path}"), ("status", status))] == 0.0


@in_loop
async def test_reading_the_metrics_is_no_request():
    app, _, _ = make_app()
    async with client(app) as c:
        for _ in range(3):
            page = (await c.get("/metrics")).text
    assert 'endpoint="/metrics"' not in page


@in_loop
async def test_gauges_show_a_request_while_it_runs():
    app, _, workers = make_app()
    async with client(app) as c:
        task = c.post("/v1/transcribe", files={"file": ("a.wav", script(seconds=9, window_delay=0.5))})
        running = asyncio.create_task(task)
        while not workers.running:  # noqa: ASYNC110  the fake has no event
            await asyncio.sleep(0.01)
        _, samples = parse((await c.get("/metrics")).text)
        await running
    assert samples["whisper_queue_requests", ()] == 1.0
    assert samples["whisper_queue_audio_seconds", ()] == 9.0
    assert samples["whisper_queue_upload_bytes", ()] == 0.0
    assert samples["whisper_worker_requests", (("device", "cpu"),)] == 1.0
    assert samples["whisper_in_flight_requests", ()] == 1.0


def test_progress_is_the_time_of_the_last_new_step():
    now = 1000.0
    workers = FakeWorkerPool(ready=True)
    collector = WorkerCollector(FakeAudioPool(), workers, clock=lambda: now)

    def progress() -> float:
        return next(
            family.samples[0].value
            for family in collector.collect()
            if family.name == "whisper_worker_last_progress_timestamp_seconds"
        )

    assert progress() == 1000.0
    now = 1010.0
    assert progress() == 1000.0
    workers.steps += 1
    assert progress() == 1010.0


def test_a_worker_that_is_gone_is_down_and_not_forgotten():
    workers = FakeWorkerPool(ready=True)
    collector = WorkerCollector(FakeAudioPool(), workers)

    def up() -> list[float]:
        (family,) = [family for family in collector.collect() if family.name == "whisper_worker_up"]
        return [sample.value for sample in family.samples]

    assert up() == [1.0]
    workers.ready = False
    assert up() == [0.0]
    workers.ready = True
    assert up() == [1.0]


def test_a_pool_without_workers_is_no_error():
    families = list(WorkerCollector(FakeAudioPool(), FakeWorkerPool()).collect())
    assert not [sample for family in families for sample in family.samples if "device" in sample.labels]


@pytest.mark.parametrize("module", ["service.http.metrics", "service.http.worker_metrics"])
def test_there_is_no_global_registry(module):
    from prometheus_client import REGISTRY

    __import__(module)
    assert not [name for name in REGISTRY._names_to_collectors if name.startswith("whisper_")]


@pytest.mark.fault
def test_every_metric_moves_with_real_processes(checkpoint):
    """What a real worker and real children do is what the page says they did."""
    silent = {"no_speech_threshold": "0", "logprob_threshold": "0", "language": "en"}
    hard = {
        "temperature": "0,0.4",
        "no_speech_threshold": "1",
        "logprob_threshold": "0",
        "guards": "false",
        "language": "en",
    }
    easy = {"temperature": "0", "logprob_threshold": "", "language": "de", "task": "translate"}
    began = time.monotonic()
    with real_service(checkpoint) as server:
        assert server.post(float_wav(speechlike(5.0)), data=silent).status_code == 200
        assert server.post(float_wav(speechlike(40.0)), data=hard).status_code == 200
        assert server.post(float_wav(speechlike(3.0)), data=easy).status_code == 200
        assert server.post(float_wav(speechlike(3.0)), path="/v1/detect-language").status_code == 200
        assert server.post(b"no sound").status_code == 400
        with server.connect() as leaving:
            body = form(float_wav(speechlike(90.0)), temperature="0")
            leaving.sendall(request_head(len(body)) + body)
            wait_until(lambda: server.gauge("whisper_queue_audio_seconds") == 90.0, 30.0)
        server.assert_idle()
        done = ("whisper_worker_audio_seconds_total", CPU)
        # Workers say twice a second how far they are.
        wait_until(lambda: parse(server.get("/metrics").text)[1][done] == pytest.approx(48.0, abs=0.1), 30.0)
        families, samples = parse(server.get("/metrics").text)
        assert {name: families[name].type for name in PROMISED if name in families} == PROMISED
        assert all(set(sample.labels) <= LABELS for family in families.values() for sample in family.samples)
        moved = {name for name, family in families.items() if any(sample.value > 0 for sample in family.samples)}
        still = {"whisper_queue_requests", "whisper_queue_audio_seconds", "whisper_in_flight_requests"}
        assert PROMISED.keys() - moved == still | {"whisper_worker_restarts", "whisper_out_of_memory"}
        worked_off = {key: value for key, value in samples.items() if key[0] == "whisper_audio_seconds_total"}
        assert sorted(worked_off.values()) == pytest.approx([3.0, 45.0], abs=0.1)
        assert samples["whisper_batch_rows_sum", CPU] >= samples["whisper_decode_steps_total", CPU]
        spent = {stage: samples["whisper_worker_busy_seconds_total", (*CPU, ("stage", stage))] for stage in STAGES}
        assert all(spent.values())
        assert sum(spent.values()) < time.monotonic() - began
        resident = samples["whisper_device_memory_bytes", (("device", "cpu"), ("kind", "resident"))]
        assert 50e6 < resident < 4e9
        assert samples["whisper_worker_last_progress_timestamp_seconds", CPU] == pytest.approx(time.time(), abs=30)
        server.worker().kill()
        wait_until(lambda: parse(server.get("/metrics").text)[1]["whisper_worker_up", CPU] == 0.0)
        wait_until(lambda: parse(server.get("/metrics").text)[1]["whisper_worker_up", CPU] == 1.0, 60)
        assert server.gauge("whisper_worker_restarts_total") == 1.0

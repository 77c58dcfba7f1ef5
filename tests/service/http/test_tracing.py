import asyncio
import contextlib
import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.http import tracing
from service.http.tracing import PassedOn, Recorded, Stage, incoming, open_tracing
from service.settings import Settings, SettingsError
from tests.fakes import script
from tests.serving import ROOT, ServiceProcess, service, wait_until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def headers(*values: str, state: str | None = None) -> list[tuple[bytes, bytes]]:
    found = [(b"traceparent", value.encode()) for value in values]
    return [*found, (b"tracestate", state.encode())] if state else found


@pytest.mark.parametrize(
    "value",
    [
        "",
        "rubbish",
        PARENT.upper(),
        PARENT + "-more",
        PARENT[:-1],
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"01-{TRACE}-{SPAN}-01-" + "x" * 600,
    ],
)
def test_what_is_no_traceparent_is_no_trace(value: str) -> None:
    assert incoming(headers(value)) == {}


def test_a_traceparent_is_read_with_its_state() -> None:
    assert incoming(headers(PARENT)) == {"traceparent": PARENT}
    assert incoming(headers(PARENT, state="a=1")) == {"traceparent": PARENT, "tracestate": "a=1"}
    later = f"01-{TRACE}-{SPAN}-01-more"
    assert incoming(headers(later)) == {"traceparent": later}
    assert incoming(headers(PARENT, PARENT)) == {}
    assert incoming([]) == {}


def test_without_a_collector_nothing_is_imported() -> None:
    code = (
        "import sys; from service.http.app import create_app; from service.settings import Settings;"
        "from tests.fakes import FakeAudioPool, FakeWorkerPool;"
        "create_app(Settings(), FakeAudioPool(), FakeWorkerPool());"
        "heavy = ('opentelemetry.sdk', 'opentelemetry.exporter', 'requests');"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_callers_trace_goes_through_without_a_collector() -> None:
    with service() as server:
        answer = server.post(headers={"traceparent": PARENT, "x-request-id": "mine"})
        assert answer.headers["traceparent"] == PARENT
        assert "traceparent" not in server.post().headers
        assert server.post(b"error=bug", headers={"traceparent": PARENT}).headers["traceparent"] == PARENT

        def lines() -> list[dict[str, object]]:
            return [line for line in server.log() if line.get("endpoint") == "/v1/transcribe"]

        wait_until(lambda: len([line for line in lines() if line["event"] == "request"]) == 3)
        assert [line.get("trace_id") for line in lines() if line["event"] == "request"] == [TRACE, None, TRACE]
        assert lines()[0]["request_id"] == "mine"


def test_spans_go_by_the_clock_as_it_was_set_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter, day = InMemorySpanExporter(), 86_400
    recorded = Recorded(exporter, ratio=1.0)
    tomorrow = time.time() + day
    monkeypatch.setattr(tracing, "time", SimpleNamespace(time=lambda: tomorrow, monotonic=time.monotonic))
    start = time.monotonic()
    recorded.begin("request", [], start).end(status=200, notes={}, stages=[Stage("upload", start, start + 1.0, {})])
    asyncio.run(recorded.close())
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["upload", "request"]
    assert all(abs((span.start_time or 0) / 1e9 - tomorrow) < day / 2 for span in spans)
    assert all(abs((span.end_time or 0) / 1e9 - tomorrow) < day / 2 for span in spans)


class Collector:
    """An OTLP/HTTP collector on loopback: keeps the spans that come."""

    def __init__(self) -> None:
        self.spans: list[dict[str, object]] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for span in (s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans):
            attributes = {
                a.key: a.value.string_value or a.value.int_value or a.value.double_value for a in span.attributes
            }
            self.spans.append(
                {
                    "name": span.name,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "start": span.start_time_unix_nano / 1e9,
                    "end": span.end_time_unix_nano / 1e9,
                    "failed": span.status.code == 2,
                    **attributes,
                }
            )


@contextlib.contextmanager
def collector() -> Iterator[Collector]:
    one = Collector()
    thread = threading.Thread(target=one.server.serve_forever)
    thread.start()
    try:
        yield one
    finally:
        one.server.shutdown()
        one.server.server_close()
        thread.join()


def traced(url: str, **environment: str) -> contextlib.AbstractContextManager[ServiceProcess]:
    return service(WHISPER_TRACE_ENDPOINT=url, **environment)


def test_a_request_is_a_span_with_its_stages() -> None:
    with collector() as spans, traced(spans.url) as server:
        answer = server.post(script(windows=2, window_delay=0.2, text="secret"), headers={"traceparent": PARENT})
        wait_until(lambda: any(span["name"].startswith("POST") for span in spans.spans))
        (root,) = [span for span in spans.spans if span["name"] == "POST /v1/transcribe"]
        assert answer.headers["traceparent"] == f"00-{TRACE}-{root['id']}-01"
        assert (root["trace"], root["parent"]) == (TRACE, SPAN)
        assert root["whisper.request_id"] == answer.headers["x-request-id"]
        assert root["http.response.status_code"] == 200
        assert not root["failed"]
        stages = [span for span in spans.spans if span["parent"] == root["id"]]
        names = ["upload", "decode audio", "queue", "encode", "decode", "encode", "decode", "inference"]
        assert [stage["name"] for stage in stages] == names
        for stage in stages:
            assert root["start"] - 0.01 <= stage["start"] <= stage["end"] <= root["end"] + 0.01
        (inference,) = [stage for stage in stages if stage["name"] == "inference"]
        assert inference["end"] - inference["start"] > 0.35
        assert "secret" not in str(spans.spans)


def test_failures_are_marked_and_health_checks_are_left_out() -> None:
    with collector() as spans, traced(spans.url) as server:
        for _ in range(3):
            server.get("/readyz")
        assert server.post(script(worker_error="bug")).status_code == 500
        assert server.post(script(error="invalid_audio")).status_code == 400
        wait_until(lambda: len([span for span in spans.spans if not span["parent"]]) == 2)
        roots = [span for span in spans.spans if not span["parent"]]
        assert [(root["failed"], root["whisper.code"]) for root in roots] == [
            (True, "internal_error"),
            (False, "invalid_audio"),
        ]


def test_the_callers_decision_and_the_ratio_are_kept() -> None:
    with collector() as spans, traced(spans.url, WHISPER_TRACE_RATIO="0") as server:
        assert not sampled(server.post().headers["traceparent"])
        assert not sampled(server.post(headers={"traceparent": PARENT[:-2] + "00"}).headers["traceparent"])
        assert sampled(server.post(headers={"traceparent": PARENT}).headers["traceparent"])
        wait_until(lambda: bool(spans.spans))
        assert {span["trace"] for span in spans.spans} == {TRACE}


def sampled(traceparent: str) -> bool:
    return bool(int(traceparent[-2:], 16) & 1)


def test_a_collector_that_is_gone_harms_nobody() -> None:
    with traced("http://127.0.0.1:9/v1/traces") as server:
        assert server.post().status_code == 200
        server.process.terminate()
        assert server.process.wait(8) == 0


def test_a_missing_installation_is_said_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match="WHISPER_TRACE_ENDPOINT"):
        open_tracing(Settings(trace_endpoint="http://127.0.0.1:4318/v1/traces"))
    assert isinstance(open_tracing(Settings()), PassedOn)
    assert tracing.incoming([]) == {}

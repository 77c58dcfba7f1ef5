"""R38: two real replicas behind the shipped HAProxy configuration: restarts lose nothing, the service refuses."""

import asyncio
import concurrent.futures
import itertools
import json
import signal
import socket
import threading
import time

import httpx
import pytest
import yaml

from tests.balancers import Balancer, free_ports, program
from tests.fakes import script
from tests.serving import ROOT, check_error_body, error_of, form, in_loop, read_answer, request_head, wait_until
from tests.stack import Stack, load

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(
        program("haproxy") is None, reason="haproxy is not installed (Debian, Ubuntu: apt install haproxy)"
    ),
]
ARRIVED = 'haproxy_frontend_http_requests_total{proxy="door"}'


@in_loop
async def test_r38_a_rolling_restart_fails_no_request():
    small, large = script(window_delay=0.2), script(window_delay=0.2) + b" " * 2_000_000
    with Stack("haproxy") as stack:
        async with load(stack.balancer.url, small, 4) as few_bytes, load(stack.balancer.url, large, 2) as many_bytes:
            await asyncio.sleep(0.5)
            for number in (0, 1):
                before = few_bytes.outcomes.total()
                await asyncio.to_thread(stack.roll, number)
                await asyncio.sleep(1)
                assert few_bytes.outcomes.total() > before
        assert set(few_bytes.outcomes) == {"200"}
        assert set(many_bytes.outcomes) == {"200"}
        assert many_bytes.outcomes.total() > 4


@in_loop
async def test_r38_a_killed_replica_costs_only_what_was_inside_it():
    clients = 6
    with Stack("haproxy") as stack:
        async with load(stack.balancer.url, script(window_delay=0.5), clients) as tally:
            await asyncio.sleep(1)
            stack.replicas[0].process.kill()
            stack.replicas[0].process.wait(10)  # nobody sends anything before it is gone
            killed = time.monotonic()
            await asyncio.sleep(2)
            await asyncio.to_thread(stack.restart, 0)
            await asyncio.sleep(1)
        assert 0 < tally.failed() < clients
        assert all(began < killed for began in tally.failed_at)
        assert tally.outcomes["200"] > clients
        assert stack.replicas[0].gauge("whisper_in_flight_requests") == 0


@in_loop
async def test_r38_overload_is_refused_by_the_service_itself():
    with Stack("haproxy", WHISPER_MAX_QUEUE_REQUESTS="3") as stack:
        async with load(stack.balancer.url, script(window_delay=0.4) + b" " * 500_000, 24) as tally:
            await asyncio.sleep(3)
        assert set(tally.outcomes) == {"200", "503 overloaded Retry-After"}
        ready = [server for server in ("replica-1", "replica-2") if up(stack.balancer, server)]
        assert ready == ["replica-1", "replica-2"]


def metric(balancer: Balancer, name: str) -> int:
    """A series of the balancer's own page."""
    page = httpx.get(f"http://127.0.0.1:{balancer.metrics_port}/metrics", trust_env=False).text
    (line,) = [line for line in page.splitlines() if line.startswith(f"{name} ")]
    return int(line.rpartition(" ")[2])


def up(balancer: Balancer, server: str) -> bool:
    return metric(balancer, f'haproxy_server_status{{proxy="replicas",server="{server}",state="UP"}}') == 1


def test_r38_requests_go_where_the_fewest_are():
    with Stack("haproxy") as stack:
        body = form(script(windows=100, window_delay=0.1))
        with socket.create_connection(("127.0.0.1", stack.balancer.port), timeout=10) as long:
            long.sendall(request_head(len(body)) + body)
            wait_until(lambda: sum(replica.gauge("whisper_queue_audio_seconds") for replica in stack.replicas) == 1.0)
            (busy,) = [number for number in (0, 1) if stack.replicas[number].gauge("whisper_queue_audio_seconds")]
            before = [served(stack.balancer, number) for number in (0, 1)]
            url = f"{stack.balancer.url}/v1/transcribe"
            for _ in range(6):
                assert httpx.post(url, files={"file": ("a.wav", script())}, trust_env=False).status_code == 200
            gained = [served(stack.balancer, number) - before[number] for number in (0, 1)]
        assert (gained[busy], gained[1 - busy]) == (0, 6)


def served(balancer: Balancer, number: int) -> int:
    return metric(balancer, f'haproxy_server_sessions_total{{proxy="replicas",server="replica-{number + 1}"}}')


def test_r38_slow_clients_take_no_place():
    with Stack("haproxy", WHISPER_MAX_QUEUE_REQUESTS="2") as stack:
        body = form(b" " * 20_000)
        slow = [socket.create_connection(("127.0.0.1", stack.balancer.port), timeout=10) for _ in range(8)]
        for connection in slow:
            connection.sendall(request_head(len(body)) + body[:10_000])
        assert [stack.replicas[0].post().status_code for _ in range(3)] == [200] * 3
        assert [replica.gauge("whisper_queue_requests") for replica in stack.replicas] == [0, 0]
        for connection in slow:
            connection.sendall(body[10_000:])
            assert connection.recv(15).startswith(b"HTTP/1.1 200")
            connection.close()


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"WHISPER_UPLOAD_SECONDS": "2"}, "upload_timeout"),
        (
            {"WHISPER_UPLOAD_BYTES_PER_SECOND": "8192", "WHISPER_UPLOAD_GRACE_SECONDS": "2"},
            "upload_too_slow",
        ),
    ],
    ids=["time", "pace"],
)
def test_r38_large_slow_uploads_hold_a_place_no_longer_than_they_may(limits, code):
    with Stack("haproxy", WHISPER_MAX_QUEUE_REQUESTS="2", **limits) as stack:
        body = form(b" " * 400_000)
        slow = [socket.create_connection(("127.0.0.1", stack.balancer.port), timeout=15) for _ in range(4)]
        for connection in slow:
            connection.sendall(request_head(len(body)) + body[:200_000])
        wait_until(lambda: all(replica.gauge("whisper_queue_requests") == 2 for replica in stack.replicas))
        answers = [read_answer(connection) for connection in slow]
        assert [(status, check_error_body(json.loads(text))["code"]) for status, _, text in answers] == [
            (408, code)
        ] * 4
        for connection in slow:
            connection.close()
        for replica in stack.replicas:
            replica.assert_idle()
        url = f"{stack.balancer.url}/v1/transcribe"
        assert httpx.post(url, files={"file": ("a.wav", script())}, trust_env=False).status_code == 200


def test_r38_a_client_that_leaves_ends_the_work_behind_the_balancer():
    with Stack("haproxy") as stack:
        body = form(script(windows=100, window_delay=0.1))
        connection = socket.create_connection(("127.0.0.1", stack.balancer.port), timeout=10)
        connection.sendall(request_head(len(body)) + body)
        wait_until(lambda: sum(replica.gauge("whisper_queue_audio_seconds") for replica in stack.replicas) == 1.0)
        connection.close()
        for replica in stack.replicas:
            replica.assert_idle(2.0)


def test_r38_the_balancer_is_stopped_as_the_composition_does_it_and_ends_what_it_has():
    composition = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    with Stack("haproxy") as stack, concurrent.futures.ThreadPoolExecutor(1) as threads:
        url, upload = f"{stack.balancer.url}/v1/transcribe", script(windows=20, window_delay=0.1)
        answer = threads.submit(httpx.post, url, files={"file": ("a.wav", upload)}, trust_env=False, timeout=30)
        wait_until(lambda: sum(replica.gauge("whisper_queue_audio_seconds") for replica in stack.replicas) == 1.0)
        stack.balancer.process.send_signal(signal.Signals[composition["balancer"]["stop_signal"]])
        assert answer.result().status_code == 200
        assert stack.balancer.process.wait(5) == 0


def test_r38_the_balancer_speaks_as_the_service_does():
    with Stack("haproxy") as stack:
        url = stack.balancer.url
        reply = httpx.get(f"{url}/v1/models", headers={"x-request-id": "mine-1"}, trust_env=False)
        assert reply.headers["x-request-id"] == "mine-1"
        assert len(httpx.get(f"{url}/v1/models", trust_env=False).headers["x-request-id"]) == 36
        hidden = httpx.get(f"{url}/metrics", headers={"x-request-id": "mine-2"}, trust_env=False)
        assert error_of(hidden, 404)["code"] == "not_found"
        assert hidden.json()["request_id"] == hidden.headers["x-request-id"] == "mine-2"
        with socket.create_connection(("127.0.0.1", stack.balancer.port), timeout=10) as connection:
            seen = metric(stack.balancer, ARRIVED)
            connection.sendall(request_head(None, "/v1/transcribe", "X-Request-Id: mine-3"))
            wait_until(lambda: metric(stack.balancer, ARRIVED) > seen)
            connection.sendall(b"no size\r\n")
            status, headers, text = read_answer(connection)
        assert (status, check_error_body(json.loads(text))["code"]) == (400, "invalid_http")
        assert json.loads(text)["request_id"] == headers["x-request-id"] == "mine-3"
        wait_until(lambda: '"request_id":"mine-1"' in stack.balancer.log())
        for replica in stack.replicas:
            replica.process.kill()
        wait_until(lambda: not up(stack.balancer, "replica-1") and not up(stack.balancer, "replica-2"))
        refused = httpx.get(f"{url}/v1/models", trust_env=False)
        assert error_of(refused, 503)["code"] == "no_replica"
        assert refused.headers["retry-after"] == "5"
        assert refused.json()["request_id"] == refused.headers["x-request-id"]


def test_r38_nobody_writes_into_the_balancers_log_and_nobody_reads_the_metrics_through_it():
    forged = 'mine-4", "status": 999, "x": "'
    several = (f"X-Request-Id: mine-5, {forged}", f"X-Request-Id: mine-5\r\nX-Request-Id: {forged}")
    paths = ("/metrics", "/%6Detrics", "/metric%73", "/metrics?a")
    with Stack("haproxy") as stack:
        for path, identity in itertools.product((*paths, "/v1/models"), (*several, "X-Request-Id: mine-6")):
            with socket.create_connection(("127.0.0.1", stack.balancer.port), timeout=10) as connection:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n{identity}\r\n\r\n".encode())
                status, headers, text = read_answer(connection)
            assert status == (404 if path in paths else 200), path
            assert path not in paths or json.loads(text)["request_id"] == headers["x-request-id"]
            assert (headers["x-request-id"] == "mine-6") is (identity not in several)
        wait_until(lambda: stack.balancer.log().count('"request_id":"mine-6"') == len(paths) + 1)
        lines = [line for line in stack.balancer.log().splitlines() if line.startswith('{"event":"balanced"')]
        assert {json.loads(line)["status"] for line in lines} == {200, 404}


def test_r38_answers_stream_through():
    (port,) = free_ports(1)
    released = threading.Event()

    def replica() -> None:
        with socket.create_server(("127.0.0.1", port)) as listener:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if connection.recv(65_536).startswith(b"GET /readyz"):
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        continue
                    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                    connection.sendall(head + b"5\r\nfirst\r\n")
                    released.wait(10)
                    connection.sendall(b"4\r\nlast\r\n0\r\n\r\n")
                    return

    thread = threading.Thread(target=replica)
    thread.start()
    with Balancer("haproxy", [port, port]) as balancer:
        balancer.wait_ready()
        with httpx.stream("POST", f"{balancer.url}/stream", content=b"x", trust_env=False, timeout=10) as reply:
            pieces = reply.iter_bytes()
            assert next(pieces) == b"first"
            released.set()
            assert b"".join(pieces) == b"last"
    thread.join(10)


@pytest.mark.skipif(program("nginx") is None, reason="nginx is not installed (Debian, Ubuntu: apt install nginx-light)")
def test_r38_nginx_passes_streams_on_without_being_told_to():
    with Stack("nginx-default") as stack:
        url, upload = f"{stack.balancer.url}/v1/transcribe", script(windows=2, window_delay=1.5)
        files, fields = {"file": ("a.wav", upload)}, {"stream": "true"}
        with httpx.stream("POST", url, files=files, data=fields, trust_env=False, timeout=30) as answer:
            pieces = answer.iter_bytes()
            told = next(pieces)
            assert sum(replica.gauge("whisper_queue_requests") for replica in stack.replicas) == 1.0  # one to come
            assert (told + b"".join(pieces)).count(b"data: ") == 3

"""Dashboard and rules hold against a real Prometheus that scraped two real replicas behind the real balancer."""

import concurrent.futures
import contextlib
import json
import math
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from deploy.dashboard import ROWS, TARGET, dashboard, rendered
from tests.balancers import program
from tests.fakes import script
from tests.prometheus import CONFIGURATION, Prometheus
from tests.serving import form, request_head, wait_until
from tests.stack import Stack


def test_the_file_is_what_the_code_writes() -> None:
    assert TARGET.read_text() == rendered(), "run `make dashboard`"


def test_every_panel_has_its_own_place_and_number() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23


def test_the_dashboard_is_one_that_grafana_takes_as_it_is() -> None:
    whole = dashboard()
    assert re.fullmatch(r"[0-9A-Za-z_-]{1,40}", whole["uid"])
    assert whole["schemaVersion"] == 39  # Grafana brings older forms up to its own, never newer ones down
    assert "id" not in whole, "Grafana gives it"
    assert all(isinstance(variable["name"], str) for variable in whole["templating"]["list"])


def test_every_graph_says_what_it_tells_and_in_which_unit() -> None:
    graphs = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
    assert len(graphs) == sum(map(len, ROWS.values()))
    assert len({panel["title"] for panel in graphs}) == len(graphs)
    for panel in graphs:
        assert panel["type"] == "timeseries"
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"] in {"reqps", "percentunit", "s", "bytes", "none"}
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert all(re.fullmatch(r"[A-Z]", letter) for letter in letters)
        assert len(set(letters)) == len(letters)


def test_the_variables_of_the_queries_are_defined() -> None:
    defined = {variable["name"] for variable in dashboard()["templating"]["list"]} | {"__rate_interval"}
    used = set(
        re.findall(r"\$(\w+)", " ".join(query for row in ROWS.values() for p in row for query in p.queries.values()))
    )
    assert used == defined


def test_provisioning_and_dashboard_name_the_same_source() -> None:
    folder = Path(TARGET).parents[1] / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"]
    whole = dashboard()
    graphs = [panel for panel in whole["panels"] if panel["type"] != "row"]
    users = [*graphs, *(target for panel in graphs for target in panel["targets"]), *whole["templating"]["list"]]
    assert {(user["datasource"]["type"], user["datasource"]["uid"]) for user in users} == {
        (source["type"], source["uid"])
    }


def drive(stack: Stack) -> None:
    """Every situation that a panel shows: languages, tasks, fallbacks, refusals, errors, a client that leaves."""

    def post(**words: object) -> int:
        fields = {"task": str(words.pop("task", "transcribe"))}
        upload = {"file": ("a.wav", script(**words))}
        return httpx.post(
            f"{stack.balancer.url}/v1/transcribe", files=upload, data=fields, trust_env=False, timeout=30
        ).status_code

    body = form(script(windows=50, window_delay=0.1))
    leaving = socket.create_connection(("127.0.0.1", stack.balancer.port), timeout=10)
    leaving.sendall(request_head(len(body)) + body)
    with concurrent.futures.ThreadPoolExecutor(24) as threads:
        answers = [threads.submit(post, seconds=3, window_delay=0.5, language=name) for name in ("en", "de", "ko") * 8]
        assert {answer.result() for answer in answers} == {200, 503}
    leaving.close()
    assert post(task="translate", fallback="logprob", guard="repetition", seconds=8) == 200
    assert post(error="invalid_audio") == 400
    assert [post(worker_error="bug") for _ in range(4)] == [500] * 4
    reply = httpx.post(
        f"{stack.balancer.url}/v1/detect-language", files={"file": ("a.wav", b"x")}, trust_env=False, timeout=10
    )
    assert reply.status_code == 200


@contextlib.contextmanager
def scraped() -> Iterator[Prometheus]:
    """A Prometheus that has seen every situation, the last of them a replica that drains."""
    with (
        # It drains for longer than the questions take.
        Stack("haproxy", WHISPER_MAX_QUEUE_REQUESTS="4", WHISPER_DRAIN_NOTICE_SECONDS="12") as stack,
        Prometheus({"whisper": stack.ports, "balancer": [stack.balancer.metrics_port]}) as prometheus,
    ):
        # Counters that are born with a value need a second one for a rate.
        drive(stack)
        prometheus.wait_scraping()
        time.sleep(2)
        drive(stack)
        stack.replicas[0].process.send_signal(signal.SIGTERM)
        wait_until(lambda: bool(prometheus.query("whisper_ready == 0")), 10)
        time.sleep(1)
        yield prometheus


@pytest.mark.skipif(
    program("prometheus") is None or program("haproxy") is None,
    reason="prometheus and haproxy are not installed (Debian, Ubuntu: apt install prometheus haproxy)",
)
def test_everything_asked_of_prometheus_is_answered() -> None:
    expected = {"WhisperNotReady", "WhisperQueueFull", "WhisperErrors"}
    with scraped() as prometheus:
        wait_until(lambda: expected <= alerts(prometheus), 10)
        assert queries_without_data(prometheus) == {}
        rules = yaml.safe_load((CONFIGURATION / "rules.yml").read_text())["groups"][0]["rules"]
        assert [rule["record"] for rule in rules if not prometheus.query(rule["record"])] == []
        assert metrics_in_use() - set(prometheus.get("label/__name__/values")) == set()


def alerts(prometheus: Prometheus) -> set[str]:
    """Those that fire or are about to."""
    return {alert["labels"]["alertname"] for alert in prometheus.get("alerts")["alerts"]}


def queries_without_data(prometheus: Prometheus) -> dict[str, str]:
    """The dashboard's queries that return no series, or nothing but NaN."""
    silent = {}
    for panel in (panel for row in ROWS.values() for panel in row):
        for legend, query in panel.queries.items():
            series = prometheus.query(query.replace("$__rate_interval", "1m").replace("$instance", ".*"))
            if not any(math.isfinite(float(one["value"][1])) for one in series):
                silent[f"{panel.title}: {legend}"] = query
    return silent


def metrics_in_use() -> set[str]:
    """Every metric that rules, alerts, their tests and the dashboard name."""
    texts = [(CONFIGURATION / name).read_text() for name in ("rules.yml", "alerts.yml", "alerts_test.yml")]
    used = set(re.findall(r"\b(?:whisper|haproxy)_[a-z0-9_]+", "".join(texts) + json.dumps(dashboard())))
    assert len(used) > 30
    return used

"""Dashboard and rules hold against a real Prometheus that scraped a real run.

Two real services behind the real balancer answer real recordings. The first has the base model, and every panel must
show it; the second has a small random one, so that its workers are soon back after an upload that, by its length, makes
them abort (`tests.faulty_worker`).
"""

import concurrent.futures
import contextlib
import json
import math
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from deploy.dashboard import TARGET, dashboard, rendered
from deploy.panels import ROWS
from tests.balancers import program
from tests.conftest import AUDIO
from tests.faulty_worker import Harm
from tests.prometheus import CONFIGURATION, Prometheus
from tests.serving import form, request_head, wait_until
from tests.sounds import float_wav, speechlike
from tests.stack import Stack

AT_REST = {
    "How full",
    "In progress",
    "Processes replaced",
    "Memory: uploads {{instance}}",
    "Out of memory",
    "Traffic: in flight {{instance}}",
    "Sessions",
}
"""Panels, or lines of them, that are zero once nobody asks for anything and where nothing died."""
POISON = float_wav(speechlike(Harm.DIES / 16_000))


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


def post(url: str, upload: str | bytes, path: str = "/v1/transcribe", **fields: str) -> httpx.Response:
    """The answer to a recording, by its name in tests/audio or as it is."""
    content = (AUDIO / upload).read_bytes() if isinstance(upload, str) else upload
    return httpx.post(url + path, files={"file": ("a", content)}, data=fields, trust_env=False, timeout=300)


def drive(stack: Stack) -> None:
    """Every situation that a panel shows: languages, tasks, fallbacks, guards, refusals, errors, a client that goes."""
    base, other = stack.replicas
    assert post(other.url, POISON).status_code == 500
    wait_until(lambda: other.get("/readyz").status_code == 200, 120)
    with base.connect() as leaving, concurrent.futures.ThreadPoolExecutor(24) as threads:
        body = form((AUDIO / "en-printing.ogg").read_bytes())
        leaving.sendall(request_head(len(body)) + body)
        wait_until(lambda: base.gauge("whisper_queue_audio_seconds") > 0, 30)
        crowd = ("en-jfk.flac", "de-mekka.ogg", "ko-geotda.flac") * 8
        answers = [threads.submit(post, stack.balancer.url, name) for name in crowd]
        leaving.close()
        assert {answer.result().status_code for answer in answers} == {200, 503}
    assert "ask not what your country" in post(base.url, "en-jfk.flac").json()["text"]
    assert post(base.url, "fr-course.ogg", task="translate").json()["language"] == "fr"
    assert post(base.url, "noise.flac", temperature="0,0.4", logprob_threshold="0").json()["warnings"]
    assert post(base.url, "en-jfk.flac", path="/v1/detect-language").json()["language"] == "en"
    assert post(base.url, "README.md").status_code == 400


@contextlib.contextmanager
def scraped(checkpoint: Path) -> Iterator[tuple[Prometheus, str]]:
    """A Prometheus that has seen every situation, last a replica that drains, and what it calls the first replica."""
    settings = {
        "WHISPER_MODEL": "base",
        "WHISPER_DEVICES": "cpu",
        "WHISPER_THREADS_PER_WORKER": "1",
        "WHISPER_MAX_QUEUE_REQUESTS": "4",
        "WHISPER_DRAIN_NOTICE_SECONDS": "20",  # it drains for longer than the questions take
    }
    second = {"WHISPER_MODEL": str(checkpoint), "WHISPER_COMPUTE_TYPE": "float32"}
    with (
        Stack("haproxy", second, module="tests.serve_faulty", **settings) as stack,
        Prometheus({"whisper": stack.ports, "balancer": [stack.balancer.metrics_port]}) as prometheus,
    ):
        # Counters that are born with a value need a second one for a rate.
        drive(stack)
        prometheus.wait_scraping()
        time.sleep(2)
        drive(stack)
        stack.replicas[1].process.send_signal(signal.SIGTERM)
        wait_until(lambda: bool(prometheus.query("whisper_ready == 0")), 10)
        time.sleep(1)
        yield prometheus, f"127.0.0.1:{stack.ports[0]}"


@pytest.mark.weights
@pytest.mark.skipif(
    program("prometheus") is None or program("haproxy") is None,
    reason="prometheus and haproxy are not installed (Debian, Ubuntu: apt install prometheus haproxy)",
)
def test_everything_asked_of_prometheus_is_answered(checkpoint: Path) -> None:
    expected = {"WhisperNotReady", "WhisperQueueFull", "WhisperErrors"}
    with scraped(checkpoint) as (prometheus, instance):
        wait_until(lambda: expected <= alerts(prometheus), 10)
        answers = answers_of(prometheus, instance)
        assert [name for name, values in answers.items() if not values] == []
        still = {name for name, values in answers.items() if not any(values)}
        assert {name for name in still if not {name, name.partition(":")[0]} & AT_REST} == set()
        assert max(float(one["value"][1]) for one in prometheus.query("whisper_worker_restarts_total")) == 2
        rules = yaml.safe_load((CONFIGURATION / "rules.yml").read_text())["groups"][0]["rules"]
        assert [rule["record"] for rule in rules if not prometheus.query(rule["record"])] == []
        assert metrics_in_use() - set(prometheus.get("label/__name__/values")) == set()


def alerts(prometheus: Prometheus) -> set[str]:
    """Those that fire or are about to."""
    return {alert["labels"]["alertname"] for alert in prometheus.get("alerts")["alerts"]}


def answers_of(prometheus: Prometheus, instance: str) -> dict[str, list[float]]:
    """What each of the dashboard's queries returns for one replica: its numbers, without NaN."""
    answers = {}
    for panel in (panel for row in ROWS.values() for panel in row):
        for legend, query in panel.queries.items():
            series = prometheus.query(query.replace("$__rate_interval", "5m").replace("$instance", instance))
            values = [float(one["value"][1]) for one in series]
            answers[f"{panel.title}: {legend}"] = [value for value in values if math.isfinite(value)]
    return answers


def metrics_in_use() -> set[str]:
    """Every metric that rules, alerts, their tests and the dashboard name."""
    texts = [(CONFIGURATION / name).read_text() for name in ("rules.yml", "alerts.yml", "alerts_test.yml")]
    used = set(re.findall(r"\b(?:whisper|haproxy)_[a-z0-9_]+", "".join(texts) + json.dumps(dashboard())))
    assert len(used) > 30
    return used

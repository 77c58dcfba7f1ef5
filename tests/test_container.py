"""The Dockerfile and the compositions are hardened as promised (R42) and true to the code; they are read, not run."""

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import PREFIX, Settings
from tests.stack import SETTINGS

ROOT = Path(__file__).resolve().parent.parent


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, continuation lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text())
    text = re.sub(r"\s*\\\n\s*", " ", text)
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The Dockerfile's stages by name, each with what it inherits from earlier ones; "" is the last."""
    found: dict[str, list[tuple[str, str]]] = {}
    lines: list[tuple[str, str]] = []
    for word, rest in instructions():
        if word == "FROM":
            parent, _, name = rest.partition(" AS ")
            lines = list(found.get(parent, ()))
            found[name] = lines
        lines.append((word, rest))
    return found


def final_stage() -> list[tuple[str, str]]:
    return stages()[""]


def composition() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return services


def declared(part: str) -> dict[str, Any]:
    """What the composition declares beside its services: `networks`, `volumes`."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())[part]
    return found


def compose() -> dict[str, Any]:
    return composition()["whisper-1"]


def seconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(s|m)", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


def environment() -> dict[str, str]:
    """Settings that the image and the composition give."""
    image = dict(re.findall(rf"({PREFIX}\w+)=(\S+)", " ".join(rest for word, rest in final_stage() if word == "ENV")))
    return image | SETTINGS


FIXED = {
    "host": "the image's: all addresses of the container",
    "port": "the balancer, the health checks and Prometheus name it",
    "download_dir": "the image's: the volume is mounted there",
    "drain_notice_seconds": "fitted to the balancer's check",
    "drain_accept_seconds": "fitted to the balancer's check",
    "drain_seconds": "fitted to stop_grace_period",
}
"""Settings that are nobody's to choose in the composition, and why."""


def test_the_composition_passes_every_setting_on_but_those_that_are_fixed() -> None:
    for name in Settings.model_fields:
        variable = f"{PREFIX}{name.upper()}"
        value = compose()["environment"].get(variable, "not passed")
        if name in FIXED:
            assert value == "not passed" or "$" not in value, variable
        else:
            assert value is None or value.startswith(f"${{{variable}:-"), variable
    assert set(FIXED) <= set(Settings.model_fields)


def test_r42_the_image_runs_without_root() -> None:
    (user,) = [rest for word, rest in final_stage() if word == "USER"]
    assert user == "10001:10001" == compose()["user"]
    assert [word for word, _ in final_stage()].index("USER") < [word for word, _ in final_stage()].index("CMD")


def test_the_final_stages_install_nothing() -> None:
    for name in ("", "cpu", "cuda"):
        for word, rest in stages()[name]:
            if word == "RUN" and not (name == "cuda" and rest.startswith("command -v cc ")):
                assert not re.search(r"\b(apt|apt-get|pip|curl|wget|gcc|build-essential)\b", rest), rest
    assert all("apt" not in rest.split() for _, rest in instructions())


def test_the_last_stage_is_the_cpu_image() -> None:
    assert final_stage()[:-1] == stages()["cpu"]
    cpu, cuda = ({rest for _, rest in stages()[name]} for name in ("cpu", "cuda"))
    assert {line for line in cuda - cpu if "NVIDIA" not in line and not line.startswith("command -v cc ")} == {
        "runtime AS cuda",
        "0",
        "--from=build-cuda /app/.venv /app/.venv",
    }


def test_the_cuda_image_has_what_triton_needs_and_no_root_when_it_runs() -> None:
    cuda = stages()["cuda"]
    (compiler,) = [rest for word, rest in cuda if word == "RUN" and "gcc" in rest]
    assert " gcc libc6-dev " in compiler
    assert [rest for word, rest in cuda if word == "USER"][-1] == "10001:10001"
    (cache,) = re.findall(r"TRITON_CACHE_DIR=(\S+)", " ".join(rest for _, rest in cuda))
    # A volume, so that compiled programs may be loaded from there, and its owner is who runs the service.
    assert any(mount.split(":")[1] == str(Path(cache).parent) for mount in compose()["volumes"])
    assert any(f"chown 10001:10001 {Path(cache).parent}" in rest for _, rest in cuda)


def test_the_base_is_pinned_by_digest() -> None:
    (base,) = [rest for word, rest in instructions() if word == "ARG" and rest.startswith("PYTHON_IMAGE")]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.11-slim@sha256:[0-9a-f]{64}", base)


def test_dependencies_come_from_the_hashed_locks_only() -> None:
    for build in ("cpu", "cuda"):
        compiler, run = [rest for word, rest in stages()[f"build-{build}"] if word == "RUN"]
        assert compiler.startswith("command -v cc ")
        assert run.startswith(f"TORCH_BUILD={build} ")
        assert run.endswith(" deploy/install.sh image")
    for line in (ROOT / "deploy/install.sh").read_text().splitlines():
        if (
            re.search(r"\bpip install\b", line)
            and "uv" not in line
            and not re.search(r"(--editable|isolation) \.", line)
        ):
            assert "--no-deps --require-hashes" in line, line


def test_whatever_is_copied_is_there_and_reaches_the_build() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        source
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / source).exists() for source in copied)


def image_check() -> list[str]:
    """The command of the image's own health check."""
    (check,) = [rest for word, rest in final_stage() if word == "HEALTHCHECK"]
    command: list[str] = json.loads(check[check.index("CMD") + 4 :])
    return command


def test_the_health_check_asks_livez_and_the_command_starts_the_service() -> None:
    assert image_check()[:2] == ["python", "-c"]
    assert "/livez" in image_check()[2]
    assert [json.loads(rest) for word, rest in final_stage() if word == "CMD"] == [["python", "-m", "service"]]


@pytest.mark.parametrize("name", composition())
def test_r42_the_composition_is_locked_down(name: str) -> None:
    service = composition()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert int(service["pids_limit"]) > 0
    assert service["stop_grace_period"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_a_replica_fits_its_memory_at_its_worst() -> None:
    settings = Settings(**{name.removeprefix(PREFIX).lower(): value for name, value in environment().items()})
    # docs/operations.md, "What a machine needs": a worker in float32, the other processes at rest, what they may take.
    processes = 1.8e9 + (1 + settings.audio_children) * 0.1e9
    recordings = settings.max_queue_upload_bytes + 64_000 * settings.max_queue_audio_seconds
    decoding = settings.audio_children * settings.audio_child_memory_bytes
    (tmp,) = re.findall(r"size=(\d+)m", " ".join(compose()["tmpfs"]))
    assert processes + recordings + decoding + int(tmp) * 2**20 <= int(compose()["mem_limit"].removesuffix("g")) * 2**30


def test_replicas_are_alike_and_reached_through_the_balancer_alone() -> None:
    builder, other = compose(), composition()["whisper-2"]
    assert (builder.pop("build"), other.pop("pull_policy")) == (".", "never")
    assert builder == other
    assert "ports" not in compose()
    assert compose()["networks"] == ["inside"]
    assert declared("networks")["inside"] == {"internal": True}
    assert [entry for entry in compose()["tmpfs"] if entry.startswith("/tmp:") and "size=64m" in entry]


def test_balancer_and_prometheus_name_the_replicas() -> None:
    replicas = [f"{name}:8000" for name in composition() if name.startswith("whisper")]
    balancer = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
    assert re.findall(r"presetenv REPLICA_\d (\S+)", balancer) == replicas
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    assert targets == {"whisper": replicas, "balancer": ["balancer:8405"]}
    assert "http://prometheus:9090" in (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text()


def test_every_mounted_file_is_there() -> None:
    mounted = [volume for service in composition().values() for volume in service.get("volumes", ())]
    files = [volume for volume in mounted if volume.startswith("./")]
    assert len(files) == 4
    assert all((ROOT / volume.split(":")[0]).exists() and volume.endswith(":ro") for volume in files)


def test_the_gpu_override_changes_replicas_only() -> None:
    override = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())["services"]
    assert set(override) == {"whisper-1", "whisper-2"}
    assert override["whisper-1"].pop("build") == {"context": ".", "target": "cuda"}
    gpus = []
    for service in override.values():
        assert set(service) == {"image", "mem_limit", "deploy"}
        assert int(service["mem_limit"].removesuffix("g")) > int(compose()["mem_limit"].removesuffix("g"))
        assert service["image"] == override["whisper-1"]["image"] != compose()["image"]
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        gpus += device["device_ids"]
    assert len(set(gpus)) == len(gpus) == 2


@pytest.mark.parametrize("name", composition())
def test_every_image_is_built_here_once_or_of_a_named_version(name: str) -> None:
    service = composition()[name]
    # Two builds that tag one image for the first time, side by side, fail.
    builders = [one for one in composition().values() if "build" in one and one["image"] == service["image"]]
    if builders:
        assert len(builders) == 1
        assert ":" not in service["image"]
    else:
        assert re.search(r":v?\d+\.\d[\d.]*(@sha256:[0-9a-f]{64})?$", service["image"])


def test_replicas_get_the_keys_that_the_operator_has_and_git_gets_none() -> None:
    for name in ("whisper-1", "whisper-2"):
        assert (
            composition()[name]["environment"][f"{PREFIX}API_KEYS"] is None
        )  # Compose passes it on, or leaves it unset
    assert {"/.env", "/deploy/prometheus/key"} <= set((ROOT / ".gitignore").read_text().splitlines())


def test_services_use_all_that_is_declared_and_nothing_else() -> None:
    services = composition().values()
    mounted = [volume.split(":")[0] for service in services for volume in service.get("volumes", ())]
    assert {name for name in mounted if not name.startswith("./")} == set(declared("volumes"))
    assert {name for service in services for name in service["networks"]} == set(declared("networks"))
    assert {name for service in services for name in service.get("depends_on", ())} <= set(composition())


def test_a_replica_is_healthy_when_it_is_ready() -> None:
    check = compose()["healthcheck"]
    assert check["test"][:3] == ["CMD", "python", "-c"]
    assert f"http://127.0.0.1:{Settings().port}/readyz" in check["test"][3]
    patience = int(re.findall(r"timeout=(\d+)", check["test"][3])[0])
    assert patience < seconds(check["timeout"]) <= seconds(check["interval"]) < seconds(check["start_period"])


@pytest.mark.parametrize("status", [200, 503])
def test_health_checks_tell_200_from_503_and_ask_no_proxy(status: int) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{server.server_port}"
        nowhere = {"http_proxy": "http://127.0.0.1:9", "WHISPER_PORT": str(server.server_port)}
        for code in (image_check()[2], compose()["healthcheck"]["test"][3].replace("127.0.0.1:8000", place)):
            run = subprocess.run([sys.executable, "-c", code], env=nowhere, capture_output=True, text=True, check=False)
            assert (run.returncode == 0) is (status == 200), run.stderr
        server.shutdown()


def test_published_ports_are_those_that_the_programs_listen_on() -> None:
    published = {name: service["ports"] for name, service in composition().items() if "ports" in service}
    (door,) = re.findall(r'presetenv BALANCER_BIND ":(\d+)"', (ROOT / "deploy/haproxy/haproxy.cfg").read_text())
    assert published == {
        "balancer": [f"127.0.0.1:{door}:{door}"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    assert all("outside" in composition()[name]["networks"] for name in published)


def inside(name: str, path: str) -> Path:
    """The file of this repository that a service sees at a path."""
    for volume in composition()[name]["volumes"]:
        source, target, *_ = volume.split(":")
        if source.startswith("./") and Path(path).is_relative_to(target):
            return ROOT / source / Path(path).relative_to(target)
    raise AssertionError(f"nothing is mounted at {path}")


def test_programs_find_their_configuration_where_it_is_mounted() -> None:
    assert inside("balancer", "/usr/local/etc/haproxy/haproxy.cfg").samefile(ROOT / "deploy/haproxy/haproxy.cfg")
    prometheus, grafana = composition()["prometheus"], composition()["grafana"]
    (configuration,) = [word for word in prometheus["command"] if word.startswith("--config.file=")]
    assert inside("prometheus", configuration.partition("=")[2]).is_file()
    (store,) = [word for word in prometheus["command"] if word.startswith("--storage.tsdb.path=")]
    assert f"metrics:{store.partition('=')[2]}" in prometheus["volumes"]
    provider = inside("grafana", "/etc/grafana/provisioning/dashboards/whisper.yml")
    (folder,) = [one["options"]["path"] for one in yaml.safe_load(provider.read_text())["providers"]]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert inside("grafana", home).parent.samefile(inside("grafana", folder))
    assert json.loads(inside("grafana", home).read_text())["uid"] == "whisper"
    assert inside("grafana", "/etc/grafana/provisioning/datasources/prometheus.yml").is_file()


def test_the_balancer_is_more_patient_than_the_service() -> None:
    text = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
    timeouts = {name: int(value) for name, value in re.findall(r"(?m)^    timeout (\S+) (\d+)s$", text)}
    settings = Settings()
    assert timeouts["client"] > settings.upload_seconds
    assert timeouts["server"] > settings.request_timeout_seconds + 3  # the service lingers over a refused body
    (check,) = re.findall(r"check inter (\d+)ms fastinter (\d+)ms fall (\d+)", text)
    inter, fast, fall = map(int, check)
    noticed = (inter + fast * (fall - 1)) / 1000
    assert float(environment()[f"{PREFIX}DRAIN_ACCEPT_SECONDS"]) > 2 * noticed


@pytest.mark.parametrize("name", ["whisper-1", "balancer"])
def test_docker_waits_longer_than_the_service_drains(name: str) -> None:
    drain = Settings.model_fields["drain_seconds"].default
    patience = seconds(composition()[name]["stop_grace_period"])
    assert patience > float(environment().get(f"{PREFIX}DRAIN_SECONDS", drain)) + 2


def test_every_setting_in_the_container_files_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        assert name.removeprefix(PREFIX).lower() in Settings.model_fields, name
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.host == "0.0.0.0"
    exposed = next(rest for word, rest in final_stage() if word == "EXPOSE")
    assert int(exposed) == settings.port == 8000

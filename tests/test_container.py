"""The Dockerfile and docker-compose.yml are hardened as promised (R42) and true to the code; they are read, not run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, continuation lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text())
    text = re.sub(r"\s*\\\n\s*", " ", text)
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def final_stage() -> list[tuple[str, str]]:
    lines = instructions()
    start = max(index for index, (word, _) in enumerate(lines) if word == "FROM")
    return lines[start:]


def compose() -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["whisper"]
    return service


def seconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(s|m)", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


def environment() -> dict[str, str]:
    """Settings that the image and the composition give."""
    image = dict(re.findall(rf"({PREFIX}\w+)=(\S+)", " ".join(rest for word, rest in final_stage() if word == "ENV")))
    return image | compose()["environment"]


def test_the_image_runs_without_root() -> None:
    (user,) = [rest for word, rest in final_stage() if word == "USER"]
    assert user == "10001:10001" == compose()["user"]
    assert [word for word, _ in final_stage()].index("USER") < [word for word, _ in final_stage()].index("CMD")


def test_the_final_stage_installs_nothing() -> None:
    assert len([1 for word, _ in instructions() if word == "FROM"]) == 2
    for _, rest in final_stage():
        assert not re.search(r"\b(apt|apt-get|pip|curl|wget|gcc|build-essential)\b", rest), rest
    assert all("apt" not in rest.split() for _, rest in instructions())


def test_dependencies_come_from_the_hashed_locks_only() -> None:
    runs = " ".join(rest for word, rest in instructions() if word == "RUN")
    assert "deploy/install.sh dependencies" in runs
    assert re.findall(r"pip install ([^&]+)", runs) == ["--quiet --no-deps --no-build-isolation . "]
    for line in (ROOT / "deploy/install.sh").read_text().splitlines():
        if re.search(r"\bpip install\b", line) and "uv" not in line and "--editable ." not in line:
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


def test_the_health_check_asks_livez_and_the_command_starts_the_service() -> None:
    (check,) = [rest for word, rest in final_stage() if word == "HEALTHCHECK"]
    command = json.loads(check[check.index("CMD") + 4 :])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")
    assert "/livez" in command[2]
    assert [json.loads(rest) for word, rest in final_stage() if word == "CMD"] == [["python", "-m", "service"]]


def test_the_composition_is_locked_down() -> None:
    service = compose()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [entry for entry in service["tmpfs"] if entry.startswith("/tmp:") and "size=64m" in entry]
    assert service["mem_limit"]
    assert int(service["pids_limit"]) > 0
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_docker_waits_longer_than_the_service_drains() -> None:
    drain = Settings.model_fields["drain_seconds"].default
    assert seconds(compose()["stop_grace_period"]) > float(environment().get(f"{PREFIX}DRAIN_SECONDS", drain)) + 2


def test_every_setting_in_the_container_files_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        assert name.removeprefix(PREFIX).lower() in Settings.model_fields, name
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.host == "0.0.0.0"
    exposed = next(rest for word, rest in final_stage() if word == "EXPOSE")
    assert int(exposed) == settings.port == int(compose()["ports"][0].rsplit(":", 1)[1])

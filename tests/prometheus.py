"""A real Prometheus on loopback with the shipped configuration, its targets and its pace exchanged."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.balancers import free_ports, program
from tests.serving import ROOT, wait_until

CONFIGURATION = ROOT / "deploy/prometheus"


class Prometheus:
    """Scrapes once a second what the shipped jobs name, at the ports given for each; stops with its `with` block."""

    def __init__(self, targets: dict[str, list[int]]) -> None:
        (self.port,) = free_ports(1)
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(self._configuration(targets)))
        for name in ("rules.yml", "alerts.yml"):
            (folder / name).write_text((CONFIGURATION / name).read_text())
        self._log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [
                program("prometheus") or "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip

    @staticmethod
    def _configuration(targets: dict[str, list[int]]) -> dict[str, Any]:
        configuration: dict[str, Any] = yaml.safe_load((CONFIGURATION / "prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        jobs = configuration["scrape_configs"]
        assert {job["job_name"] for job in jobs} == set(targets)
        for job in jobs:
            job["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in targets[job["job_name"]]]}]
        return configuration

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its API."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        reply = httpx.get(url, params=parameters, trust_env=False, timeout=10)
        assert reply.status_code == 200, reply.text
        return reply.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query's series."""
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result

    def wait_scraping(self, seconds: float = 20.0) -> None:
        """Until every target has been scraped well."""

        def scraping() -> bool:
            assert self.process.poll() is None, Path(self._log.name).read_text()
            try:
                targets = self.get("targets")["activeTargets"]
            except (httpx.HTTPError, AssertionError):
                return False
            return bool(targets) and all(target["health"] == "up" for target in targets)

        wait_until(scraping, seconds)

    def __enter__(self) -> "Prometheus":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self._log.close()
        self._folder.cleanup()

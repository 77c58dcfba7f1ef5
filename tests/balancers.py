"""Real load balancers on loopback in front of replicas, as processes of a test: HAProxy as shipped, nginx to compare.

Ports are chosen by the kernel and freed before the program takes them: a replica that is restarted must come back on
the port that the balancer knows.
"""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx

from tests.serving import ROOT, wait_until

_TOLD = 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;'
"""What nginx is told of answers, but for `nginx-default`."""
NGINX = """
daemon off; master_process off; worker_processes 1; error_log stderr error; pid {folder}/nginx.pid;
events {{ worker_connections 2000; }}
http {{
    access_log off; client_max_body_size 0; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    client_header_timeout 15s; client_body_timeout 75s; lingering_close always; lingering_time 10s;
    upstream replicas {{ least_conn; {servers} }}
    server {{
        listen {bind};
        location / {{
            proxy_pass http://replicas; {told}
            proxy_request_buffering {buffering};
            proxy_connect_timeout 2s; proxy_read_timeout 930s; proxy_send_timeout 75s;
            proxy_next_upstream error http_503 non_idempotent; proxy_next_upstream_tries 2;
        }}
    }}
}}
"""


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def program(name: str) -> str | None:
    """Where a program is, also where only root's PATH looks."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


class Balancer:
    """A balancer process in front of replicas' ports; stops with its `with` block."""

    def __init__(self, kind: str, replicas: Sequence[int]) -> None:
        self.port, self.metrics_port = free_ports(2)
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self._log = (self.folder / "log").open("w+")
        command, variables = self._haproxy(replicas) if kind == "haproxy" else self._nginx(kind, replicas)
        self.process = subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )

    def _haproxy(self, replicas: Sequence[int]) -> tuple[list[str], dict[str, str]]:
        command = [program("haproxy") or "haproxy", "-db", "-f", str(ROOT / "deploy/haproxy/haproxy.cfg")]
        variables = {f"REPLICA_{number}": f"127.0.0.1:{port}" for number, port in enumerate(replicas, 1)}
        variables["BALANCER_BIND"] = f"127.0.0.1:{self.port}"
        variables["BALANCER_METRICS_BIND"] = f"127.0.0.1:{self.metrics_port}"
        return command, variables

    def _nginx(self, kind: str, replicas: Sequence[int]) -> tuple[list[str], dict[str, str]]:
        text = NGINX.format(
            folder=self.folder,
            bind=f"127.0.0.1:{self.port}",
            servers=" ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in replicas),
            told="" if kind == "nginx-default" else _TOLD,
            buffering="off" if kind == "nginx-unbuffered" else "on",
        )
        (self.folder / "nginx.conf").write_text(text)
        return [program("nginx") or "nginx", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")], {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait_ready(self, seconds: float = 15.0) -> None:
        """Until a replica answers through it."""

        def ready() -> bool:
            assert self.process.poll() is None, self.log()
            try:
                return httpx.get(f"{self.url}/readyz", trust_env=False, timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(ready, seconds)

    def __enter__(self) -> "Balancer":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self._log.close()
        self._folder.cleanup()

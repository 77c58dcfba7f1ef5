"""The HTTP process holds neither tensors nor codecs: it stays small, starts fast, and decodes nothing itself."""

import subprocess
import sys

import pytest

from tests.serving import ROOT

HEAVY = ("torch", "numpy", "soundfile", "soxr", "av", "tiktoken", "safetensors")


@pytest.mark.parametrize(
    "module",
    [
        "service.http.app",
        "service.http.server",
        "service.children.worker_pool",
        "service.children.audio_pool",
        "service.__main__",
    ],
)
def test_the_http_process_is_light(module):
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == ""


def test_nothing_hides_the_disconnect():
    for path in (ROOT / "service").rglob("*.py"):
        words = path.read_text().replace("`BaseHTTPMiddleware`", "")
        assert "BaseHTTPMiddleware" not in words, path
        assert "@app.middleware" not in words, path


def test_one_module_reads_the_environment():
    for path in (ROOT / "service").rglob("*.py"):
        if path.name != "environment.py":  # a child may set what its libraries read
            words = path.read_text().replace("os.environ.setdefault(", "")
            assert "os.environ" not in words, path
            assert "getenv" not in words, path

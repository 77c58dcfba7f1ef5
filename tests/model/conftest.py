"""The compiled decoder: every variant that this CPU can run."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from model.native.library import VARIANTS, cpu_capability, load_library

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all variants, compiled from the source as it is now."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("native")
    subprocess.run([ROOT / "deploy" / "native.sh", folder], check=True)
    return folder


@pytest.fixture(scope="session", params=["generic", "avx2", "avx512", "avx512vnni", "amx"])
def library(request: pytest.FixtureRequest, compiled: Path) -> ctypes.CDLL:
    variant = request.param
    if variant not in VARIANTS.get(cpu_capability(), ("generic",)):
        pytest.skip(f"this CPU has no {variant}")
    capability = {"generic": "DEFAULT", "amx": "AVX512AMX"}.get(variant, variant.upper())
    loaded = load_library(compiled, capability)
    assert loaded is not None
    assert loaded._name.endswith(f"decoder-{variant}.so")
    return loaded

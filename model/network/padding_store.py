"""What was learned of the padding, kept in the user's cache: ten passes of the encoder that the next start saves.

Gets a `Padding` from `model.network.padding` and gives it back to whoever starts with the same weights, code, torch and
CPU. A file that is missing, damaged or of another shape is learned anew; a folder that cannot be written to is no
fault.
"""

import hashlib
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from model.compute import has_vnni
from model.errors import WeightsError
from model.network.padding import Padding, probe_positions
from model.network.whisper import Whisper
from model.weights import cache_folder

_PACKAGE = Path(__file__).parents[1]
_SOURCES = ("**/*.py", "native/*.so", "assets/speech.npz")
_KEPT = 4
"""Files that stay in the folder, the newest: 20 MB each for base, 250 MB for large-v3."""
_BEGUN = ".padding-"
_WRITING_SECONDS = 600.0
"""A file that was begun and not touched for so long is nobody's any more: its writer was killed."""


class PaddingStore:
    """One file, named by the model's tensors and by all that its numbers come from."""

    def __init__(self, folder: Path, model: Whisper, sha256: str) -> None:
        """`sha256`: of the weights of `model`, which has the arithmetic already that it will be used in."""
        n_layer, n_ctx, n_state = model.dims.n_audio_layer, model.dims.n_audio_ctx, model.dims.n_audio_state
        self._form = {
            "keys_values": ((n_layer, n_ctx, 2 * n_state), np.float16),
            "features": ((n_ctx, n_state), np.float16),
            "covariances": ((2 * n_layer + 1, n_ctx, len(probe_positions(n_ctx))), np.float16),
            "first": ((), np.int64),
        }
        self._path = folder / f"padding-{_key(model, sha256)}.npz"

    def read(self) -> Padding | None:
        """What was kept; None if nothing was, or if its checksums or shapes are wrong.

        What killed writers left behind goes: here, since a start that finds its file writes none.
        """
        self._sweep()
        try:
            with self._path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in self._form}
        except Exception:  # a damaged archive raises what it likes: OSError, BadZipFile, RuntimeError, ...
            return None
        if {name: (array.shape, array.dtype) for name, array in arrays.items()} != self._form:
            return None
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items() if array.ndim}
        return Padding(**tensors, first=int(arrays["first"]))

    def write(self, padding: Padding) -> None:
        """Keep it: whole or not at all, also when several workers start at once."""
        arrays = {name: np.asarray(getattr(padding, name)) for name in self._form}
        folder = self._path.parent
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(prefix=_BEGUN, dir=folder)
            try:
                with os.fdopen(number, "wb") as file:
                    np.savez(file, allow_pickle=False, **arrays)
                Path(name).replace(self._path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            files = sorted(folder.glob("padding-*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)
            for old in files[_KEPT:]:
                old.unlink(missing_ok=True)

    def _sweep(self) -> None:
        with suppress(OSError):  # another start does the same, or the folder is not ours
            for path in self._path.parent.glob(f"{_BEGUN}*"):
                if time.time() - path.stat().st_mtime > _WRITING_SECONDS:
                    path.unlink()


def _key(model: Whisper, sha256: str) -> str:
    """A hash of the weights, the arithmetic, this package's code, and what torch runs it with."""
    cpu = torch.backends.cpu.get_cpu_capability()
    facts = (
        sha256, model.compute_type, model.dtype, torch.__version__, cpu, has_vnni(), torch.get_num_threads()
    )  # fmt: skip
    digest = hashlib.sha256(repr(facts).encode())
    for pattern in _SOURCES:
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def learned_folder(download_dir: Path | None) -> Path | None:
    """Where files like this one go: beside the downloaded weights; None for a user without a home."""
    try:
        return cache_folder(download_dir)
    except WeightsError:
        return None

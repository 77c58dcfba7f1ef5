"""A folder of recordings with references: `manifest.jsonl` (an object a line) or `manifest.json` (a list), and audio.

Each entry has `file` (relative to the folder), `language` (Whisper code or null), `text` (null: no reference, "":
nobody speaks), `translation` (English or null), `kind` and `seconds`; perhaps `ref_origin` (`Clip.origin`). Other
fields are for people.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPEECH = ("read", "spontaneous", "longform", "digits", "format")
"""Kinds in which somebody speaks."""
NO_SPEECH = "nospeech"
SKIPPED = "hostile"
"""Files that are there to be refused; the fault tests use them, an evaluation does not."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording and what is known about it."""

    file: str
    path: Path
    language: str | None
    text: str | None
    translation: str | None
    kind: str
    seconds: float
    origin: str = "source"
    """Of the text: `source` where it came with the recording; else whoever made the corpus wrote it by ear."""


def read_corpus(
    folder: Path, *, kinds: Collection[str] = (), languages: Collection[str] = (), limit: int | None = None
) -> list[Clip]:
    """The folder's clips without the hostile ones; empty filters let everything through.

    Raises ValueError where the folder has no manifest, or the filters leave nothing.
    """
    clips = [
        _clip(folder, entry)
        for entry in _entries(folder)
        if entry["kind"] != SKIPPED
        and (not kinds or entry["kind"] in kinds)
        and (not languages or entry["language"] in languages)
    ]
    if not clips:
        raise ValueError(f"no clip of {folder} passes the filters")
    return clips[:limit]


def _entries(folder: Path) -> Iterator[dict[str, Any]]:
    lines, whole = folder / "manifest.jsonl", folder / "manifest.json"
    if lines.exists():
        yield from (json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines() if line.strip())
    elif whole.exists():
        yield from json.loads(whole.read_text(encoding="utf-8"))
    else:
        raise ValueError(f"{folder} has neither manifest.jsonl nor manifest.json")


def _clip(folder: Path, entry: dict[str, Any]) -> Clip:
    return Clip(
        file=entry["file"],
        path=folder / entry["file"],
        language=entry["language"],
        text=entry["text"],
        translation=entry.get("translation"),
        kind=entry["kind"],
        seconds=float(entry["seconds"]),
        origin=entry.get("ref_origin") or "source",
    )

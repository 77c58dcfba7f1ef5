"""A bill of materials of the image's Python packages: `python -m deploy.sbom cpu` prints CycloneDX 1.6 as JSON.

Read from the locks, which decide what the image installs, so it needs no network and no environment, and is the same
each time. The packages of Debian in the base image are not in it: a scanner of images reads those.
"""

import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

from service import __version__

LOCKS = Path(__file__).resolve().parent.parent / "requirements"
_ENTRY = re.compile(
    r"(?m)^([a-z0-9._-]+)==([^ ;\\\s]+)(?: ; ([^\\\n]+?))? *\\?\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n?)+)"
)


def components(build: str) -> list[dict[str, Any]]:
    """What is installed for a build of torch (`cpu` or `cuda`), by name; each with the hashes that the lock allows."""
    found: dict[str, dict[str, Any]] = {}
    for lock in ("base", "weights", "tracing", f"torch-{build}"):
        for name, version, marker, hashes in _ENTRY.findall((LOCKS / f"{lock}.txt").read_text()):
            properties = [
                {"name": "lock:sha256", "value": value} for value in sorted(re.findall(r"[0-9a-f]{64}", hashes))
            ]
            if marker:
                properties.append({"name": "lock:marker", "value": marker})
            # A local version (+cpu) says how it was built; in a package URL the plus sign is escaped.
            purl = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
            found[name] = {
                "type": "library",
                "bom-ref": purl,
                "name": name,
                "version": version,
                "purl": purl,
                "properties": properties,
            }
    return [found[name] for name in sorted(found)]


def bill(build: str) -> dict[str, Any]:
    """The document; its serial number follows from its content."""
    parts = components(build)
    content = " ".join(part["bom-ref"] for part in parts)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "whisper-service",
                "name": "whisper-service",
                "version": __version__,
                "licenses": [{"license": {"id": "MIT"}}],
            }
        },
        "components": parts,
        "dependencies": [{"ref": "whisper-service", "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def main() -> None:
    """Print the bill of the build that is named, of the CPU's otherwise."""
    build = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    if build not in ("cpu", "cuda"):
        sys.exit("usage: python -m deploy.sbom [cpu|cuda]")
    print(json.dumps(bill(build), indent=1))


if __name__ == "__main__":
    main()

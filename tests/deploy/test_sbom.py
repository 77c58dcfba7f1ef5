"""R42: the bill of materials builds from the locks and leaves none of their packages out."""

import re
import subprocess
import sys

import pytest

from deploy.sbom import LOCKS, bill
from tests.serving import ROOT


@pytest.mark.parametrize("build", ["cpu", "cuda"])
def test_r42_the_bill_holds_every_package_that_the_image_installs(build: str) -> None:
    document = bill(build)
    listed = {(part["name"], part["version"]) for part in document["components"]}
    for lock in ("base", "weights", "tracing", f"torch-{build}"):
        locked = set(re.findall(r"(?m)^([a-z0-9._-]+)==([^ ;\\\s]+)", (LOCKS / f"{lock}.txt").read_text()))
        assert locked
        assert locked <= listed
    references = [part["bom-ref"] for part in document["components"]]
    assert len(set(references)) == len(references) == len(document["dependencies"][0]["dependsOn"])
    for part in document["components"]:
        assert re.fullmatch(r"pkg:pypi/[a-z0-9._-]+@[A-Za-z0-9.%-]+", part["purl"])
        assert any(entry["name"] == "lock:sha256" for entry in part["properties"])


def test_r42_the_bill_is_the_same_each_time() -> None:
    runs = [
        subprocess.run([sys.executable, "-m", "deploy.sbom"], cwd=ROOT, capture_output=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]

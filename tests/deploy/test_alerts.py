"""The rules pass their own unit tests, and every alert is tested and explained."""

import re
import subprocess

import pytest
import yaml

from tests.balancers import program
from tests.prometheus import CONFIGURATION
from tests.serving import ROOT

ALERTS = [
    rule for group in yaml.safe_load((CONFIGURATION / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]


@pytest.mark.skipif(
    program("promtool") is None, reason="promtool is not installed (Debian, Ubuntu: apt install prometheus)"
)
@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "rules.yml", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_promtool_is_content(command: list[str]) -> None:
    run = subprocess.run(
        [program("promtool") or "", *command],
        cwd=CONFIGURATION,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_alert_is_tested_firing_and_silent() -> None:
    broken, good = yaml.safe_load((CONFIGURATION / "alerts_test.yml").read_text())["tests"]
    fires = {test["alertname"] for test in broken["alert_rule_test"] if test["exp_alerts"]}
    silent = {test["alertname"] for test in good["alert_rule_test"] if not test["exp_alerts"]}
    assert fires == silent == {alert["alert"] for alert in ALERTS}


def test_every_alert_leads_to_its_section_of_the_guide() -> None:
    headings = re.findall(r"(?m)^#+ (.+)$", (ROOT / "docs/operations.md").read_text())
    for alert in ALERTS:
        assert alert["annotations"]["runbook"] == f"docs/operations.md#{alert['alert'].lower()}"
        assert alert["alert"] in headings
        assert alert["labels"]["severity"] in {"warning", "critical"}

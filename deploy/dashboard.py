"""The Grafana dashboard as code: `python -m deploy.dashboard` writes deploy/grafana/dashboards/whisper.json.

What it shows is in `deploy.panels`; here is how Grafana wants it. `tests/deploy/test_dashboard.py` compares the file
with this.
"""

import json
from pathlib import Path
from typing import Any

from deploy.panels import ROWS, Panel

TARGET = Path(__file__).resolve().parent / "grafana/dashboards/whisper.json"
_COLUMNS, _WIDTH, _HEIGHT = 24, 8, 8
_SOURCE = {"type": "prometheus", "uid": "prometheus"}


def _graph(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    targets = [
        {"refId": chr(65 + index), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
        for index, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.tells,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": y, "w": _COLUMNS, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": place, "panels": []})
        y += 1
        per_line = _COLUMNS // _WIDTH
        for index, panel in enumerate(row):
            x, line = index % per_line * _WIDTH, index // per_line
            panels.append(_graph(panel, len(panels) + 1, x, y + line * _HEIGHT))
        y += -(-len(row) // per_line) * _HEIGHT
    return panels


def dashboard() -> dict[str, Any]:
    """The whole dashboard, as Grafana stores it."""
    instance = {
        "name": "instance",
        "label": "Replica",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(whisper_build_info, instance)", "refId": "instance"},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    return {
        "uid": "whisper",
        "title": "Whisper",
        "tags": ["whisper"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [instance]},
        "annotations": {"list": []},
        "panels": _panels(),
    }


def rendered() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(rendered())

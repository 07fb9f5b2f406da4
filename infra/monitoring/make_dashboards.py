"""`python infra/monitoring/make_dashboards.py`: write Grafana's dashboards from the tables beside it.

`tests/test_infra_monitoring.py` says when a file is out of date, and runs every query on a real Prometheus.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from infra.monitoring.jobs import PACKING, SWEEPS
from infra.monitoring.panel import Dashboard, Panel
from infra.monitoring.serving import SERVING
from infra.monitoring.training import TRAINING

FOLDER = Path(__file__).parent / "dashboards"
COLUMNS, HEIGHT = 24, 8
SOURCE = {"type": "prometheus", "uid": "${source}"}

DASHBOARDS = (TRAINING, PACKING, SWEEPS, SERVING)


def make_page(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana 10 and later read it."""
    return {
        "uid": f"shardline-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["shardline"],
        "schemaVersion": 38,
        "editable": False,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": list(_make_variables(dashboard))},
        "panels": list(_place(dashboard.panels)),
    }


def _make_variables(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    yield {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    yield {
        "name": dashboard.tag,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({dashboard.listed_by}, {dashboard.tag})", "refId": dashboard.tag},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _place(panels: tuple[Panel, ...]) -> Iterator[dict[str, Any]]:
    """Yield panels from the left to the right, line by line."""
    x = y = 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > COLUMNS:
            x, y = 0, y + HEIGHT
        place = {"x": x, "y": y, "w": panel.width, "h": HEIGHT}
        yield {"id": number, "gridPos": place, **_draw(panel)}
        x += panel.width


def _draw(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def make_pages() -> dict[Path, str]:
    """Return the text of each dashboard's file."""
    return {FOLDER / f"{each.name}.json": json.dumps(make_page(each), indent=2) + "\n" for each in DASHBOARDS}


def main() -> int:
    for path, text in make_pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

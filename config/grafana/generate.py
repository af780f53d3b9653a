"""Write `replicator.json`, the Grafana dashboard, from the rows below; `--check`: exit with 1 when it is another one.

Every metric that is drawn exists: tests compare the queries with what a worker registers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("replicator.json")
_OF = '{rule=~"$rule", region=~"$region"}'
_P99 = '{rule=~"$rule", region=~"$region", quantile="0.99"}'
_WIDTH, _HEIGHT = 24, 8

Panel = tuple[str, str, str, dict[str, str]]
"""Title, unit, what it shows, and queries by legend."""

_ROWS: list[tuple[str, list[Panel]]] = [
    (
        "What is wrong",
        [
            ("Held", "short", "Rules and targets that their world keeps from running.",
             {"{{rule}} {{region}} {{cause}}": f"max by (rule, region, cause) (replicator_rule_held{_OF})"}),
            ("Blocked and stalled shards", "short", "Shards on which a target cannot go on.",
             {"blocked {{rule}} {{region}}": f"sum by (rule, region) (replicator_blocked_targets{_OF})",
              "stalled {{rule}} {{region}}": f"sum by (rule, region) (replicator_stalled_shards{_OF})"}),
            ("Hours until records are lost", "s", "The stream's 24 hours less the lag; 0 is a loss.",
             {"{{rule}} {{region}}": f"min by (rule, region) (replicator_retention_left_seconds{_OF})"}),
            ("Open losses", "short", "Gaps that are neither accepted nor repaired.",
             {"{{rule}} {{region}}": f"max by (rule, region) (replicator_gaps_unrepaired{_OF})"}),
        ],
    ),
    (
        "Lag and throughput",
        [
            ("Lag", "s", "At most how old the oldest change is that the target does not have.",
             {"{{rule}} {{region}}": f"max by (rule, region) (replicator_lag_seconds{_OF})"}),
            ("Canary, p99", "s", "Time from a write of the rule's canary to its arrival.",
             {"{{rule}} {{region}} {{cache}}":
                  f"max by (rule, region, cache) (replicator_canary_lag_seconds{_P99})"}),
            ("Age of the last canary", "s", "Time since the newest was written that has arrived.",
             {"{{rule}} {{region}} {{cache}}": f"max by (rule, region, cache) (replicator_canary_age_seconds{_OF})"}),
            ("Records", "ops", "Stream records done at a target.",
             {"{{rule}} {{region}}": f"sum by (rule, region) (rate(replicator_records_total{_OF}[5m]))"}),
            ("Time to apply a page, p99", "s", "From the first request to the last answer.",
             {"{{rule}} {{region}}": "histogram_quantile(0.99, sum by (rule, region, le)"
                                     f" (rate(replicator_batch_seconds_bucket{_OF}[5m])))"}),
            ("Repeated requests", "ops", "Requests that failed and were sent again, by the error's kind.",
             {"{{rule}} {{region}} {{error}}":
                  f"sum by (rule, region, error) (rate(replicator_retries_total{_OF}[5m]))"}),
        ],
    ),
    (
        "What is kept for later",
        [
            ("Parked keys", "short", "Keys and records that a target refused.",
             {"{{rule}} {{region}}": f"max by (rule, region) (replicator_parked_keys{_OF})"}),
            ("Owed keys", "short", "Keys that a region of a mesh missed.",
             {"{{rule}} {{region}}": f"max by (rule, region) (replicator_owed_keys{_OF})"}),
            ("Conflicts", "ops", "Entries of the conflict log.",
             {"{{rule}} {{region}} {{kind}}":
                  f"sum by (rule, region, kind) (rate(replicator_conflicts_total{_OF}[5m]))"}),
            ("Cache actions", "ops", "Invalidations and refreshes.",
             {"{{rule}} {{region}}": f"sum by (rule, region) (rate(replicator_cache_actions_total{_OF}[5m]))"}),
            ("Nines of caches", "short",
             "Of entries read again so long behind their actions: -log10 of those older than their table.",
             {"{{cache}} {{region}} {{horizon}}": "min by (cache, region, horizon) (replicator_cache_nines)"}),
        ],
    ),
    (
        "Workers and shards",
        [
            ("Shards", "short", "Shards that get records, and those that a worker reads.",
             {"open {{table}} {{region}}": "max by (table, region) (replicator_open_shards)",
              "owned {{table}} {{region}}": "sum by (table, region) (replicator_owned_shards)"}),
            ("Leases that were lost", "ops", "Claimed shards whose lease ended unasked.",
             {"{{instance}}": 'sum by (instance) (rate(replicator_leases_total{event="lost"}[5m]))'}),
            ("Coordination unreachable", "s", "Time since the coordination table took a heartbeat, if it refuses.",
             {"{{instance}}": "max by (instance) (replicator_coordination_unreachable_seconds)"}),
            ("Requests in flight that a replica gets", "short", "The limit that throttling leaves.",
             {"{{rule}} {{region}}": f"min by (rule, region) (replicator_request_limit{_OF})"}),
        ],
    ),
]  # fmt: skip


def _panel(number: int, panel: Panel, x: int, y: int, width: int) -> dict[str, Any]:
    title, unit, description, queries = panel
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": x, "y": y, "w": width, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend}
            for index, (legend, query) in enumerate(queries.items())
        ],
    }


def _variable(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": f"label_values(replicator_lag_seconds, {name})",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in _ROWS:
        heading = {"x": 0, "y": y, "w": _WIDTH, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": heading, "panels": []})
        y += 1
        width = _WIDTH // len(row)
        for column, panel in enumerate(row):
            panels.append(_panel(len(panels) + 1, panel, column * width, y, width))
        y += _HEIGHT
    return {
        "uid": "replicator",
        "title": "replicator",
        "tags": ["replicator"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                *map(_variable, ("rule", "region")),
            ]
        },
        "panels": panels,
    }


def main() -> int:
    """Write the file, or compare it."""
    made = json.dumps(_dashboard(), indent=2) + "\n"
    if "--check" in sys.argv[1:]:
        return 0 if _FILE.exists() and _FILE.read_text() == made else 1
    _FILE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The alert rules that are shipped: they name metrics that exist, and headings of the runbook."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicator.domain.verdict.kinds import Kind
from replicator.observability.metrics import Metrics

ROOT = Path(__file__).parents[2]
ALERTS, RECORDED = yaml.safe_load((ROOT / "config/prometheus/alerts.yaml").read_text())["groups"]
RULES: list[dict[str, Any]] = ALERTS["rules"]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "config/grafana/replicator.json").read_text())
QUERIES = [
    *(rule["expr"] for rule in RECORDED["rules"]),
    *(target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())),
    *(variable["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"),
]
_PARTS_OF_HISTOGRAMS = re.compile(r"_(bucket|sum|count)$")
NOT_MEASURED = {Kind.UNANSWERED, Kind.NOT_RUN, Kind.SERVICE, Kind.UNREADABLE}
"""Kinds of problems that `status` finds by asking; a worker's metrics do not know them one by one."""


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as a forge makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def labels() -> dict[str, set[str]]:
    """Labels by metric, of everything that is registered."""
    found = {}
    metrics = Metrics()
    parts = (metrics, metrics.writes, metrics.caches, metrics.canaries, metrics.jobs)
    for collector in (each for part in parts for each in vars(part).values()):
        if hasattr(collector, "_labelnames"):
            name = f"{collector._name}_total" if collector._type == "counter" else collector._name
            found[name] = set(collector._labelnames)
    return found


def unknown_names(query: str) -> set[str]:
    """Metrics in a query that the program does not have."""
    known = labels()
    used = set(re.findall(r"replicator_\w+", query))
    return {name if name in known else _PARTS_OF_HISTOGRAMS.sub("", name) for name in used} - known.keys()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_metrics_labels_and_a_heading_that_exist(rule: dict[str, Any]) -> None:
    known = labels()
    used = set(re.findall(r"replicator_\w+", rule["expr"]))
    assert used
    assert used <= known.keys()
    shown = set(re.findall(r"replicator_\w+", rule["expr"].partition(" unless ")[0]))
    shared = set.intersection(*(known[name] for name in shown)) | {"instance"}
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= shared
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor in anchors((ROOT / page).read_text())


def test_every_alert_has_a_reason_and_every_kind_of_problem_that_is_measured_has_an_alert() -> None:
    reasons = {rule["labels"]["reason"] for rule in RULES}
    assert all(re.fullmatch("[a-z_]+", reason) for reason in reasons)
    assert {kind.value for kind in set(Kind) - NOT_MEASURED} - reasons == set()
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("query", QUERIES)
def test_what_is_recorded_and_drawn_names_metrics_and_labels_that_exist(query: str) -> None:
    known = labels()
    used = set(re.findall(r"replicator_\w+", query))
    assert used
    assert unknown_names(query) == set()
    by = {name for names in re.findall(r"by \(([^)]*)\)", query) for name in names.split(", ")} - {"le"}
    for name in used:
        assert by <= known[_PARTS_OF_HISTOGRAMS.sub("", name) if name not in known else name] | {"instance"}, query


def test_the_dashboard_is_what_its_script_makes() -> None:
    made = subprocess.run([sys.executable, str(ROOT / "config/grafana/generate.py"), "--check"], check=False)
    assert made.returncode == 0, "run make schema"
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    assert [name for name in labels() if f"`{name}`" not in text] == []

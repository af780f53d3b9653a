"""The alert rules that are shipped: they name metrics that exist, and headings of the runbook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicator.observability.metrics import Metrics

ROOT = Path(__file__).parents[2]
RULES: list[dict[str, Any]] = yaml.safe_load((ROOT / "config/prometheus/alerts.yaml").read_text())["groups"][0]["rules"]


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as a forge makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def labels() -> dict[str, set[str]]:
    """Labels by metric, of everything that is registered."""
    found = {}
    metrics = Metrics()
    parts = (metrics, metrics.writes, metrics.caches, metrics.jobs)
    for collector in (each for part in parts for each in vars(part).values()):
        if hasattr(collector, "_labelnames"):
            name = f"{collector._name}_total" if collector._type == "counter" else collector._name
            found[name] = set(collector._labelnames)
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_metrics_labels_and_a_heading_that_exist(rule: dict[str, Any]) -> None:
    known = labels()
    used = set(re.findall(r"replicator_\w+", rule["expr"]))
    assert used
    assert used <= known.keys()
    shared = set.intersection(*(known[name] for name in used)) | {"instance"}
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= shared
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor in anchors((ROOT / page).read_text())


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    assert [name for name in labels() if f"`{name}`" not in text] == []

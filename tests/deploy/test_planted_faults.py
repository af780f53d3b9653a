"""The checks of what is deployed find a fault of each kind, planted in a copy of what they pass."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy import checks
from tests.deploy.rendering import CHART, HELM_4, ROOT, template

VERSION = "1.37.0"
FULL = "ci/full-values.yaml"
HELM = HELM_4


def values(chart: Path) -> list[str]:
    """What helm refuses before anything is installed."""
    assert HELM
    return template(HELM, values=chart / FULL, chart=chart).stderr.splitlines()


def manifests(chart: Path) -> list[str]:
    """What Kubernetes does not know."""
    assert HELM
    rendered = template(HELM, values=chart / FULL, chart=chart, kubernetes=VERSION)
    assert rendered.returncode == 0, rendered.stderr
    return checks.manifests(rendered.stdout, VERSION)


def alerts(chart: Path) -> list[str]:
    """What Prometheus refuses of the rules in the chart."""
    assert HELM
    rendered = template(HELM, values=chart / FULL, chart=chart)
    assert rendered.returncode == 0, rendered.stderr
    return checks.rules(checks.spec_text(rendered.stdout, "PrometheusRule"))


def unit(directory: Path) -> list[str]:
    """What systemd says of the unit, pointing at a program that exists on this machine."""
    path = directory / "replicator.service"
    path.write_text(path.read_text().replace("/opt/replicator/bin/replicator", sys.executable))
    return checks.unit(path)


@dataclass(frozen=True)
class Fault:
    """`right` becomes `wrong` in one file of a directory, and the check then says `found`."""

    check: Callable[[Path], list[str]]
    directory: Path
    file: str
    right: str
    wrong: str
    found: str
    needs: str | None = None
    """The program that the check runs."""


def _text(check: Callable[[str], list[str]], file: str) -> Callable[[Path], list[str]]:
    return lambda directory: check((directory / file).read_text())


_DASHBOARD = _text(checks.dashboard, "replicator.json")
_DOCKERFILE = _text(checks.dockerfile, "Dockerfile")
_TERRAFORM = _text(checks.terraform, "main.tf")
_TABLES = ROOT / "config" / "terraform" / "tables"
FAULTS = {
    "unknown value": Fault(values, CHART, FULL, "replicaCount:", "replicasCount:", "'replicasCount' not allowed", HELM),
    "wrong kind of value": Fault(values, CHART, FULL, "workers: 2", 'workers: "2"', "got string, want integer", HELM),
    "unknown key of config": Fault(values, CHART, FULL, "polling:", "pooling:", "'pooling' not allowed", HELM),
    "unknown mode of a rule": Fault(values, CHART, FULL, "mode: ordered", "mode: sorted", "value must be", HELM),
    "template that is none": Fault(
        values, CHART, "templates/service.yaml", "{{- end }}", "{{- close }}", 'function "close" not defined', HELM
    ),
    "unknown field of a workload": Fault(
        manifests, CHART, "templates/workload.yaml", "  serviceName:", "  serviceNames:", "StatefulSet: ", HELM
    ),
    "wrong kind of a field": Fault(
        manifests, CHART, "templates/service.yaml", "clusterIP: None", "clusterIP: [None]", "Service: ", HELM
    ),
    "unknown field of a budget": Fault(
        manifests, CHART, "templates/poddisruptionbudget.yaml", "maxUnav", "mostUnav", "PodDisruptionBudget: ", HELM
    ),
    "text in the place of a list": Fault(
        manifests, CHART, "templates/networkpolicy.yaml", "[Ingress, Egress]", "Egress", "NetworkPolicy: ", HELM
    ),
    "unknown field of a container": Fault(
        manifests, CHART, "templates/_parts.tpl", "drop: [ALL]", "dropped: [ALL]", "StatefulSet: ", HELM
    ),
    "API version that is gone": Fault(
        manifests, CHART, "templates/poddisruptionbudget.yaml", "policy/v1", "policy/v1beta1", "has no PodDis", HELM
    ),
    "chart that does what its tests do not expect": Fault(
        checks.chart,
        CHART,
        "templates/service.yaml",
        "clusterIP: None",
        "clusterIP: ''",
        "service_test",
        checks.UNITTEST,
    ),
    "alert that is no expression": Fault(
        alerts,
        CHART,
        "files/alerts.yaml",
        "(replicator_lag_seconds",
        "((replicator_lag_seconds",
        "parse error",
        checks.PROMTOOL and HELM,
    ),
    "schema of config that lags behind the program": Fault(
        checks.generated, CHART, "values.schema.json", '"external_id"', '"external"', "values.schema.json", "python"
    ),
    "page of values that lags behind them": Fault(
        checks.generated, CHART, "README.md", "`workers`", "`worker`", "README.md", "python"
    ),
    "unit with an unknown key": Fault(
        unit,
        ROOT / "config" / "systemd",
        "replicator.service",
        "Restart=",
        "Restarts=",
        "Unknown key",
        checks.SYSTEMD_ANALYZE,
    ),
    "Dockerfile that installs without a pin": Fault(
        _DOCKERFILE, ROOT, "Dockerfile", "USER ", "RUN pip install replicator\nUSER ", "DL3013", checks.HADOLINT
    ),
    "module that is no HCL": Fault(_TERRAFORM, _TABLES, "main.tf", 'resource "', 'resource = "', "Unexpected", "hcl2"),
    "dashboard of a metric that does not exist": Fault(
        _DASHBOARD,
        ROOT / "config" / "grafana",
        "replicator.json",
        "replicator_lag_seconds",
        "replicator_delay_seconds",
        "replicator_delay_seconds",
        "json",
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_found_and_nothing_is_without_it(fault: Fault, tmp_path: Path) -> None:
    if fault.needs is None:
        pytest.skip("only `make deploy-check` has the program that looks for it")
    copy = tmp_path / fault.directory.name
    if fault.directory == ROOT:
        copy.mkdir()
        shutil.copy(ROOT / fault.file, copy)
    else:
        shutil.copytree(fault.directory, copy)
    assert fault.check(copy) == []
    file = copy / fault.file
    text = file.read_text()
    assert fault.right in text
    file.write_text(text.replace(fault.right, fault.wrong))
    found = fault.check(copy)
    assert any(fault.found in line for line in found), found

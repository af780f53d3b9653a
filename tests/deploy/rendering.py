"""What helm makes of the chart."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.patience import PATIENT_SECONDS

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "replicator"
EXAMPLE = CHART / "ci" / "example-values.yaml"
TOOLS = os.environ.get("DEPLOY_TOOLS", "")
"""Where `make deploy-check` has its programs; empty in any other run, which leaves them out."""

HELM_3 = shutil.which("helm3", path=TOOLS) or shutil.which("helm")
HELM_4 = shutil.which("helm4", path=TOOLS)


def template(
    helm: str, *arguments: str, values: Path | None = EXAMPLE, chart: Path = CHART, kubernetes: str = "1.31.0"
) -> subprocess.CompletedProcess[str]:
    """Run `helm template`; its exit code is the caller's to look at."""
    command = [helm, "template", "replicator", str(chart), "--kube-version", kubernetes, "--namespace", "data"]
    given = [] if values is None else ["--values", str(values)]
    return subprocess.run(
        [*command, *given, *arguments], capture_output=True, text=True, check=False, timeout=PATIENT_SECONDS
    )


def documents(rendered: str) -> list[dict[str, Any]]:
    """The objects in helm's output."""
    return [document for document in yaml.safe_load_all(rendered) if document]


def objects(rendered: str) -> dict[str, dict[str, Any]]:
    """The release's objects by kind; the pod of `helm test` is not one of them."""
    return {entry["kind"]: entry for entry in documents(rendered) if entry["kind"] != "Pod"}

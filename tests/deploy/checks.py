"""What `make deploy-check` asks of each file that is deployed, as functions from the file to the faults in it.

Where the program behind one is not installed, its attribute here is None, and the tests leave it out.
"""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import hcl2
import yaml
from lark.exceptions import LarkError

from tests.deploy.rendering import CHART, ROOT, TOOLS, documents
from tests.patience import PATIENT_SECONDS
from tests.unit.test_alerts import unknown_names

HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))
PROMTOOL = shutil.which("promtool")
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
UNITTEST = shutil.which("helm-unittest", path=TOOLS)
_CUSTOM = {"PodMonitor", "ServiceMonitor", "PrometheusRule", "ScaledObject"}
"""Kinds that only a cluster knows; tests/deploy/test_api_server.py has their definitions."""


def dockerfile(text: str) -> list[str]:
    """What hadolint finds."""
    assert HADOLINT
    return _said(HADOLINT, "-", given=text)


def unit(path: Path) -> list[str]:
    """What systemd says of a unit; an unknown key is only a warning to it, and its exit code is 0."""
    assert SYSTEMD_ANALYZE
    return _said(SYSTEMD_ANALYZE, "verify", "--man=no", str(path))


def rules(text: str) -> list[str]:
    """What Prometheus would refuse of alerts and recorded series."""
    assert PROMTOOL
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        return _said(PROMTOOL, "check", "rules", file.name, quiet=True)


def terraform(text: str) -> list[str]:
    """Where it is no HCL."""
    try:
        hcl2.loads(text)
    except LarkError as error:
        return [str(error)]
    return []


def dashboard(text: str) -> list[str]:
    """Metrics in the queries of a dashboard that the program does not have."""
    queries = [target["expr"] for panel in json.loads(text)["panels"] for target in panel.get("targets", ())]
    return sorted({name for query in queries for name in unknown_names(query)})


def manifests(rendered: str, version: str) -> list[str]:
    """What that release of Kubernetes would refuse, fields and kinds that it does not know included."""
    kubernetes_validate = import_module("kubernetes_validate")  # only `make deploy-check` installs it
    found = []
    for document in documents(rendered):
        if document["kind"] in _CUSTOM:
            continue
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{document['kind']}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError:
            found.append(f"Kubernetes {version} has no {document['kind']} in {document['apiVersion']}")
    return found


def chart(path: Path) -> list[str]:
    """Which of the chart's own tests fail."""
    assert UNITTEST
    said = _said(UNITTEST, str(path), quiet=True)
    return [line for line in said if re.match(r"\s*(FAIL|- )", line)] or said


def generated(path: Path) -> list[str]:
    """Which files of a copy of the chart are not what `make schema` makes."""
    made: dict[Path, str] = runpy.run_path(str(ROOT / "helm" / "generate.py"))["_made"]()
    files = {file.relative_to(CHART): text for file, text in made.items()}
    return [str(file) for file, text in files.items() if (path / file).read_text() != text]


def _said(*command: str, given: str | None = None, quiet: bool = False) -> list[str]:
    """What a program says that finds something; a `quiet` one speaks in any case, and ends with an error then."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=PATIENT_SECONDS, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode == 0:
        return [] if quiet else lines
    return lines or [f"exit code {done.returncode}"]


def spec_text(rendered: str, kind: str) -> str:
    """The `spec` of the first object of a kind, as YAML."""
    return yaml.safe_dump(next(document["spec"] for document in documents(rendered) if document["kind"] == kind))

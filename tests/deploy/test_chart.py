"""The Helm chart: its pods are confined, probed and given a configuration that the program accepts.

Every test looks at the templates as they are, with their actions cut out; where `helm` is installed, also at what it
renders.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicator.settings import DEFAULT_SECRETS, ENV_PREFIX, Admin, Settings

CHART = Path(__file__).parents[2] / "helm" / "replicator"
EXAMPLE = CHART / "ci" / "example-values.yaml"
HELM = shutil.which("helm")
rendered = pytest.mark.skipif(HELM is None, reason="helm is not installed")


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv(f"{ENV_PREFIX}SECRETS_DIR", str(tmp_path))


@pytest.fixture(params=["template", pytest.param("rendered", marks=rendered)])
def pod(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The Deployment's pod specification."""
    deployment = _render()["Deployment"] if request.param == "rendered" else _without_actions("deployment.yaml")
    specification: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return specification


def test_the_pod_can_do_nothing_but_its_work(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False


def test_the_pod_runs_as_the_user_of_the_image(pod: dict[str, Any]) -> None:
    user = re.search(r"^USER (\d+):(\d+)$", (CHART.parents[1] / "Dockerfile").read_text(), re.MULTILINE)
    assert user
    assert [str(pod["securityContext"][key]) for key in ("runAsUser", "runAsGroup")] == list(user.groups())


def test_service_variables_cannot_be_taken_for_settings(pod: dict[str, Any]) -> None:
    assert pod["enableServiceLinks"] is False


def test_the_probes_ask_the_admin_port(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    paths = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe: get["path"] for probe, get in paths.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert {get["port"] for get in paths.values()} == {"admin"}


def test_the_environment_makes_the_program_listen_where_the_probes_ask(
    pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (container,) = pod["containers"]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    settings = Settings(**_example()["config"], admin=Admin(host="127.0.0.1", port=1))
    (port,) = container["ports"]
    assert (settings.admin.host, settings.admin.port) == ("0.0.0.0", port["containerPort"])


def test_configuration_and_secrets_stand_where_the_program_looks(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (path,) = (variable["value"] for variable in container["env"] if variable["name"] == "REPLICATOR_CONFIG")
    assert path == f"{places['config']}/replicator.yaml"
    assert places["secrets"] == str(DEFAULT_SECRETS)


def test_a_pod_is_given_longer_than_a_drain_takes() -> None:
    drain = Settings(**_example()["config"]).drain.total_seconds()
    assert _values()["terminationGracePeriodSeconds"] >= drain + 10


def test_the_chart_has_no_configuration_of_its_own_that_could_leak_into_yours() -> None:
    assert _values()["config"] == {}


def test_the_example_says_only_what_the_chart_knows() -> None:
    assert set(_example()) <= set(_values())


def test_the_chart_and_the_program_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (CHART.parents[1] / "pyproject.toml").read_text()
    assert f'\nversion = "{chart["appVersion"]}"\n' in project


@rendered
def test_the_rendered_configuration_is_the_one_given() -> None:
    content = yaml.safe_load(_render()["ConfigMap"]["data"]["replicator.yaml"])
    assert Settings(**content) == Settings(**_example()["config"])


@rendered
def test_a_changed_configuration_restarts_the_pods() -> None:
    def annotations(*arguments: str) -> Any:
        return _render(*arguments)["Deployment"]["spec"]["template"]["metadata"]["annotations"]

    assert annotations() == annotations()
    assert annotations() != annotations("--set", "config.drain=25s")


@rendered
def test_helm_has_no_complaint() -> None:
    assert HELM
    subprocess.run([HELM, "lint", "--strict", str(CHART), "--values", str(EXAMPLE)], check=True, timeout=60)


@rendered
def test_without_a_configuration_the_chart_says_what_is_missing() -> None:
    assert HELM
    command = [HELM, "template", "replicator", str(CHART), "--kube-version", "1.31.0"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode != 0
    assert "config is empty" in result.stderr


def _values() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return values


def _example() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    return values


def _without_actions(name: str) -> dict[str, Any]:
    """A template as YAML: lines that are only an action are dropped, other actions become a word."""
    lines = (CHART / "templates" / name).read_text().splitlines()
    kept = [re.sub(r"\{\{.*?\}\}", "x", line) for line in lines if not re.fullmatch(r"\s*\{\{.*\}\}", line)]
    document: dict[str, Any] = yaml.safe_load("\n".join(kept))
    return document


def _render(*arguments: str) -> dict[str, dict[str, Any]]:
    """What helm makes of the example, by kind."""
    assert HELM
    command = [HELM, "template", "replicator", str(CHART), "--kube-version", "1.31.0", "--values", str(EXAMPLE)]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, timeout=60)
    return {document["kind"]: document for document in yaml.safe_load_all(result.stdout)}

"""The chart as helm 3 and 4 render it: objects that each release of Kubernetes knows, for all example values."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicator.settings import Settings
from replicator.settings.schema import settings_schema
from tests.deploy import checks
from tests.deploy.rendering import CHART, HELM_3, HELM_4, documents, objects, template
from tests.patience import PATIENT_SECONDS

jsonschema: Any = pytest.importorskip("jsonschema", reason="only `make deploy-check` installs it")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="only `make deploy-check` installs it")

EXAMPLES = sorted(path.name for path in (CHART / "ci").glob("*.yaml"))
OLDEST = 25
NEWEST = kubernetes_validate.latest_version()
VERSIONS = [f"1.{minor}.0" for minor in range(OLDEST, int(NEWEST.split(".")[1]) + 1)]
HELMS = [
    pytest.param(helm, id=name, marks=pytest.mark.skipif(helm is None, reason=f"{name} is not installed"))
    for name, helm in (("helm3", HELM_3), ("helm4", HELM_4))
]


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("helm", HELMS)
def test_kubernetes_knows_everything_that_is_rendered(helm: str, example: str) -> None:
    for version in VERSIONS:
        result = template(helm, values=CHART / "ci" / example, kubernetes=version)
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        assert checks.manifests(result.stdout, version) == []


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("config.team=orders", "additional properties 'team' not allowed"),
        ("config.coordination.ttl=10s", "additional properties 'ttl' not allowed"),
        (
            "config.rules[0].mode=sorted",
            "at '/config/rules/0/mode': value must be one of 'ordered', 'versioned', 'active-active'",
        ),
        ("config.regions.us.zone=us-east-1", "additional properties 'zone' not allowed"),
    ],
)
def test_a_misspelt_configuration_is_refused_before_anything_is_installed(
    helm: str, argument: str, complaint: str
) -> None:
    result = template(helm, "--set", argument)
    assert result.returncode != 0
    assert complaint in result.stderr


@pytest.mark.parametrize("helm", HELMS)
def test_a_refusal_names_what_is_wrong_in_the_mode_and_the_sink_that_were_chosen(helm: str) -> None:
    slip = "config.rules[0].sources=us,config.rules[0].events[0].to=sqs,config.rules[0].events[0].que=a"
    said = template(helm, "--set", slip).stderr
    assert "additional properties 'sources' not allowed" in said
    assert "additional properties 'que' not allowed" in said
    assert "active-active" not in said
    assert "missing property 'topic'" not in said


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_charts_schema_and_the_programs_judge_alike(example: str) -> None:
    """The chart's has fewer alternatives, for readable refusals."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    chart = jsonschema.Draft7Validator({"$ref": "#/definitions/config", "definitions": schema["definitions"]})
    program = jsonschema.Draft202012Validator(settings_schema())
    config = yaml.safe_load((CHART / "ci" / example).read_text())["config"]
    rule = config["rules"][0]
    rules: list[Any] = [{key: value for key, value in rule.items() if key != gone} for gone in rule]
    modes = ("ordered", "versioned", "active-active", "sorted", 1, None)
    rules += [*(rule | {"mode": mode} for mode in modes), rule | {"version": "v"}, rule | {"other": 1}, "text", []]
    sinks = [{"to": "sqs", "queue": "a"}, {"to": "sqs", "topic": "a"}, {"queue": "a"}, {"to": 1}, {"to": "other"}, 1]
    rules += [rule | {"events": [sink]} for sink in sinks]
    drains: list[Any] = ["20s", "soon", 5, 0, -1, None, True, [], 1.5]
    configs = [config | {"rules": [each]} for each in rules] + [config | {"drain": drain} for drain in drains]
    judged = [program.is_valid(each) for each in configs]
    assert True in judged
    assert False in judged
    assert [chart.is_valid(each) for each in configs] == judged


@pytest.mark.parametrize("helm", HELMS)
def test_two_scalers_are_refused(helm: str) -> None:
    result = template(helm, "--set", "autoscaling.enabled=true,keda.enabled=true,keda.serverAddress=http://p")
    assert result.returncode != 0
    assert "choose one" in result.stderr


@pytest.mark.parametrize("helm", HELMS)
def test_everything_on_stands_together(helm: str) -> None:
    values = yaml.safe_load((CHART / "ci" / "full-values.yaml").read_text())
    result = template(helm, values=CHART / "ci" / "full-values.yaml", kubernetes=NEWEST)
    found = objects(result.stdout)
    workload = found["StatefulSet"]
    pod = workload["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert "replicas" not in workload["spec"]  # the scaler says how many
    assert "Deployment" not in found
    selectors = [
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        found["PodMonitor"]["spec"]["selector"]["matchLabels"],
        workload["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
    assert (
        found["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items()
        <= found["Service"]["metadata"]["labels"].items()
    )
    ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
    assert ports == {"admin": 9464, "admin-1": 9465}
    assert {port["name"]: port["port"] for port in found["Service"]["spec"]["ports"]} == ports
    assert {endpoint["port"] for endpoint in found["PodMonitor"]["spec"]["podMetricsEndpoints"]} == set(ports)
    assert {endpoint["port"] for endpoint in found["ServiceMonitor"]["spec"]["endpoints"]} == set(ports)
    assert workload["spec"]["serviceName"] == found["Service"]["metadata"]["name"]
    assert found["ScaledObject"]["spec"]["scaleTargetRef"]["name"] == workload["metadata"]["name"]
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["/var/lib/replicator"] == workload["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
    file = values["config"]["conflicts"]["file"]
    assert file.startswith("/var/lib/replicator/")
    alerts = yaml.safe_load((CHART.parents[1] / "config" / "prometheus" / "alerts.yaml").read_text())
    assert found["PrometheusRule"]["spec"] == alerts
    beside = [entry for entry in documents(result.stdout) if entry["metadata"]["name"] == "replicator-beside"]
    assert len(beside) == 1


@pytest.mark.parametrize("helm", HELMS)
def test_the_workers_may_talk_to_each_other_and_to_what_the_configuration_names(helm: str) -> None:
    result = template(helm, values=CHART / "ci" / "full-values.yaml", kubernetes=NEWEST)
    policy = objects(result.stdout)["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    out: set[Any] = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert {53, 80, 443, 6379, 6380, 4318, 9464} == out
    own = [peer for rule in policy["ingress"] for peer in rule["from"] if "podSelector" in peer]
    assert len(own) == 1
    assert {(port["port"], port["endPort"]) for rule in policy["ingress"] for port in rule["ports"]} == {(9464, 9465)}


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("helm", HELMS)
def test_the_program_accepts_what_the_pods_are_given(helm: str, example: str) -> None:
    result = template(helm, values=CHART / "ci" / example, kubernetes=NEWEST)
    texts = [entry["data"] for entry in documents(result.stdout) if entry["kind"] == "ConfigMap"]
    (content,) = [yaml.safe_load(data["replicator.yaml"]) for data in texts if "replicator.yaml" in data]
    assert Settings(**content).rules


@pytest.mark.parametrize("helm", HELMS)
def test_the_test_of_a_release_is_no_worker(helm: str) -> None:
    rendered = documents(template(helm, values=CHART / "ci" / "full-values.yaml", kubernetes=NEWEST).stdout)
    (pod,) = [entry for entry in rendered if entry["kind"] == "Pod"]
    selector = objects(template(helm, values=CHART / "ci" / "full-values.yaml", kubernetes=NEWEST).stdout)["Service"]
    assert not selector["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert pod["spec"]["containers"][0]["args"] == ["check"]
    mounted = {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    assert mounted <= {volume["name"] for volume in pod["spec"]["volumes"]}


@pytest.mark.skipif(checks.UNITTEST is None, reason="only `make deploy-check` builds helm-unittest")
def test_the_charts_own_tests_pass_and_every_template_has_some() -> None:
    assert checks.chart(CHART) == []
    said = "".join(path.read_text() for path in sorted((CHART / "tests").glob("*_test.yaml")))
    templates = [path for path in (CHART / "templates").rglob("*.*") if path.suffix != ".tpl"]
    assert [path.name for path in templates if path.name not in said] == []


@pytest.mark.parametrize("helm", HELMS)
def test_the_package_has_the_chart_without_its_own_tests(helm: str, tmp_path: Path) -> None:
    subprocess.run([helm, "package", str(CHART), "--destination", str(tmp_path)], check=True, timeout=PATIENT_SECONDS)
    (package,) = tmp_path.glob("replicator-*.tgz")
    with tarfile.open(package) as archive:
        names = set(archive.getnames())
    assert {"replicator/templates/tests/check.yaml", "replicator/files/alerts.yaml"} <= names
    assert not any(name.startswith("replicator/tests/") for name in names)


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("example", EXAMPLES)
def test_helm_has_no_complaint(helm: str, example: str) -> None:
    command = [helm, "lint", "--strict", str(CHART), "--values", str(CHART / "ci" / example), "--kube-version", NEWEST]
    subprocess.run(command, check=True, timeout=PATIENT_SECONDS)

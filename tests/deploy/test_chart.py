"""The Helm chart: its pods are confined, probed and given a configuration that the program accepts.

Every test looks at the templates as they are, with their actions cut out; where `helm` is installed, also at what it
renders.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import yaml

from replicator.app import reload
from replicator.app.supervisor import Patience
from replicator.settings import DEFAULT_SECRETS, ENV_PREFIX, Admin, Settings
from replicator.settings.loading import load
from tests.deploy.rendering import CHART, EXAMPLE, objects, template
from tests.deploy.rendering import HELM_3 as HELM

POD = "fd00::7"
rendered = pytest.mark.skipif(HELM is None, reason="helm is not installed")


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv(f"{ENV_PREFIX}SECRETS_DIR", str(tmp_path))


@pytest.fixture(params=["template", pytest.param("rendered", marks=rendered)])
def pod(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The Deployment's pod specification."""
    if request.param == "template":
        return _without_actions("_parts.tpl", "_pod.tpl")
    specification: dict[str, Any] = _render()["Deployment"]["spec"]["template"]["spec"]
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
        monkeypatch.setenv(variable["name"], variable.get("value") or POD)
    settings = Settings(**_example()["config"], admin=Admin(host="127.0.0.1", port=1, advertise="elsewhere"))
    port = container["ports"][0]
    assert port["name"] == "admin"
    assert settings.admin == Admin(host="::", port=port["containerPort"], advertise=POD)


def test_a_pod_advertises_its_address_because_others_do_not_know_its_name(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    references = {variable["name"]: variable["valueFrom"] for variable in container["env"] if "valueFrom" in variable}
    assert references == {"REPLICATOR_ADMIN__ADVERTISE": {"fieldRef": {"fieldPath": "status.podIP"}}}


def test_configuration_and_secrets_stand_where_the_program_looks(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (path,) = (variable["value"] for variable in container["env"] if variable["name"] == "REPLICATOR_CONFIG")
    assert path == f"{places['config']}/replicator.yaml"
    assert places["secrets"] == str(DEFAULT_SECRETS)


def test_the_chart_has_no_configuration_of_its_own_that_could_leak_into_yours() -> None:
    assert _values()["config"] is None


def test_what_may_be_a_number_is_never_written_as_yaml_because_some_helm_releases_write_2e06() -> None:
    """Nor printed as it is; the schema lets labels and annotations be texts only."""
    templates = "".join(path.read_text() for path in sorted((CHART / "templates").rglob("*.*")))
    written = re.findall(r"with (\S+) \}\}[^{]*\{\{- toYaml \.", templates)
    assert len(written) == templates.count("toYaml .")
    schema = _schema()["properties"]
    metrics = schema["metrics"]["properties"]
    texts = {
        ".Values.podAnnotations": schema["podAnnotations"],
        ".Values.podLabels": schema["podLabels"],
        ".Values.serviceAccount.annotations": schema["serviceAccount"]["properties"]["annotations"],
        ".Values.service.annotations": schema["service"]["properties"]["annotations"],
        "$monitor.labels": metrics["podMonitor"]["properties"]["labels"],
        ".Values.metrics.prometheusRule.labels": metrics["prometheusRule"]["properties"]["labels"],
        "$.Values.metrics.dashboards.labels": metrics["dashboards"]["properties"]["labels"],
    }
    assert set(written) == set(texts)
    assert all(kind == {"$ref": "#/definitions/texts"} for kind in texts.values())
    assert metrics["serviceMonitor"] == metrics["podMonitor"]
    assert not re.search(r"\{\{-? \S*(?:[rR]eplica(?:s|Count)|workers|Seconds) \}\}", templates)


def test_the_schema_knows_every_value_and_no_other() -> None:
    def names(values: dict[str, Any], schema: dict[str, Any]) -> None:
        assert schema["additionalProperties"] is False
        assert set(values) == set(schema["properties"]) - {"global"}
        for name, value in values.items():
            inner = schema["properties"][name]
            if isinstance(value, dict) and "properties" in inner:
                names(value, inner)

    names(_values(), _schema())


def test_every_value_is_documented() -> None:
    rows = [row.split(" | ") for row in (CHART / "README.md").read_text().splitlines() if row.startswith("| `")]
    assert len(rows) > 60
    assert [row[0] for row in rows if not row[-1].strip(" |")] == []


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
def test_a_changed_configuration_rolls_the_pods_but_for_its_rules() -> None:
    def annotations(*arguments: str) -> Any:
        return _render(*arguments)["Deployment"]["spec"]["template"]["metadata"]["annotations"]

    assert annotations() == annotations()
    assert annotations() != annotations("--set", "config.drain=25s")
    rule = ("--set", "config.rules[0].start=latest")
    assert annotations() == annotations(*rule)  # a running pod takes it up
    assert annotations("--set", "hotReload=false") != annotations("--set", "hotReload=false", *rule)
    enabled = ("--set", "config.admin.api.enabled=true")
    live = {
        "log.level": "debug",
        "log.format": "json",
        "admin.api.read_without_token": "true",
        "admin.api.hosts[0]": "a.example",
        "admin.api.tokens.alice.secret": "api-alice",
    }
    assert {name.partition("[")[0] for name in live if "tokens" not in name} == reload._LIVE
    for name, value in live.items():
        assert annotations(*enabled) == annotations(*enabled, "--set", f"config.{name}={value}"), name


@rendered
@pytest.mark.parametrize("drain", ["20s", "25s"])
def test_a_changed_text_rolls_the_pods_for_what_is_not_a_rule(tmp_path: Path, drain: str) -> None:
    def annotations(config: dict[str, Any]) -> Any:
        arguments = _given(tmp_path, config, as_text=True)
        return _render(*arguments)["Deployment"]["spec"]["template"]["metadata"]["annotations"]

    config = _example()["config"] | {"drain": "20s"}
    rules = [rule | {"start": "latest"} for rule in config["rules"]]
    assert (annotations(config) == annotations(config | {"rules": rules, "drain": drain})) is (drain == "20s")


@rendered
@pytest.mark.parametrize("as_text", [False, True])
def test_whole_numbers_and_texts_that_look_like_numbers_arrive_as_they_were_written(
    tmp_path: Path, as_text: bool
) -> None:
    config = _example()["config"]
    config["conflicts"] = {"file": "/var/lib/replicator/conflicts.jsonl", "file_max_bytes": 250_000_000}
    config["polling"] = {"memory": 268_435_456}
    config["drain"] = 2_000_000
    equals = {
        "million": 2_000_000,
        "exact": 9_007_199_254_740_991,
        "below": -2_000_000,
        "fraction": 0.5,
        "release": "1.10",
        "digits": "2000000",
        "exponent": "2e+06",
        "yes": True,
        "nothing": None,
    }
    config["rules"][0]["filter"] = {"equals": equals, "exists": ["a", "b"], "where": "total > `0` && a == '<b>'"}
    arguments = _given(tmp_path, config, as_text=as_text)
    (tmp_path / "rendered.yaml").write_text(_render(*arguments)["ConfigMap"]["data"]["replicator.yaml"])
    settings = load(tmp_path / "rendered.yaml")
    assert settings == Settings(**config)
    (rule,) = settings.rules
    found = rule.model_dump()["filter"]["equals"]
    assert {name: (type(value), value) for name, value in found.items()} == {
        name: (type(value), value) for name, value in equals.items()
    }


@rendered
@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 12345678901234567890])
def test_a_number_that_helm_may_have_changed_is_refused_and_goes_as_text(tmp_path: Path, number: int) -> None:
    config = _example()["config"]
    config["rules"][0]["filter"] = {"equals": {"counter": number}}
    assert "config.rules[0].filter.equals.counter is a number of more than 53 bits" in _refused(
        *_given(tmp_path, config, as_text=False)
    )
    content = yaml.safe_load(_render(*_given(tmp_path, config, as_text=True))["ConfigMap"]["data"]["replicator.yaml"])
    assert content == config


@rendered
def test_the_documented_configuration_can_be_given_as_it_is() -> None:
    file = CHART.parents[1] / "config" / "replicator.yaml"
    content = _render("--set-file", f"config={file}")["ConfigMap"]["data"]["replicator.yaml"]
    assert content == file.read_text()


@rendered
@pytest.mark.parametrize(
    ("drain", "seconds"), [(None, 45), ("500ms", 26), ("1m30s", 115), ("1h", 3625), ("2.5s", 28), (90, 115)]
)
@pytest.mark.parametrize("as_text", [False, True])
def test_a_pod_is_given_longer_than_a_drain_takes(
    tmp_path: Path, drain: str | int | None, seconds: int, as_text: bool
) -> None:
    config = _example()["config"] | ({} if drain is None else {"drain": drain})
    given = _given(tmp_path, config, as_text=as_text)
    assert _render(*given)["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == seconds
    assert seconds >= Settings(**config).drain.total_seconds() + Patience().beyond + 5
    own = [*given, "--set", "terminationGracePeriodSeconds=4000"]
    assert _render(*own)["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 4000


@rendered
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--set", "terminationGracePeriodSeconds=20"], "must be longer than config.drain (20 s)"),
        (["--set", "image.tag=20240101"], "got number, want string"),
        (["--set", "podLabels.build=20240101"], "got number, want string"),
        (["--set", "env[0].name=A,env[0].value=2000000"], "got number, want string"),
        (["--set", "replicas=3"], "additional properties 'replicas' not allowed"),
        (["--set", "workers=auto"], "got string, want integer"),
        (["--set", "workers=0"], "minimum: got 0, want 1"),
    ],
)
def test_values_that_would_do_something_else_are_refused(arguments: list[str], complaint: str) -> None:
    assert complaint in _refused(*arguments)


@rendered
def test_a_pod_has_as_many_workers_as_said_and_a_port_for_each() -> None:
    (container,) = _render("--set", "workers=3")["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["run", "--workers", "3"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"admin": 9464, "admin-1": 9465, "admin-2": 9466}
    (alone,) = _render()["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert alone["args"] == ["run", "--workers", "1"]
    assert [port["name"] for port in alone["ports"]] == ["admin"]


@rendered
def test_more_of_everything_stands_where_it_belongs(tmp_path: Path) -> None:
    values = {
        "env": [{"name": "AWS_STS_REGIONAL_ENDPOINTS", "value": "regional"}],
        "extraVolumes": [{"name": "data", "emptyDir": {"sizeLimit": 2_000_000}}],
        "extraVolumeMounts": [{"name": "data", "mountPath": "/data"}],
        "resources": {"limits": {"memory": 536_870_912}},
        "tolerations": [{"key": "spot", "operator": "Exists", "tolerationSeconds": 2_000_000}],
    }
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(values))
    pod = _render("--values", str(tmp_path / "more.yaml"))["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["env"][-1:] == values["env"]
    assert pod["volumes"][-1:] == values["extraVolumes"]
    assert container["volumeMounts"][-1:] == values["extraVolumeMounts"]
    assert container["resources"] == {
        "limits": {"memory": 536_870_912},
        "requests": _values()["resources"]["requests"],
    }
    assert pod["tolerations"] == values["tolerations"]


@rendered
def test_without_a_configuration_the_chart_says_what_is_missing() -> None:
    assert "config is empty" in _refused(values=None)


def _values() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return values


def _example() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    return values


def _without_actions(parts: str, name: str) -> dict[str, Any]:
    """A template as YAML, its parts put in; other lines that are only an action are dropped, other actions become x."""
    found = re.findall(
        r'define "(\S+)" -\}\}\n(.*?)\n\{\{- end -\}\}', (CHART / "templates" / parts).read_text(), re.DOTALL
    )
    bodies: dict[str, str] = dict(found)
    lines: list[str] = []
    for line in (CHART / "templates" / name).read_text().splitlines():
        part = re.match(r'( *)\{\{- include "(\S+)"', line)
        lines += indent(bodies.get(part[2], ""), part[1]).splitlines() if part else [line]
    kept = [re.sub(r"\{\{.*?\}\}", "x", line) for line in lines if not re.fullmatch(r"\s*(?:- )?\{\{.*\}\}", line)]
    document: dict[str, Any] = yaml.safe_load("\n".join(kept))
    return document


def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return schema


def _given(directory: Path, config: dict[str, Any], *, as_text: bool) -> list[str]:
    """Arguments that give a configuration, as values or as the text of a file."""
    file = directory / "given.yaml"
    if as_text:
        file.write_text(json.dumps(config))
        return ["--set-file", f"config={file}"]
    file.write_text(json.dumps({"config": config}))
    return ["--values", str(file)]


def _render(*arguments: str) -> dict[str, dict[str, Any]]:
    """What helm makes of the example, by kind."""
    assert HELM
    result = template(HELM, *arguments)
    assert result.returncode == 0, result.stderr
    return objects(result.stdout)


def _refused(*arguments: str, values: Path | None = EXAMPLE) -> str:
    """Why helm makes nothing of it."""
    assert HELM
    result = template(HELM, *arguments, values=values)
    assert result.returncode != 0, result.stdout
    return result.stderr

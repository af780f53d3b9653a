"""How the function is deployed: the SAM template, the Terraform module, and what a package holds."""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import hcl2
import pytest
import yaml

from replicator import lambda_handler
from replicator.settings.loading import PLACE_VARIABLES

ROOT = Path(__file__).resolve().parents[2] / "lambda"
HANDLER = f"{lambda_handler.handler.__module__}.{lambda_handler.handler.__name__}"


class Template(yaml.SafeLoader):
    """YAML with the short forms of CloudFormation, each as a mapping of its name."""


def _short(loader: Template, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    assert isinstance(node, yaml.SequenceNode)
    return {suffix: loader.construct_sequence(node, deep=True)}


Template.add_multi_constructor("!", _short)


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((ROOT / "template.yaml").read_text(), Template)
    return loaded


@pytest.fixture(scope="module")
def module() -> dict[str, dict[str, Any]]:
    """Blocks of the Terraform module by kind and address."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((ROOT / "terraform").glob("*.tf")):
        for kind, blocks in hcl2.loads(path.read_text()).items():
            for block in blocks if isinstance(blocks, list) else ():
                _collect(found.setdefault(kind, {}), block)
    return found


def _collect(found: dict[str, Any], block: dict[str, Any]) -> None:
    for name, body in block.items():
        inner = (
            {key: value for key, value in body.items() if not key.startswith("__")} if isinstance(body, dict) else {}
        )
        if len(inner) == 1 and isinstance(next(iter(inner.values())), dict):
            ((label, content),) = inner.items()
            found[f"{_plain(name)}.{_plain(label)}"] = content
        else:
            found[_plain(name)] = body


def _plain(text: Any) -> Any:
    return text.strip('"') if isinstance(text, str) else text


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _references(node: Any) -> set[str]:
    """Names that a template refers to."""
    if isinstance(node, dict):
        own = {str(value).split(".")[0] for name, value in node.items() if name in {"Ref", "GetAtt"}}
        return own.union(*map(_references, node.values()))
    return set().union(*map(_references, node)) if isinstance(node, list) else set()


def test_the_template_maps_a_stream_so_that_nothing_is_given_up(template: dict[str, Any]) -> None:
    function = template["Resources"]["Replicator"]["Properties"]
    assert function["Handler"] == HANDLER
    mapping = function["Events"]["Changes"]["Properties"]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert (mapping["MaximumRecordAgeInSeconds"], mapping["MaximumRetryAttempts"]) == (-1, -1)
    assert mapping["StartingPosition"] == "TRIM_HORIZON"
    variables = function["Environment"]["Variables"]
    assert variables["LAMBDA_CONCURRENCY"] == function["ReservedConcurrentExecutions"]
    assert {*PLACE_VARIABLES, "LAMBDA_CONCURRENCY"} == variables.keys()


def test_the_template_refers_to_what_it_has(template: dict[str, Any]) -> None:
    known = {*template["Parameters"], *template["Resources"], "AWS::NoValue"}
    assert _references(template) <= known
    assert set(template["Parameters"]) <= _references(template)


def test_the_module_maps_streams_as_the_template_does(module: dict[str, dict[str, Any]]) -> None:
    resources = module["resource"]
    assert _plain(resources["aws_lambda_function.this"]["handler"]) == HANDLER
    mapping = resources["aws_lambda_event_source_mapping.this"]
    assert list(map(_plain, mapping["function_response_types"])) == ["ReportBatchItemFailures"]
    assert _plain(mapping["starting_position"]) == "TRIM_HORIZON"
    ages = (mapping["maximum_record_age_in_seconds"], mapping["maximum_retry_attempts"])
    assert [int(str(age).strip("${}")) for age in ages] == [-1, -1]
    assert _first(mapping["destination_config"])


def test_every_variable_of_the_module_is_used_and_every_used_one_is_there(module: dict[str, dict[str, Any]]) -> None:
    text = (ROOT / "terraform" / "main.tf").read_text()
    used = {part.split(".")[1] for part in text.replace("(", " ").replace("[", " ").split() if part.startswith("var.")}
    used = {name.strip(',)]}"') for name in used} | {"name"}
    assert used == set(module["variable"])


# -- the package ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_function", ROOT / "build.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_lock_is_cut_to_what_functions_need(build: ModuleType) -> None:
    names = {entry.split("==")[0] for entry in build.wanted(build.LOCK.read_text()) if "==" in entry}
    assert {"aiobotocore", "botocore", "msgspec", "pydantic", "redis", "structlog"} <= names
    assert not names & build.UNUSED


def test_a_package_holds_the_program_without_what_functions_do_not_run(build: ModuleType, tmp_path: Path) -> None:
    for service in ("dynamodb", "ec2"):
        (tmp_path / "botocore" / "data" / service).mkdir(parents=True)
        (tmp_path / "botocore" / "data" / service / "service-2.json").write_text("{}")
    build.add_program(tmp_path)
    build.prune(tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"replicator/lambda_handler.py", "botocore/data/dynamodb/service-2.json"} <= names
    for left_out in ("replicator/demo/", "replicator/laboratory/", "replicator/cli/", "botocore/data/ec2/"):
        assert not [name for name in names if name.startswith(left_out)]


def test_a_package_is_the_same_every_time(build: ModuleType, tmp_path: Path) -> None:
    content = tmp_path / "content"
    packed = []
    for names in (("b.py", "a/c.so"), ("a/c.so", "b.py")):
        for name in names:
            (content / name).parent.mkdir(parents=True, exist_ok=True)
            (content / name).write_text(name)
        build.pack(content, tmp_path / "package.zip")
        packed.append((tmp_path / "package.zip").read_bytes())
        shutil.rmtree(content)
    assert packed[0] == packed[1]
    assert zipfile.ZipFile(tmp_path / "package.zip").namelist() == ["a/c.so", "b.py"]

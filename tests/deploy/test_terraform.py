"""The Terraform modules make what `init` creates and grant what `replicator iam` prints; examples use them."""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml

from replicator.checks.described_tables import own_tables
from replicator.domain.permissions import policy_document
from replicator.operations.permissions import Asked, policies
from replicator.settings import Settings
from tests.cli.worlds import replicator
from tests.deploy import checks

TERRAFORM = Path(__file__).parents[2] / "config" / "terraform"
LAMBDA = TERRAFORM.parents[1] / "lambda" / "terraform"
EXAMPLES = sorted((TERRAFORM / "examples").iterdir())


def _plain(node: Any) -> Any:
    """Without the quotes that the parser keeps."""
    if isinstance(node, dict):
        return {_plain(key): _plain(value) for key, value in node.items() if key != "__is_block__"}
    if isinstance(node, list):
        return [_plain(entry) for entry in node]
    return node[1:-1] if isinstance(node, str) and node.startswith('"') and node.endswith('"') else node


def _parsed(path: Path) -> dict[str, Any]:
    return _parsed_text(path.read_text())


@cache
def _parsed_text(text: str) -> dict[str, Any]:
    parsed: dict[str, Any] = _plain(hcl2.loads(text))
    return parsed


@pytest.mark.parametrize("path", sorted(TERRAFORM.rglob("*.tf")), ids=str)
def test_every_file_is_hcl(path: Path) -> None:
    assert checks.terraform(path.read_text()) == []


def _tables() -> dict[str, dict[str, Any]]:
    found = {}
    for resource in _parsed(TERRAFORM / "tables" / "main.tf")["resource"]:
        ((kind, named),) = resource.items()
        assert kind == "aws_dynamodb_table"
        ((name, table),) = named.items()
        found[name] = table
    return found


@pytest.fixture
def settings() -> Settings:
    regions = {"us": {"region": "us-east-1"}, "eu": {"region": "eu-west-1"}}
    mesh = {"name": "profiles", "table": "profiles", "mode": "active-active", "regions": ["us", "eu"]}
    content: dict[str, Any] = {"group": "orders", "regions": regions, "coordination": {"region": "us"}, "rules": [mesh]}
    return Settings(**content)


def test_the_module_makes_the_tables_that_init_creates(settings: Settings) -> None:
    made = {
        table["name"]
        .replace("${var.group}", "orders")
        .replace("${var.coordination_table}", "replicator-coordination"): (table)
        for table in _tables().values()
    }
    wanted = {table.name: table for table in own_tables(settings)}
    assert set(made) == set(wanted)
    for name, table in wanted.items():
        found = made[name]
        keys = [found["hash_key"], *([found["range_key"]] if "range_key" in found else [])]
        assert keys == [key for key, _ in table.keys], name
        attributes = {(attribute["name"], attribute["type"]) for attribute in found["attribute"]}
        assert attributes == {*table.keys, *(key for index in table.indexes for key in index.keys)}, name
        indexes = {
            index["name"]: (index["hash_key"], index["range_key"], index["projection_type"])
            for index in found.get("global_secondary_index", [])
        }
        assert indexes == {index.name: (*(key for key, _ in index.keys), "ALL") for index in table.indexes}, name
        expiry = [ttl["attribute_name"] for ttl in found.get("ttl", [])]
        assert expiry == ([] if table.expiry is None else [table.expiry]), name
        assert found["billing_mode"] == "PAY_PER_REQUEST"


def test_coordination_and_conflicts_lie_in_one_region(settings: Settings) -> None:
    alone = {table.name for table in own_tables(settings)} - {
        table.name for table in own_tables(settings) if table.region == "eu"
    }
    counted = {name for name, table in _tables().items() if "count" in table}
    assert counted == {"coordination", "conflicts"}
    assert len(alone) == len(counted)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_what_an_example_names_is_there(example: Path) -> None:
    assert _missing(example) == []


@pytest.mark.parametrize("module", [TERRAFORM / "tables", TERRAFORM / "role", LAMBDA], ids=lambda path: path.name)
def test_what_a_module_names_is_there(module: Path) -> None:
    assert _missing(module) == []


@pytest.mark.parametrize(
    ("written", "instead", "found"),
    [
        ("module.worker.arn", "module.worker.role", "module.worker.role"),
        ("module.eu.arns", "module.us.tables", "module.us.tables"),
        ("services =", "service =", "worker takes no service"),
        ('  name     = "replicator"\n', "", "worker needs name"),
        ("aws_iam_policy_document.written_by", "aws_iam_policy_document.wrote_by", "wrote_by_the_target_role"),
        ("policies/base.json", "policies/bases.json", "policies/bases.json"),
        ("aws = aws.eu", "aws = aws.ap", "aws.ap"),
    ],
)
def test_a_name_that_is_not_there_is_found(tmp_path: Path, written: str, instead: str, found: str) -> None:
    copy = tmp_path / "terraform"
    shutil.copytree(TERRAFORM, copy)
    main = copy / "examples" / "cross-account" / "main.tf"
    assert written in main.read_text()
    main.write_text(main.read_text().replace(written, instead))
    assert found in " ".join(_missing(main.parent))


def _missing(directory: Path) -> list[str]:
    """What the files of a directory name without its being there: modules, resources, variables, providers, files."""
    text = "\n".join(path.read_text() for path in sorted(directory.glob("*.tf")))
    text = re.sub(r"(?m)^\s*#.*$", "", text)
    blocks = _blocks(directory)
    modules = {name: given for block in blocks["module"] for name, given in block.items()}
    named = {".".join(pair) for pair in re.findall(r'(?m)^(?:resource|data) "(\w+)" "(\w+)"', text)}
    regions = {provider["aws"].get("alias", "") for provider in blocks["provider"]}
    variables = {name for block in blocks["variable"] for name in block}
    missing = [f"var.{name}" for name in re.findall(r"\bvar\.(\w+)", text) if name not in variables]
    used = re.findall(r"\b(?:data\.)?(aws_\w+\.\w+)\b", re.sub(r"\$\$?\{|\}", " ", text))
    missing += [name for name in used if name not in named]
    missing += [f"aws.{alias}" for alias in re.findall(r"= aws\.(\w+)", text) if alias not in regions]
    missing += [
        name for name in re.findall(r"\$\{path\.module\}/([\w/.-]+)\"", text) if not (directory / name).exists()
    ]
    for name, output in re.findall(r"\bmodule\.(\w+)\.(\w+)", text):
        place = directory / modules[name]["source"] if name in modules else None
        if place is None or output not in {each for block in _blocks(place)["output"] for each in block}:
            missing.append(f"module.{name}.{output}")
    for name, given in modules.items():
        takes = {
            each: what for block in _blocks(directory / given["source"])["variable"] for each, what in block.items()
        }
        missing += [f"{name} takes no {each}" for each in sorted(set(given) - {"source", "providers", *takes})]
        needs = {each for each, what in takes.items() if "default" not in what}
        missing += [f"{name} needs {each}" for each in sorted(needs - set(given))]
    return missing


def _blocks(directory: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in ("module", "output", "provider", "variable")}
    for path in directory.glob("*.tf"):
        for kind, blocks in _parsed(path).items():
            found.setdefault(kind, []).extend(blocks)
    return found


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
async def test_the_policies_of_an_example_are_what_iam_prints_for_its_configuration(example: Path) -> None:
    content = yaml.safe_load((example / "replicator.yaml").read_text())
    accounts = {"": "111122223333"}
    for name, region in content["regions"].items():
        if "role_arn" in region:
            accounts[name] = region["role_arn"].split(":")[4]
    made = await policies(Settings(**content), Asked(offline=True, accounts=accounts))
    kept = {path.stem: json.loads(path.read_text()) for path in (example / "policies").glob("*.json")}
    assert kept == {each.name: policy_document(each.statements) for each in made.policies if each.statements}


def test_the_policy_of_the_base_identity_is_printed_alone() -> None:
    example = TERRAFORM / "examples" / "cross-account"
    arguments = ("--offline", "--account", "111122223333", "--region", "base")
    answer = replicator("iam", *arguments, environment={"REPLICATOR_CONFIG": str(example / "replicator.yaml")})
    assert answer.json == json.loads((example / "policies" / "base.json").read_text())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_makes_what_its_configuration_names(example: Path) -> None:
    settings = Settings(**yaml.safe_load((example / "replicator.yaml").read_text()))
    blocks = _blocks(example)
    modules = {name: given for block in blocks["module"] for name, given in block.items()}
    tables = {name: given for name, given in modules.items() if given["source"] == "../../tables"}
    assert set(tables) == set(settings.regions)
    assert {given["group"] for given in tables.values()} == {settings.group}
    assert [name for name, given in tables.items() if given.get("home")] == [settings.coordination.region]
    regions = {provider["aws"].get("alias", "us"): provider["aws"]["region"] for provider in blocks["provider"]}
    assert regions == {name: region.region for name, region in settings.regions.items()}
    for region in settings.regions.values():
        if region.role_arn is not None:
            assert region.role_arn.endswith(f":role/{modules['target']['name']}")
            assert region.external_id == modules["target"]["external_id"]

"""The Terraform module of tables makes what `replicator init` creates; its example is HCL that names what exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hcl2
import pytest

from replicator.checks.described_tables import own_tables
from replicator.settings import Settings
from tests.deploy import checks

TERRAFORM = Path(__file__).parents[2] / "config" / "terraform"


def _plain(node: Any) -> Any:
    """Without the quotes that the parser keeps."""
    if isinstance(node, dict):
        return {_plain(key): _plain(value) for key, value in node.items() if key != "__is_block__"}
    if isinstance(node, list):
        return [_plain(entry) for entry in node]
    return node[1:-1] if isinstance(node, str) and node.startswith('"') and node.endswith('"') else node


def _parsed(path: Path) -> dict[str, Any]:
    parsed: dict[str, Any] = _plain(hcl2.loads(path.read_text()))
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


def test_the_example_gives_the_module_only_what_it_takes() -> None:
    variables = {name for block in _parsed(TERRAFORM / "tables" / "variables.tf")["variable"] for name in block}
    modules = [given for block in _parsed(TERRAFORM / "example" / "main.tf")["module"] for given in block.values()]
    assert len(modules) == 2
    for given in modules:
        assert set(given) - {"source", "providers"} <= variables
        assert (TERRAFORM / "example" / given["source"]).is_dir()

"""A group whose coordination rows stand in a table, as operations see it."""

from __future__ import annotations

from typing import Any

from replicator.adapters.aws.clients import Place
from replicator.operations.group import Group
from replicator.settings import Settings
from tests.contract.coordination_worlds import TableWorld

ENDPOINTS = {"us": "us-east-1", "eu": "eu-west-1"}


def group_of(stored: TableWorld, opened: Place, *rules: str, **more: Any) -> tuple[Group, list[str]]:
    """The group of a world, with rules of these names, the first of table orders; and what it announces."""
    settings = Settings.model_validate(
        {
            "group": "test",
            "regions": {name: {"region": region} for name, region in ENDPOINTS.items()},
            "coordination": {"region": "us", "table": stored.table, "lease": "3s", "heartbeat": "300ms"},
            "admin": {"port": 0},
            "rules": [
                {"name": name, "table": f"orders-{name}" if index else "orders", "source": "us", "replicas": ["eu"]}
                for index, name in enumerate(rules or ["orders"])
            ],
            **more,
        }
    )
    announced: list[str] = []
    return Group(settings, {"us": opened}, announced.append), announced

"""Two regions with a table each and a rule over them, and everything that the rule needs; for operations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from replicator.checks.creation import initialise
from replicator.operations.group import Group, open_group
from replicator.settings import Settings
from tests.contract.worlds import create_table

REGIONS = {"us": "us-east-1", "eu": "eu-west-1"}
ORDERED: dict[str, Any] = {"source": "us", "replicas": ["eu"]}
Item = dict[str, Any]


def mesh(mode: str, **keys: Any) -> dict[str, Any]:
    """A rule whose users write in both regions."""
    return {"mode": mode, "regions": list(REGIONS), **({"version": "ver"} if mode == "versioned" else {}), **keys}


class Regions:
    """A group over both regions, and its tables seen from the side."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.settings = group.settings

    async def call(self, region: str, operation: str, **request: Any) -> Any:
        """A call of DynamoDB."""
        return await getattr(self.group.places[region].dynamodb, operation)(**request)

    async def put(self, region: str, item: Item, table: str = "orders") -> None:
        """Write an item as a user does."""
        await self.call(region, "put_item", TableName=table, Item=item)

    async def items(self, region: str, table: str = "orders") -> list[Item]:
        """Every item of a table."""
        found: list[Item] = (await self.call(region, "scan", TableName=table))["Items"]
        return found


@asynccontextmanager
async def ruled(url: str, rule: dict[str, Any], **more: Any) -> AsyncIterator[Regions]:
    """The regions at a server, in the account of the environment."""
    settings = Settings.model_validate(
        {
            "group": "test",
            "regions": {name: {"region": region, "endpoint_url": url} for name, region in REGIONS.items()},
            "coordination": {"region": "us", "lease": "1s", "heartbeat": "300ms"},
            "admin": {"port": 0},
            "rules": [{"name": "orders", "table": "orders", **rule}],
            **more,
        }
    )
    async with open_group(settings, settings.regions) as group:
        for place in group.places.values():
            await create_table(place.dynamodb, "orders", {"pk": "S", "sk": "N"}, stream=True)
        await initialise(settings, group.places, dry_run=False, enable_streams=False)
        yield Regions(group)

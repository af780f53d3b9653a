"""Two tables made one, and one made two, under load and kill -9: real daemons on real servers.

What the tables should hold is computed here from what users were last told, without the program's own code.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.harness import Item, Users, World, eventually, plain

_PART = "77"
"""What tells the two parts of the split table: it comes and goes with every write of an item."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes of each source, their rate, and how often a daemon is killed."""

    changes: int
    per_second: float
    daemons: int = 2
    kill_every_seconds: float = 2.0
    seed: int = 1


@dataclass(slots=True)
class Measures:
    """What there was."""

    changes: int = 0
    kills: int = 0
    items: dict[str, int] = field(default_factory=dict)
    compared: dict[str, int] = field(default_factory=dict)
    mended: int = 0


def rules() -> list[dict[str, Any]]:
    """Two sources in one table, and one of them in two."""
    merged = [
        {
            "name": name,
            "table": name,
            "source": "us",
            "replicas": [{"region": "eu", "table": "all", "transform": {"key": {"pk": f"{name}#{{pk}}"}}}],
        }
        for name in ("orders", "bills")
    ]
    parts = {"some": f"contains(serial, '{_PART}')", "rest": f"!contains(serial, '{_PART}')"}
    split = [
        {
            "name": name,
            "table": "orders",
            "source": "us",
            "replicas": [{"region": "eu", "table": name}],
            "filter": {"where": where},
        }
        for name, where in parts.items()
    ]
    return [*merged, *split]


class Run:
    """One run."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self._plan = plan
        self._dice = random.Random(plan.seed)
        self.users = {name: Users(world, seed=plan.seed, table=name) for name in ("orders", "bills")}
        self.measures = Measures()

    async def run(self) -> Measures:
        """All of it; raises `AssertionError` where something is not as it should be."""
        world, plan = self._world, self._plan
        for table in ("orders", "bills"):
            await world.create_table("us", table, stream=True)
        for table in ("all", "some", "rest"):
            await world.create_table("eu", table)
        config = world.write_settings(world.settings(rules=rules(), caches={}, copying={"margin": "100ms"}))
        world.initialise(config)
        for _ in range(plan.daemons):
            world.daemon(config)
        writing = asyncio.gather(
            *(users.write(plan.changes, per_second=plan.per_second) for users in self.users.values())
        )
        while not writing.done():
            await asyncio.sleep(plan.kill_every_seconds * self._dice.random() * 2)
            daemon = self._dice.choice(world.daemons)
            daemon.kill()
            daemon.start()
            self.measures.kills += 1
        await writing
        self.measures.changes = sum(users.written for users in self.users.values())
        await eventually("identical tables", self._identical)
        self.measures.items = {table: len(items) for table, items in (await self._held()).items()}
        for rule in ("orders", "bills", "some", "rest"):
            self.measures.compared[rule] = (await self._command(config, 0, "verify", rule, "--json"))["compared"]
        await self._repair(config)
        for daemon in world.daemons:
            assert daemon.terminate() == 0, daemon.log.read_text()[-2000:]
        return self.measures

    def _wanted(self) -> dict[str, dict[str, Item]]:
        orders, bills = self.users["orders"].truth, self.users["bills"].truth
        merged = {
            f"{name}#{pk}": {**item, "pk": {"S": f"{name}#{pk}"}}
            for name, truth in (("orders", orders), ("bills", bills))
            for pk, item in truth.items()
        }
        some = {pk: item for pk, item in orders.items() if _PART in item["serial"]["S"]}
        return {"all": merged, "some": some, "rest": {pk: orders[pk] for pk in orders.keys() - some.keys()}}

    async def _held(self) -> dict[str, dict[str, Item]]:
        tables = {table: await self._world.scan("eu", table) for table in ("all", "some", "rest")}
        return {table: {key: plain(item) for key, item in items.items()} for table, items in tables.items()}

    async def _identical(self) -> bool:
        return await self._held() == self._wanted()

    async def _command(self, config: Path, code: int, *arguments: str) -> dict[str, Any]:
        answer = await asyncio.to_thread(self._world.command, *arguments, config=config)
        assert answer.returncode == code, answer.stdout + answer.stderr
        found: dict[str, Any] = json.loads(answer.stdout)
        return found

    async def _repair(self, config: Path) -> None:
        """Damage both parts of the merged table; a repair of one mends that one, and touches nothing else."""
        keys = sorted(self._wanted()["all"])
        mine, theirs = ([key for key in keys if key.startswith(f"{name}#")] for name in ("orders", "bills"))
        foreign = {"pk": {"S": "nothing of the rules"}, "_rep": {"S": "x"}}
        async with self._world.client("eu") as client:
            for key in (mine[0], theirs[0]):
                change = {"UpdateExpression": "SET serial = :s", "ExpressionAttributeValues": {":s": {"S": "damaged"}}}
                await client.update_item(TableName="all", Key={"pk": {"S": key}}, **change)
            for key in (mine[1], theirs[1]):
                await client.delete_item(TableName="all", Key={"pk": {"S": key}})
            await client.put_item(TableName="all", Item=foreign)
        before = await self._world.scan("eu", "all")
        self.measures.mended = (await self._command(config, 0, "repair", "orders", "--yes", "--json"))["mended"]
        after = await self._world.scan("eu", "all")
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert changed == {mine[0], mine[1]}, changed
        assert len((await self._command(config, 1, "verify", "bills", "--json"))["differences"]) == 2
        await self._command(config, 0, "repair", "bills", "--yes", "--json")
        healed = await self._held()
        assert healed["all"].pop(foreign["pk"]["S"]) is not None
        assert healed == self._wanted()

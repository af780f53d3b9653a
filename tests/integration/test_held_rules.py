"""A rule that cannot run holds only itself: a misspelt table, a dropped one, a role that was denied for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.faulty_endpoint import Fault, about
from tests.integration.harness import Daemon, World
from tests.integration.outages import Endpoints, open_failing_world, through, wait_for
from tests.integration.true_lag import Direct
from tests.patience import PATIENT_SECONDS

pytestmark = [pytest.mark.servers, pytest.mark.long]

RULES = 10
TABLES = [f"table-{number}" for number in range(RULES)]
MISSPELT = TABLES[-1]


@dataclass
class Rules:
    """A daemon of ten rules, one table each, from us to eu; users that write, and what they wrote."""

    world: World
    endpoints: Endpoints
    config: Path
    daemon: Daemon
    written: dict[str, int] = field(default_factory=dict)

    def put(self, table: str) -> None:
        """One more item."""
        self.written[table] = self.written.get(table, 0) + 1
        direct = Direct(self.world.dynamodb_port, "us-east-1")
        direct.call("PutItem", TableName=table, Item={"pk": {"S": f"k{self.written[table]}"}})
        direct.close()

    def arrived(self, table: str) -> bool:
        """Whether the last item that was written is there."""
        direct = Direct(self.world.dynamodb_port, "eu-west-1")
        key = {"pk": {"S": f"k{self.written[table]}"}}
        found = direct.call("GetItem", TableName=table, Key=key, ConsistentRead=True)
        direct.close()
        return "Item" in found

    def all_flow(self, tables: list[str]) -> None:
        """What is written to any of some tables arrives."""
        for table in tables:
            self.put(table)
        for table in tables:
            wait_for(f"the item in {table}", lambda: self.arrived(table), PATIENT_SECONDS)  # noqa: B023

    def held(self) -> dict[str, dict[str, Any]]:
        """What is held, by table."""
        return {row["table"]: row for row in self.daemon.status()["held"]}

    def drop(self, table: str) -> None:
        """A replica's table is deleted."""
        direct = Direct(self.world.dynamodb_port, "eu-west-1")
        direct.call("DeleteTable", TableName=table)
        direct.close()


@pytest.fixture
def rules(tmp_path: Path) -> Iterator[Rules]:
    """Nine of the ten have their tables."""
    with open_failing_world(tmp_path) as (world, endpoints):
        settings = world.settings(caches={})
        settings["coordination"]["held"] = "1s"
        settings["rules"] = [
            {"name": f"rule-{table}", "table": table, "source": "us", "replicas": ["eu"], "on_gap": "stop"}
            for table in TABLES
        ]
        complete = world.write_settings(settings, "complete.yaml")

        async def create() -> None:
            for table in TABLES:
                await world.create_table("us", table, stream=True)
                await world.create_table("eu", table)

        asyncio.run(create())
        world.initialise(complete)
        for region in ("us-east-1", "eu-west-1"):
            direct = Direct(world.dynamodb_port, region)
            direct.call("DeleteTable", TableName=MISSPELT)
            direct.close()
        config = world.write_settings(through(endpoints, settings))
        yield Rules(world, endpoints, config, world.daemon(config))


def test_a_rule_without_its_table_a_dropped_replica_and_a_denied_role_hold_only_themselves(rules: Rules) -> None:
    wait_for("a start", lambda: rules.daemon.events("lease_claimed"), PATIENT_SECONDS)
    rules.all_flow(TABLES[:-1])
    assert rules.held().keys() == {MISSPELT}
    row = rules.held()[MISSPELT]
    assert (row["rule"], row["cause"]) == (f"rule-{MISSPELT}", "missing")
    assert MISSPELT in row["reason"]
    code, ready = rules.daemon.get("/readyz")
    assert (code, MISSPELT in ready) == (200, True)
    assert MISSPELT in rules.world.command("status", config=rules.config).stdout
    strict = rules.world.command("run", "--strict", config=rules.config)
    assert (strict.returncode, MISSPELT in strict.stderr + strict.stdout) == (78, True)
    asyncio.run(rules.world.create_table("us", MISSPELT, stream=True))
    asyncio.run(rules.world.create_table("eu", MISSPELT))
    wait_for("the end of it", lambda: not rules.held(), PATIENT_SECONDS)
    rules.all_flow(TABLES)

    # a replica that is dropped
    dropped, others = TABLES[3], [table for table in TABLES if table != TABLES[3]]
    rules.drop(dropped)
    rules.put(dropped)
    rules.all_flow(others)
    wait_for("that it is held", lambda: rules.held().keys() == {dropped}, PATIENT_SECONDS)
    assert (rules.held()[dropped]["cause"], rules.held()[dropped]["target"]) == (
        "missing",
        f"rule-{dropped}/replica/eu:{dropped}",
    )

    # which comes back empty is not the table that was written to, until an operator says so
    asyncio.run(rules.world.create_table("eu", dropped))
    wait_for("what is wrong", lambda: rules.held()[dropped]["cause"] == "replaced", PATIENT_SECONDS)
    rules.all_flow(others)
    assert not rules.arrived(dropped)
    accepted = rules.world.command("rules", "accept", f"rule-{dropped}", "--region", "eu", config=rules.config)
    assert accepted.returncode == 0, accepted.stderr
    wait_for("what was owed to it", lambda: rules.arrived(dropped), PATIENT_SECONDS)
    assert not rules.held()

    # a role that is denied for a while
    denied, others = TABLES[5], [table for table in others if table != TABLES[5]]
    rules.endpoints["eu"].fail(Fault.DENIED, about(denied))
    rules.put(denied)
    rules.all_flow(others)
    target = f"rule-{denied}/replica/eu:{denied}"
    wait_for("that it is said", lambda: rules.daemon.targets()[target]["blocked"], PATIENT_SECONDS)
    assert "not authorized" in str(rules.daemon.targets()[target]["blocked"])
    rules.endpoints["eu"].heal()
    wait_for("the item behind it", lambda: rules.arrived(denied), PATIENT_SECONDS)
    assert not rules.daemon.events("record_parked")

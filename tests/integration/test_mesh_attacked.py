"""A mesh beside everything at once: a region hangs, another refuses items, workers are killed and suspended, and the
coordination table is away.

The truth is kept by the writer: what it wrote, and over what. At the end all regions are the same, every write that was
lost without a user's knowledge is in the log, none that stands is called overwritten, and nothing is owed.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.faulty_endpoint import Fault, about
from tests.integration.harness import World, eventually, plain
from tests.integration.outages import Endpoints, open_failing_world, through
from tests.patience import PATIENT_SECONDS

pytestmark = [pytest.mark.servers, pytest.mark.long]

REGIONS = ["us", "eu", "ap"]
KEYS = [f"k{number}" for number in range(8)]
SECONDS = 20.0


@dataclass
class Users:
    """One write after the other, in any region; `last`: what was written last of each key, `known`: what was seen."""

    world: World
    dice: random.Random
    written: dict[str, str] = field(default_factory=dict)
    over: dict[str, str] = field(default_factory=dict)
    last: dict[str, str] = field(default_factory=dict)

    async def put(self, clients: dict[str, Any], region: str, key: str, *, fits: bool) -> None:
        """A put with a version above all others; an item that does not fit is refused by one region's index."""
        value = f"{region} {len(self.written) + 1}"
        kind = {"S": "a"} if fits else {"N": "1"}
        item = {"pk": {"S": key}, "value": {"S": value}, "ver": {"N": str(len(self.written) + 1)}, "kind": kind}
        self.written[value] = key
        old = await clients[region].put_item(TableName="orders", Item=item, ReturnValues="ALL_OLD")
        if "Attributes" in old:
            self.over[value] = old["Attributes"]["value"]["S"]
        self.last[key] = value

    async def write(self, clients: dict[str, Any], stop: asyncio.Event) -> None:
        """Anything at random; what `ap` refuses is written elsewhere."""
        while not stop.is_set():
            region, fits = self.dice.choice(REGIONS), self.dice.random() < 0.7
            await self.put(clients, region, self.dice.choice(KEYS), fits=fits or region == "ap")
            await asyncio.sleep(self.dice.random() * 0.2)

    def lost(self, final: set[str]) -> set[str]:
        """What stands nowhere and was seen by no user."""
        return self.written.keys() - final - set(self.over.values())

    def history(self, value: str | None) -> set[str]:
        """What the user of a write knew."""
        found: set[str] = set()
        while value is not None and (value := self.over.get(value)) is not None:
            found.add(value)
        return found


async def trouble(world: World, endpoints: Endpoints, seconds: float) -> None:
    """What goes wrong, in one order: everything is back at the end."""
    part = seconds / 5
    endpoints["ap"].fail(Fault.HANG)
    await asyncio.sleep(part)
    world.daemons[0].kill()
    await asyncio.sleep(part / 2)
    world.daemons[0].start()
    world.daemons[1].signal(signal.SIGSTOP)
    await asyncio.sleep(part)
    endpoints["us"].fail(Fault.ERROR, about("replicator-coordination"))
    world.daemons[1].signal(signal.SIGCONT)
    await asyncio.sleep(part)
    endpoints["us"].heal()
    world.daemons[1].kill()
    world.daemons[1].start()
    await asyncio.sleep(part)


async def create(world: World) -> None:
    """Three tables, of which one has an index that some items do not fit."""
    for region in ("us", "eu"):
        await world.create_table(region, "orders", stream=True)
    async with world.client("ap") as client:
        names = ("pk", "kind")
        await client.create_table(
            TableName="orders",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "by-kind",
                    "KeySchema": [{"AttributeName": "kind", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "ALL"},
                }
            ],
        )


def start(world: World, endpoints: Endpoints, mode: str) -> Path:
    """Two daemons behind endpoints that fail."""
    settings = world.settings(caches={})
    settings["coordination"] |= {"lease": "5s", "heartbeat": "1s"}
    version = {"version": "ver"} if mode == "versioned" else {}
    settings["rules"] = [{"name": "orders", "table": "orders", "mode": mode, "regions": REGIONS, **version}]
    config = world.write_settings(through(endpoints, settings))
    world.initialise(config)
    for _ in range(2):
        world.daemon(config)
    return config


def judge(users: Users, final: set[str], conflicts: list[dict[str, Any]]) -> None:
    """The log beside what was written."""
    entries = [(entry["outcome"], value_in(entry["winner"]), value_in(entry["loser"])) for entry in conflicts]
    lost, losers = users.lost(final), {loser for _, _, loser in entries}
    called = {loser for outcome, _, loser in entries if outcome == "overwritten"} & final
    known = [each for each in entries if each[2] in users.history(each[1])]
    print(f"{len(lost)} lost unseen, {len(entries)} entries, {len(known)} about what was known")  # noqa: T201
    assert lost <= losers, f"{sorted(lost - losers)} were lost without an entry"
    assert not called, f"{sorted(map(str, called))} stand, and are called overwritten"


async def attack(directory: Path, mode: str, seconds: float, seed: int) -> None:
    """Let everything go wrong for so long, and compare with the truth."""
    with open_failing_world(directory) as (world, endpoints):
        await create(world)
        config = start(world, endpoints, mode)

        async def asked(*arguments: str) -> tuple[int, Any]:
            answer = await asyncio.to_thread(world.command, *arguments, "--json", config=config)
            assert "Traceback" not in answer.stderr, answer.stderr
            return answer.returncode, json.loads(answer.stdout)

        async def tables() -> list[dict[str, Any]]:
            return [{key: plain(item) for key, item in (await world.scan(each, "orders")).items()} for each in REGIONS]

        async with world.client("us") as us, world.client("eu") as eu, world.client("ap") as ap:
            clients = {"us": us, "eu": eu, "ap": ap}
            users, stop = Users(world, random.Random(seed)), asyncio.Event()
            for key in KEYS:
                await users.put(clients, "us", key, fits=True)

            async def first_arrives() -> bool:
                return all(table.keys() == set(KEYS) for table in await tables())

            await eventually("the first items", first_arrives)

            async def told() -> bool:
                code, status = await asked("status")
                assert (code, status["unanswered"]) == (69, ["ap"]), status["unreadable"]
                ap = next(region for region in status["regions"] if region["region"] == "ap")
                print(f"{len(users.written)} writes; ap: {ap}")  # noqa: T201
                return ap["keys"] > 0 and ap["away_seconds"] is not None

            async with asyncio.TaskGroup() as group:
                group.create_task(users.write(clients, stop))
                await trouble(world, endpoints, seconds)
                await eventually("that the log names it", told)
                stop.set()
            endpoints["ap"].heal()
            for key in KEYS:
                await users.put(clients, "us", key, fits=True)

            async def agreed() -> bool:
                found = await tables()
                return all(table == found[0] for table in found) and found[0].keys() == set(KEYS)

            async def nothing_is_owed() -> bool:
                code, status = await asked("status")
                return code == 0 and not status["regions"] and not status["parked"]

            await eventually("agreement", agreed, seconds=PATIENT_SECONDS)
            await eventually("that nothing is owed", nothing_is_owed, seconds=PATIENT_SECONDS)
            final = {item["value"]["S"] for item in (await tables())[0].values()}
        if mode == "versioned":
            assert final == set(users.last.values())
        _, log = await asked("conflicts", "list")
        judge(users, final, log["conflicts"])
        assert [daemon.terminate() for daemon in world.daemons] == [0, 0]


def value_in(image: Any) -> str | None:
    return None if image is None else image["value"]["S"]


async def test_whatever_fails_at_once_nothing_is_lost_unseen(tmp_path: Path) -> None:
    await attack(tmp_path, "versioned", SECONDS, 1)

"""The demo of the modes of a mesh: real runs end identical, and its judgement sees every kind of difference."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import yaml

from replicator.demo.command import demo
from replicator.demo.dynamodb import Typed, local_regions
from replicator.demo.items import Keyspace, new_item
from replicator.demo.layout import ORDERED, VERSION, mesh
from replicator.demo.mesh import keys as mesh_keys
from replicator.demo.mesh.compare import MeshFindings, alike, compare_mesh
from replicator.demo.mesh.echo import Streams
from replicator.demo.mesh.keys import MeshKey, Write, content_of, mesh_keyspace
from replicator.demo.mesh.traffic import MeshWriters
from replicator.demo.reader import CacheReader, cache_readers
from replicator.demo.run import DemoOptions
from replicator.demo.traffic import warm
from replicator.demo.world import CONFLICT_TABLE, Daemon, World, open_world
from replicator.domain.image import Image
from replicator.domain.stamps import Stamp, StampKind, Version
from replicator.domain.stamps import content_of as stamp_content
from replicator.domain.versions import STAMP
from tests.patience import PATIENT_SECONDS

pytestmark = pytest.mark.servers


# -- the command ---------------------------------------------------------------------------------------------------


def run_demo(directory: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, "-m", "replicator", "demo", "--json", *arguments]
    environment = os.environ | {"TMPDIR": str(directory)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=PATIENT_SECONDS, check=False
    )
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if len(lines) == 1 else {}, done.stderr


@pytest.mark.slow
def test_regions_that_users_write_in_side_by_side_end_identical(tmp_path: Path) -> None:
    mode, regions = "active-active", 3  # versioned in two regions: with the laboratory's streams, in test_demo_shards
    code, report, progress = run_demo(
        tmp_path, "--mode", mode, "--regions", str(regions), "--duration", "3", "--rate", "30"
    )
    assert code == 0, progress
    assert report["verdict"] == "identical"
    assert report["mode"] == mode
    assert len(report["regions"]) == regions
    assert report["differences"] == []
    assert report["daemon_exit_code"] == 0
    assert report["traffic"]["clashes"] > 0
    assert report["records"]["by_daemon"] > report["records"]["by_users"] * (regions - 1) / 2
    assert report["records"]["after_silence"] == 0
    assert report["conflicts"]["entries"] > 0
    assert report["conflicts"]["examples"]
    assert report["compared"]["contested_keys"] > 0
    assert report["compared"]["keys"] >= 300
    assert report["compared"]["cache_entries"] >= 1000
    assert len(report["lag"]) == regions * (regions - 1)
    assert len(report["caches"]) == regions


def few_items(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Let a demo of this process have too few items for a verdict `identical`, and its files there."""
    monkeypatch.setattr(mesh_keys, "_LEAST_ORDER_KEYS", 40)
    monkeypatch.setattr(mesh_keys, "_CACHED_ORDERS", 40)
    monkeypatch.setattr(tempfile, "tempdir", str(directory))


@pytest.mark.slow
def test_regions_whose_changes_are_pushed_by_kinesis_end_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_items(monkeypatch, tmp_path)
    pushed = {"source": "kinesis", "fan_out": True, "shards": 2}
    asyncio.run(demo(DemoOptions(duration=1, rate=20, json=True, mode="versioned", regions=2, **pushed)))  # type: ignore[arg-type]
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["differences"] == []
    assert report["records"]["by_daemon"] > report["records"]["by_users"] / 2
    assert report["records"]["after_silence"] == 0
    assert report["daemon_exit_code"] == 0


@pytest.mark.slow
def test_a_region_that_is_altered_behind_functions_is_found_and_nothing_else_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drain = Daemon.drain

    async def altering(daemon: Daemon) -> int:
        code = await drain(daemon)
        config = yaml.safe_load(daemon.config.read_text())
        async with local_regions(config["regions"]["eu"]["endpoint_url"], {"eu": "eu-west-1"}) as regions:
            image = await anext(regions["eu"].scan("orders-copy"))
            key = {name: image.attributes[name] for name in ("customer", "order")}
            await regions["eu"].update("orders-copy", key, {"total": {"N": "41"}})
        return code

    monkeypatch.setattr(Daemon, "drain", altering)
    few_items(monkeypatch, tmp_path)
    code = asyncio.run(
        demo(DemoOptions(duration=1, rate=20, json=True, mode="active-active", regions=2, engine="lambda"))
    )
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 1
    assert report["verdict"] == "different"
    assert report["records"]["by_daemon"] > report["records"]["by_users"] / 2
    assert any(
        re.fullmatch(r"eu/orders-copy: .*: differs from us/orders \(total\)", line) for line in report["differences"]
    )
    assert len(report["differences"]) <= 3, "its content, its stamp, and its entry in the cache if there is one"


def test_mode_ordered_has_its_three_regions() -> None:
    command = [sys.executable, "-m", "replicator", "demo", "--regions", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENT_SECONDS, check=False)
    assert done.returncode == 2
    assert "mode ordered has 3 regions" in done.stderr


def test_rules_say_what_each_mode_needs() -> None:
    (orders, _) = mesh("versioned", 4).rules()
    assert orders["regions"] == ["us", "eu", "ap", {"region": "sa", "table": "orders-copy"}]
    assert orders["version"] == VERSION
    assert {action["action"] for action in orders["cache"]} == {"invalidate"}
    assert ORDERED.rules()[0]["replicas"] == ["eu", {"region": "ap", "table": "orders-copy"}]


# -- who may survive -----------------------------------------------------------------------------------------------


def key_with(*writes: Write) -> MeshKey:
    table = mesh("active-active", 3).tables[1]
    return MeshKey(table, {"id": {"S": "k"}}, ("us", "eu", "ap"), history=list(writes))


def write(  # noqa: PLR0917
    number: int,
    region: str,
    content: str | None,
    second: float,
    over: int = 0,
    version: int | None = None,
    marked: bool = False,
) -> Write:
    return Write(number, region, content, over, version, int(second * 1000), int(second * 1000) + 20, marked)


def survivors(mode: str, *writes: Write) -> set[str | None]:
    return {survivor.content for survivor in key_with(*writes).survivors(mode)}


def test_the_last_write_of_any_region_may_survive_when_they_came_in_one_second() -> None:
    assert survivors(
        "active-active", write(1, "us", "a", 7.1), write(2, "us", "b", 7.2), write(3, "eu", None, 7.3)
    ) == {
        "b",
        None,
    }


def test_a_write_of_a_later_second_beats_all_others() -> None:
    assert survivors("active-active", write(1, "us", "a", 7.9), write(2, "eu", "b", 8.0)) == {"b"}


def test_a_write_that_ended_in_a_later_second_is_not_beaten() -> None:
    assert survivors("active-active", write(1, "us", "a", 7.99), write(2, "eu", "b", 8.0)) == {"a", "b"}


def test_a_delete_that_counts_as_the_daemons_lets_the_write_before_it_survive() -> None:
    assert survivors("active-active", write(1, "us", "a", 7.1), write(2, "us", None, 7.2, marked=True)) == {"a", None}


def test_the_greatest_version_survives_and_a_delete_beats_an_equal_one() -> None:
    assert survivors("versioned", write(1, "us", "a", 7, version=5), write(2, "eu", "b", 9, version=4)) == {"a"}
    assert survivors("versioned", write(1, "us", "b", 7, version=5), write(2, "eu", "a", 9, version=5)) == {"b"}
    assert survivors("versioned", write(1, "us", "a", 7, version=5), write(2, "eu", None, 8, version=5)) == {None}
    assert survivors("versioned", write(1, "us", "a", 7), write(2, "eu", "b", 8, version=-3)) == {"b"}


def test_an_image_is_lost_when_nobody_saw_it_and_it_is_not_the_survivor() -> None:
    key = key_with(
        write(1, "us", "a", 7.0),
        write(2, "us", "b", 7.1, over=1),
        write(3, "eu", "c", 7.2),
        write(4, "us", None, 7.3, over=3),
    )
    assert [(lost.content, maximal) for lost, maximal in key.losses(None)] == [("b", False)]
    key = key_with(write(1, "us", "a", 7.0), write(2, "eu", "b", 7.1))
    assert [(lost.content, maximal) for lost, maximal in key.losses("a")] == [("b", True)]


# -- the comparison ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scene:
    """Two regions that were replicated by hand, as mode `active-active` asks."""

    world: World
    keys: Keyspace[MeshKey]
    readers: tuple[CacheReader, ...]

    async def compare(self) -> MeshFindings:
        return await compare_mesh(self.world, self.keys, self.readers)

    def live(self) -> list[MeshKey]:
        return [key for key in self.keys.of(self.world.tables[0]) if len(key.history) == 1]

    async def item(self, key: MeshKey) -> Typed:
        image = await self.world.regions["us"].get("orders", key.key)
        assert image is not None
        return image.attributes

    async def put(self, key: MeshKey, item: Typed, *regions: str) -> None:
        for region in regions or self.world.regions:
            await self.world.regions[region].put(key.table.names[region], item)

    async def store(self, key: MeshKey, entry: str) -> None:
        reader = self.readers[1]
        await reader.client.set(reader.key(key), entry)


def stamped(item: Typed, second: int = 1_700_000_000, kind: StampKind = StampKind.VALUE) -> Typed:
    plain = {name: typed for name, typed in item.items() if name != STAMP}
    image = Image(msgspec.json.encode(plain))
    stamp = Stamp(Version(second * 1_000_000, 0, "us", 1), kind, stamp_content(image), "-")
    return plain | {STAMP: {"S": stamp.sealed("AAAAAAAA")}}


@asynccontextmanager
async def replicated(directory: Path) -> AsyncIterator[Scene]:
    async with open_world(directory, mesh("active-active", 2)) as world:
        await world.create_tables()
        conflicts = {
            "TableName": CONFLICT_TABLE,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        }
        await world.regions["us"].call("CreateTable", conflicts)
        keys = mesh_keyspace(world.layout, Random(1))
        await MeshWriters(world, keys, Random(2), {}).seed()
        await replicate_by_hand(world, keys)
        readers = cache_readers(world)
        try:
            for reader in readers:
                await warm(reader, keys)
            yield Scene(world, keys, readers)
        finally:
            for reader in readers:
                await reader.client.aclose()


async def replicate_by_hand(world: World, keys: Keyspace[MeshKey]) -> None:
    """Let one of the seeds of every key win, and write the other one to the conflict log."""
    entries: list[Typed] = []
    for table in world.tables:
        seeds: dict[str | None, Typed] = {}
        for region, name in table.names.items():
            seeds |= {content_of(image): image.attributes async for image in world.regions[region].scan(name)}
        for key in keys.of(table):
            standing = [seeds[seed.content] for seed in key.survivors("active-active")]
            lost = [seeds[seed.content] for seed, _ in key.losses(None)]
            for winner in standing[:1]:
                for region, name in table.names.items():
                    await world.regions[region].put(name, stamped(winner))
            losers = [seed for seed in lost if seed not in standing[:1]]
            entries += [conflict(key, len(entries) + n, loser) for n, loser in enumerate(losers)]
    await world.regions["us"].put_all(CONFLICT_TABLE, entries)


def conflict(key: MeshKey, number: int, loser: Typed) -> Typed:
    texts = {
        "kind": "put_put",
        "reason": "region_tie",
        "outcome": "overwritten",
        "detected_at": "2026-01-01T00:00:00.000",
    }
    return {
        "id": {"S": str(number)},
        "table": {"S": key.table.rule},
        "key": {"S": msgspec.json.encode(key.key).decode()},
        "loser_image": {"S": msgspec.json.encode(loser).decode()},
        **{name: {"S": text} for name, text in texts.items()},
    }


async def alter_a_region(scene: Scene, key: MeshKey) -> None:
    await scene.put(key, stamped(await scene.item(key) | {"total": {"N": "41"}}), "eu")


async def lose_an_item(scene: Scene, key: MeshKey) -> None:
    await scene.world.regions["eu"].delete("orders-copy", key.key)


async def leave_an_item(scene: Scene, key: MeshKey) -> None:
    await scene.world.regions["us"].delete("orders", key.key)


async def invent_an_item(scene: Scene, key: MeshKey) -> None:
    await scene.put(key, stamped(await scene.item(key) | {"total": {"N": "41"}}))


async def delete_everywhere(scene: Scene, key: MeshKey) -> None:
    for region in scene.world.regions:
        await scene.world.regions[region].delete(key.table.names[region], key.key)


async def forget_a_later_write(scene: Scene, key: MeshKey) -> None:
    last = key.history[-1]
    key.history.append(write(9, last.region, "later", last.acknowledged_ms / 1000 + 5, over=last.number))


async def lose_a_write(scene: Scene, key: MeshKey) -> None:
    last = key.history[-1]
    other = "eu" if last.region == "us" else "us"
    key.writers = ("us", "eu")
    key.history.insert(0, write(9, other, "lost", last.started_ms / 1000))


async def wipe_a_stamp(scene: Scene, key: MeshKey) -> None:
    plain = {name: typed for name, typed in (await scene.item(key)).items() if name != STAMP}
    await scene.put(key, plain, "eu")


async def leave_a_mark(scene: Scene, key: MeshKey) -> None:
    await scene.put(key, stamped(await scene.item(key), kind=StampKind.MARK), "eu")


async def change_a_version(scene: Scene, key: MeshKey) -> None:
    await scene.put(key, stamped(await scene.item(key), second=1_700_000_001), "eu")


async def age_an_entry(scene: Scene, key: MeshKey) -> None:
    item = new_item(key, 9, Random(3))
    await scene.store(key, f"V:0|{msgspec.json.encode(item).decode()}")


async def store_rubbish(scene: Scene, key: MeshKey) -> None:
    await scene.store(key, "T:0")


async def store_half_an_entry(scene: Scene, key: MeshKey) -> None:
    await scene.store(key, "V:0|{")


SABOTAGE: dict[Callable[[Scene, MeshKey], Awaitable[None]], str] = {
    alter_a_region: r"eu/orders-copy: .*: differs from us/orders \(total\)",
    lose_an_item: r"eu/orders-copy: .*: is missing, but is in us/orders",
    leave_an_item: r"eu/orders-copy: .*: is not in us/orders",
    invent_an_item: r"all regions: .*: is what no user wrote",
    delete_everywhere: r"all regions: .*: is absent, but the winner is no delete",
    forget_a_later_write: r"all regions: .*: is not the (last write of its only region|write that had to win)",
    lose_a_write: r"the conflict log: .*: knows nothing of the lost write of (us|eu)",
    wipe_a_stamp: r"eu/orders-copy: .*: has a stamp that is not its own",
    leave_a_mark: r"eu/orders-copy: .*: is still marked for deletion",
    change_a_version: r"us/orders, eu/orders-copy: .*: carries different versions",
    age_an_entry: r"eu_cache: .*: holds another content than its region",
    store_rubbish: r"eu_cache: .*: is no entry that a reader makes",
    store_half_an_entry: r"eu_cache: .*: is not an item's JSON",
}


async def test_regions_replicated_as_the_protocol_asks_are_identical_and_an_empty_cache_is_not_enough(
    tmp_path: Path,
) -> None:
    async with replicated(tmp_path) as scene:
        assert await alike(scene.world)
        findings = await scene.compare()
        await scene.readers[0].client.flushall()
        too_little = await scene.compare()
    assert findings.differences == []
    assert findings.conflicts
    assert findings.lost_maximal > 0
    assert findings.enough
    assert too_little.identical
    assert not too_little.enough


async def test_the_judgement_sees_each_kind_of_difference_and_no_other(tmp_path: Path) -> None:
    async with replicated(tmp_path) as scene:
        cases = list(zip(SABOTAGE, scene.live(), strict=False))
        for sabotage, key in cases:
            await sabotage(scene, key)
        nobody: Typed = {"customer": {"S": "nobody"}, "order": {"N": "1"}}
        for region, name in scene.world.tables[0].names.items():
            await scene.world.regions[region].put(name, stamped(nobody))
        await scene.readers[1].client.set("order:nobody:1", "V:|{}")
        findings = await scene.compare()
        assert not await alike(scene.world)
    found = {str(difference) for difference in findings.differences}
    for sabotage, key in cases:
        names = (f" {key.shown}:", f" {scene.readers[1].key(key)}:")
        shown = {line for line in found if any(name in line for name in names)}
        assert any(re.fullmatch(SABOTAGE[sabotage], line) for line in shown), (sabotage.__name__, shown)
        found -= shown
    assert found == {
        "us/orders: customer=nobody, order=1: was never written",
        "eu_cache: order:nobody:1: is an entry of no known item",
    }


async def test_streams_count_every_change_of_every_region(tmp_path: Path) -> None:
    async with open_world(tmp_path, mesh("versioned", 2)) as world:
        await world.create_tables()
        streams = Streams.of(world)
        assert await streams.count() == 0
        keys = mesh_keyspace(world.layout, Random(1))
        writers = MeshWriters(world, keys, Random(2), {})
        seeded = await writers.seed()
        await writers.run(rate=200, duration=1)
        assert writers.writes > 0
        assert await streams.count() == seeded + writers.writes
        assert not await streams.wait_for_silence(lambda: alike(world), 0.1, 1.0)
        for key in keys.keys:
            await knows_what_it_wrote(world, key)


async def knows_what_it_wrote(world: World, key: MeshKey) -> None:
    """Without a daemon, a region holds its own last write, and every write followed the one before."""
    for region in key.writers:
        history = [write for write in key.history if write.region == region]
        image = await world.regions[region].get(key.table.names[region], key.key)
        assert content_of(image) == (history[-1].content if history else None)
        standing = 0
        for write in history:
            assert write.over == standing
            standing = 0 if write.content is None else write.number

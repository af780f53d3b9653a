"""The real daemon as a process, against real servers: killed, paused, cut off, misled."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import CacheReader, Daemon, Users, Valve, World, eventually, open_world
from tests.patience import PATIENT_SECONDS
from tests.seeds import first

pytestmark = pytest.mark.servers

TO_EU, TO_AP = "orders/replica/eu:orders", "orders/replica/ap:orders-copy"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


async def converged(world: World, users: Users) -> bool:
    return all(items == users.truth for items in (await world.replicas()).values())


async def assert_source_is_truth(world: World, users: Users) -> None:
    assert await world.scan("us", "orders") == users.truth


@asynccontextmanager
async def reading(world: World, users: Users) -> AsyncIterator[dict[str, CacheReader]]:
    """Readers beside both replicas, as long as the block lasts."""
    stop = asyncio.Event()
    with (
        CacheReader(world, database=0, region="eu", table="orders", template="order:{pk}") as eu,
        CacheReader(world, database=1, region="ap", table="orders-copy", template="copy:{pk}") as ap,
    ):
        tasks = [asyncio.ensure_future(reader.keep_reading(lambda: list(users.truth), stop)) for reader in (eu, ap)]
        try:
            yield {"eu": eu, "ap": ap}
        finally:
            stop.set()
            await asyncio.gather(*tasks)


async def assert_coherent(readers: dict[str, CacheReader]) -> None:
    for region, reader in readers.items():
        _, lies = await reader.incoherent()
        assert not lies, f"the cache beside {region} lies about {lies[:5]}"


async def read_enough(users: Users, readers: dict[str, CacheReader]) -> None:
    """Let the readers go on until half of all items is in every cache, however long that takes here."""

    async def filled() -> bool:
        return all([(await reader.incoherent())[0] * 2 >= len(users.truth) for reader in readers.values()])

    assert len(users.truth) > 20
    await eventually("filled caches", filled)


@pytest.mark.parametrize("kills", first(1, [1, 5]))
async def test_kills_during_a_load_lose_nothing_and_leave_caches_coherent(world: World, kills: int) -> None:
    await world.create_tables()
    settings = world.settings()
    settings["coordination"]["lease"] = "6s"  # a busy machine ends few sessions
    settings["coordination"]["checkpoint"] = "30s"  # else a life may have saved all that it applied
    config = world.write_settings(settings)
    world.initialise(config)
    users = Users(world, seed=1)
    daemon = world.daemon(config)
    async with reading(world, users) as readers:
        enough = asyncio.Event()

        async def write() -> None:
            while not enough.is_set():
                await users.write(80, per_second=150)

        load = asyncio.ensure_future(write())
        for life in range(50):
            await eventually("work", lambda: _records_of_this_life(daemon) > 20)
            if life >= kills and _replayed(daemon):  # a kill may come right behind a checkpoint
                break
            daemon.kill()
            daemon.start()
        enough.set()
        await load
        await eventually("convergence", lambda: converged(world, users))
        await eventually("idleness", lambda: all(target["lag_seconds"] == 0 for target in daemon.targets().values()))
        assert _replayed(daemon)
        await read_enough(users, readers)
    await assert_source_is_truth(world, users)
    await assert_coherent(readers)
    assert daemon.terminate() == 0


def _replayed(daemon: Daemon) -> int:
    """Records that were applied a second time, over all lives."""
    replayed: int = sum(line["stale"] for line in daemon.events("batch_applied"))
    return replayed


def _records_of_this_life(daemon: Daemon) -> int:
    lines = daemon.log.read_text().split('"event": "starting"')[-1]
    return lines.count('"event": "batch_applied"') * 10


@pytest.mark.long
async def test_a_paused_worker_loses_its_shard_and_harms_nothing_when_it_wakes(world: World) -> None:
    await world.create_tables()
    config = world.write_settings(world.settings())
    world.initialise(config)
    users = Users(world, seed=2)
    first = world.daemon(config)
    await eventually("a lease", lambda: first.events("lease_claimed"))
    second = world.daemon(config)
    load = asyncio.ensure_future(users.write(400, per_second=80))
    await eventually("work", lambda: first.events("batch_applied"))
    first.signal(signal.SIGSTOP)
    await eventually("a take-over", lambda: second.events("lease_claimed"))
    await eventually("work", lambda: second.events("batch_applied"))
    first.signal(signal.SIGCONT)
    await load
    await eventually("convergence", lambda: converged(world, users))
    assert [line["why"] for line in first.events("lease_ended")] == ["lost"]
    assert second.terminate() == 0
    await eventually("the shard going back", lambda: len(first.events("lease_claimed")) == 2)
    await users.write(80)
    await eventually("convergence", lambda: converged(world, users))
    assert first.terminate() == 0


def _blocked(daemon: Daemon, target: str) -> dict[str, Any]:
    blocked: dict[str, Any] = daemon.targets()[target]["blocked"]
    return blocked


def _all_idle(daemon: Daemon) -> bool:
    return all(not target["blocked"] and target["lag_seconds"] == 0 for target in daemon.targets().values())


@pytest.mark.long
async def test_a_lost_cache_is_filled_again_and_stays_coherent(world: World) -> None:
    await world.create_tables()
    config = world.write_settings(world.settings())
    world.initialise(config)
    users = Users(world, seed=4)
    daemon = world.daemon(config)
    async with reading(world, users) as readers:
        load = asyncio.ensure_future(users.write(320, per_second=120))
        await eventually("work", lambda: daemon.events("batch_applied"))
        readers["eu"].flush()
        await asyncio.sleep(1)
        readers["eu"].flush()
        await load
        await eventually("convergence", lambda: converged(world, users))
        await eventually("idleness", lambda: _all_idle(daemon))
        await read_enough(users, readers)
    await assert_coherent(readers)


@pytest.mark.long
async def test_an_unreachable_replica_region_holds_the_checkpoint_until_it_is_back(world: World) -> None:
    valve = Valve(world.dynamodb_port)
    await world.create_tables()
    settings = world.settings()
    settings["regions"]["eu"]["endpoint_url"] = f"http://127.0.0.1:{valve.port}"
    config = world.write_settings(settings)
    world.initialise(config)
    users = Users(world, seed=5)
    daemon = world.daemon(config)
    await users.write(80)
    await eventually("convergence", lambda: converged(world, users))
    valve.close()
    await users.write(160)
    await eventually("the reason in sight", lambda: _blocked(daemon, TO_EU))
    assert "eu" in _blocked(daemon, TO_EU)["reason"]
    daemon.kill()
    daemon.start()
    await asyncio.sleep(1)
    valve.open()
    await eventually("convergence", lambda: converged(world, users))
    valve.close()


@pytest.mark.long
async def test_a_record_that_the_replica_refuses_stops_the_shard_in_sight_until_it_fits(world: World) -> None:
    await world.create_tables()
    config = world.write_settings(world.settings(rule={"cache": [], "refused": "stop"}, caches={}))
    world.initialise(config)
    daemon = world.daemon(config)
    async with world.client("us") as client:
        await client.put_item(TableName="orders", Item={"pk": {"S": "small"}})
        await client.put_item(TableName="orders", Item={"pk": {"S": "huge"}, "x": {"S": "a" * (400 * 1024 - 20)}})
        await client.put_item(TableName="orders", Item={"pk": {"S": "later"}})
        await eventually("the reason in sight", lambda: _blocked(daemon, TO_EU))
        blocked = _blocked(daemon, TO_EU)
        assert blocked["key"] == "pk=huge"
        assert "409600" in blocked["reason"]
        assert "aaaa" not in daemon.log.read_text()
        assert daemon.terminate() == 0
        daemon.start()
        await eventually("the reason in sight again", lambda: _blocked(daemon, TO_AP))
        assert (await world.scan("eu", "orders")).keys() == {"small", "later"}
        await client.put_item(TableName="orders", Item={"pk": {"S": "huge"}, "x": {"S": "fits"}})
        await eventually("the corrected item", lambda: _has(world, "huge"))
        await eventually("no trouble", lambda: _all_idle(daemon))


async def _has(world: World, key: str) -> bool:
    return key in await world.scan("eu", "orders") and key in await world.scan("ap", "orders-copy")


async def test_sigterm_drains_stores_and_releases_so_that_the_next_start_replays_nothing(world: World) -> None:
    await world.create_tables()
    settings = world.settings()
    settings["coordination"]["lease"] = "20s"  # a busy machine ends no session
    config = world.write_settings(settings)
    world.initialise(config)
    users = Users(world, seed=6)
    daemon = world.daemon(config)
    await users.write(200)
    await eventually("work", lambda: daemon.events("batch_applied"))
    assert daemon.terminate() == 0
    assert [line["why"] for line in daemon.events("lease_ended")] == ["stopped"]
    before = len(daemon.events("batch_applied"))
    daemon.start()
    await eventually("a second life", lambda: len(daemon.events("lease_claimed")) == 2)
    await eventually("convergence", lambda: converged(world, users))
    assert sum(line["stale"] for line in daemon.events("batch_applied")[before:]) == 0
    assert daemon.terminate() == 0


@pytest.mark.long
async def test_a_second_signal_means_now(world: World) -> None:
    valve = Valve(world.dynamodb_port)
    await world.create_tables()
    settings = world.settings(rule={"cache": []}, caches={})
    settings["regions"]["eu"]["endpoint_url"] = f"http://127.0.0.1:{valve.port}"
    config = world.write_settings(settings)
    world.initialise(config)
    daemon = world.daemon(config)
    await eventually("a lease", lambda: daemon.events("lease_claimed"))
    daemon.signal(signal.SIGTERM)
    daemon.signal(signal.SIGTERM)
    assert daemon.process.wait(PATIENT_SECONDS) in {0, 75}
    valve.close()


@pytest.mark.long
async def test_start_latest_delivers_only_what_came_after_even_across_a_crash(world: World) -> None:
    await world.create_tables()
    users = Users(world, seed=7)
    await users.write(40)
    old = dict(users.truth)
    await asyncio.sleep(4)  # the tolerance of the start is two seconds, and stream times are whole seconds
    config = world.write_settings(world.settings(rule={"start": "latest"}))
    world.initialise(config)
    daemon = world.daemon(config)
    await eventually("a lease", lambda: daemon.events("lease_claimed"))
    await eventually("a start", lambda: daemon.events("batch_applied"))
    daemon.kill()
    async with world.client("us") as client:
        await client.put_item(TableName="orders", Item={"pk": {"S": "new"}})
    daemon.start()
    await eventually("the new item", lambda: _has(world, "new"))
    assert (await world.scan("eu", "orders")).keys().isdisjoint(old)


@pytest.mark.long
async def test_an_unstamped_item_is_adopted_counted_and_written_to_the_conflict_log(world: World) -> None:
    await world.create_tables()
    config = world.write_settings(world.settings())
    world.initialise(config)
    async with world.client("eu") as eu, world.client("us") as us:
        await eu.put_item(TableName="orders", Item={"pk": {"S": "a"}, "by": {"S": "mistake"}})
        await us.put_item(TableName="orders", Item={"pk": {"S": "a"}, "by": {"S": "the writer"}})
        daemon = world.daemon(config)
        await eventually("adoption", lambda: daemon.targets()[TO_EU]["counts"]["adopted"] == 1)
        await eu.put_item(TableName="orders", Item={"pk": {"S": "a"}, "by": {"S": "mistake again"}})
        await us.delete_item(TableName="orders", Key={"pk": {"S": "a"}})
        await eventually("adoption", lambda: daemon.targets()[TO_EU]["counts"]["adopted"] == 2)
        entries = (await us.scan(TableName="replicator-conflicts-test"))["Items"]
    assert await world.scan("eu", "orders") == {}
    losers = sorted(entry["loser_image"]["S"] for entry in entries)
    assert len(losers) == 2
    assert "mistake again" in losers[0]
    assert {entry["kind"]["S"] for entry in entries} == {"unversioned"}


@pytest.mark.long
async def test_a_filter_lets_items_in_and_takes_them_out_again(world: World) -> None:
    await world.create_tables()
    config = world.write_settings(world.settings(rule={"filter": {"equals": {"state": "open"}}}))
    world.initialise(config)
    world.daemon(config)

    async def put(client: Any, key: str, state: str) -> None:
        await client.put_item(TableName="orders", Item={"pk": {"S": key}, "state": {"S": state}})

    async with world.client("us") as client:
        await put(client, "in", "open")
        await put(client, "out", "closed")
        await put(client, "leaves", "open")
        await eventually("the open ones", lambda: _keys(world, {"in", "leaves"}))
        await put(client, "leaves", "closed")
        await put(client, "out", "open")
        await eventually("the change", lambda: _keys(world, {"in", "out"}))


async def _keys(world: World, keys: set[str]) -> bool:
    return all(items.keys() == keys for items in (await world.replicas()).values())


@pytest.mark.long
async def test_a_renamed_rule_is_refused_until_its_progress_is_renamed_too(world: World) -> None:
    await world.create_tables()
    config = world.write_settings(world.settings())
    world.initialise(config)
    users = Users(world, seed=8)
    daemon = world.daemon(config)
    await users.write(40)
    await eventually("convergence", lambda: converged(world, users))
    assert daemon.terminate() == 0
    renamed = world.write_settings(world.settings(rule={"name": "bestellungen"}), "renamed.yaml")
    refused = world.command("run", config=renamed)
    assert refused.returncode == 78
    assert "replicator rules rename orders bestellungen" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = world.command("rules", "rename", "orders", "bestellungen", config=renamed)
    assert done.returncode == 0, done.stderr
    daemon = world.daemon(renamed)
    await users.write(40)
    await eventually("convergence", lambda: converged(world, users))
    assert sum(line["stale"] for line in daemon.events("batch_applied")) == 0


@pytest.mark.long
async def test_a_stream_that_is_enabled_anew_is_drained_and_followed_by_its_successor(world: World) -> None:
    await world.create_tables()
    config = world.write_settings(world.settings())
    world.initialise(config)
    users = Users(world, seed=9)
    daemon = world.daemon(config)
    await users.write(80)
    await eventually("work", lambda: daemon.events("batch_applied"))
    async with world.client("us") as client:
        await client.update_table(TableName="orders", StreamSpecification={"StreamEnabled": False})
        enabled = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
        await client.update_table(TableName="orders", StreamSpecification=enabled)
    await users.write(80)
    await eventually("convergence", lambda: converged(world, users))
    assert {gap["target"] for gap in daemon.events("gap_found")} == {
        TO_EU,
        TO_AP,
    }
    assert daemon.terminate() == 0


@pytest.mark.long
async def test_a_lower_epoch_than_one_seen_is_refused(world: World) -> None:
    await world.create_tables()
    config = world.write_settings(world.settings(rule={"epoch": 2}))
    world.initialise(config)
    daemon = world.daemon(config)
    await eventually("a lease", lambda: daemon.events("lease_claimed"))
    assert daemon.terminate() == 0
    refused = world.command("run", config=world.write_settings(world.settings(rule={"epoch": 1})))
    assert refused.returncode == 78
    assert "epoch" in refused.stderr
    assert "Traceback" not in refused.stderr

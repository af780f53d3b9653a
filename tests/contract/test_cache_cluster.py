"""A cache that is a cluster of real nodes: slots that move, nodes that hang, die and come back old, and a failover."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.asyncio.cluster import RedisCluster
from redis.cluster import RedisCluster as SyncCluster
from redis.crc import key_slot

from replicator.adapters.clock import SystemClock
from replicator.adapters.redis.cluster import ClusterCache, open_cache
from replicator.adapters.redis.opening import Login
from replicator.cache import CacheAside, SyncCacheAside
from replicator.cache.reading import Loaded, Source
from replicator.domain.cache_debt import DebtPolicy, PartAway
from replicator.domain.cache_keys import CacheAction, CacheVerb, Invalidate, Refresh
from replicator.domain.errors import ReplicatorError, Unreachable, WorldMismatch
from replicator.domain.identifiers import RegionId
from replicator.engine.applying.cache_debt import CacheDebt, Share
from replicator.engine.applying.cache_settling import Settler
from replicator.laboratory.memory import MemoryCacheDebt
from tests.contract.cluster_servers import BINARIES, Cluster, Node, cluster
from tests.engine.world import Recorder
from tests.patience import PATIENT_SECONDS

pytestmark = [pytest.mark.servers, pytest.mark.asyncio]
SEAT = Share(seated=True, workers=1)
OPTIONS = ("--cluster-require-full-coverage", "no", "--cluster-allow-replica-migration", "no")


@pytest.fixture(scope="module", params=BINARIES)
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three primaries, the first with a replica."""
    with cluster(tmp_path_factory.mktemp("cluster"), request.param, replicas=1, options=OPTIONS) as started:
        yield started


def keys_of(nodes: Cluster, slot: int, count: int) -> list[str]:
    """Keys of one slot."""
    found = (f"order:{number}" for number in range(10**7))
    return [key for key, _ in zip((key for key in found if key_slot(key.encode()) == slot), range(count), strict=False)]


@asynccontextmanager
async def opened(nodes: Cluster) -> AsyncIterator[tuple[ClusterCache, Any]]:
    """The cache, and a client of the whole cluster beside it."""
    cache = open_cache("main", nodes.url, Login(), Login(), connect_seconds=3, read_seconds=5)
    assert isinstance(cache, ClusterCache)
    async with RedisCluster(host="127.0.0.1", port=nodes.primaries[0].port) as client:
        for node in nodes.nodes:
            if node.client.info("replication")["role"] == "master":
                node.client.flushall()
        yield cache, client
    await cache.close()


@dataclass
class Shop:
    """A table, its writers and readers, and the cache between them."""

    debt: CacheDebt
    readers: CacheAside
    table: dict[str, int] = field(default_factory=dict)
    reads: int = 0

    async def load(self, pk: str) -> Loaded | None:
        found = self.table.get(pk)
        return None if found is None else Loaded(b"%d" % found, f"{found:056d}")

    async def write(self, *pks: str) -> None:
        actions: list[CacheAction] = []
        for pk in pks:
            number = self.table[pk] = self.table.get(pk, 0) + 1
            key = f"order:{pk}"
            refresh = Refresh(key, f"{number:056d}", b"%d" % number, 600_000)
            actions.append(refresh if number % 2 else Invalidate(key))
        await self.debt.apply(actions)

    async def read(self, *pks: str) -> None:
        for pk in pks:
            await self.readers.get(pk=pk)
            self.reads += 1

    async def stale(self, client: Any) -> list[str]:
        """Entries that are not what the table holds."""
        found = {pk: await client.get(f"order:{pk}") for pk in self.table}
        return [
            pk
            for pk, entry in found.items()
            if entry not in {None, f"V:{self.table[pk]:056d}|{self.table[pk]}".encode()}
        ]


@asynccontextmanager
async def shop(nodes: Cluster) -> AsyncIterator[tuple[Shop, Settler, Recorder, Any]]:
    async with opened(nodes) as (cache, client):
        recorder = Recorder()
        debt = CacheDebt(
            "main",
            RegionId("eu"),
            cache,
            MemoryCacheDebt(),
            DebtPolicy(patterns=("order:*",)),
            clock=SystemClock(),
            observer=recorder,
        )
        made = Shop(debt, None)  # type: ignore[arg-type]
        made.readers = CacheAside(client, key="order:{pk}", load=made.load, ttl=600)
        settler = Settler(debt)
        await settler.look(SEAT)
        yield made, settler, recorder, client


def alone(nodes: Cluster) -> Node:
    """A primary without a replica."""
    return next(node for node in nodes.primaries if node is not nodes.replicated[0])


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENT_SECONDS):
        while not await condition():  # noqa: ASYNC110 - what it waits for is on servers
            await asyncio.sleep(0.05)


# -- batches -------------------------------------------------------------------------------------------------------


async def test_a_batch_is_one_round_trip_to_each_node(nodes: Cluster) -> None:
    def reads() -> list[int]:
        return [node.client.info("stats")["total_reads_processed"] for node in unwatched]

    unwatched = [node for node in nodes.primaries if node is not nodes.replicated[0]]  # a replica sends, too
    async with opened(nodes) as (cache, client):
        keys = [f"order:{number}" for number in range(60)]
        refreshed = [Refresh(key, "1" * 56, b"{}", 60_000) for key in keys[20:40]]
        await cache.apply([*map(Invalidate, keys), *refreshed])
        for key in keys:
            await client.set(key, "L:lease")
        before = reads()
        answer = await cache.apply([*map(Invalidate, keys[:20]), *refreshed])
        asked = [after - number for after, number in zip(reads(), before, strict=True)]
        assert all(2 <= each <= 4 for each in asked), "one is INFO's, and a server may read one write in two parts"
        assert (answer.changed, answer.refused) == (40, {})
        assert [await client.exists(key) for key in keys] == [0] * 40 + [1] * 20
        assert await cache.heads(keys[38:42]) == [b"", b"", b"L:lease", b"L:lease"]
        assert await cache.append("events", [{"id": "1"}, {"id": "2"}], 100) == [None, None]
        assert [entry for _, entry in await client.xrange("events")] == [{b"id": b"1"}, {b"id": b"2"}]
        assert await cache.holds("events") == "stream"
        assert sorted([key async for page in cache.matching("order:*") for key in page]) == sorted(keys[40:])
        assert await cache.flush(["order:*"]) == 20
        assert await client.exists("events")


async def test_a_server_that_forgot_its_scripts_gets_each_once_a_batch(nodes: Cluster) -> None:
    async with opened(nodes) as (cache, client):
        keys = [f"order:{number}" for number in range(30)]
        for key in keys:
            await client.set(key, "L:lease")
        for node in nodes.primaries:
            node.client.script_flush()
            node.client.config_resetstat()
        assert (await cache.apply([Refresh(key, "1" * 56, b"{}", 60_000) for key in keys])).changed == 30
        for node in nodes.primaries:
            assert node.client.info("commandstats")["cmdstat_eval"]["calls"] == 1


async def test_check_and_people_see_the_nodes(nodes: Cluster) -> None:
    async with opened(nodes) as (cache, _):
        await cache.probe()
        assert await cache.describe() == "cluster of 3 primaries and 1 replica, 16384 of 16384 slots"
        told = await cache.nodes()
        assert sorted(node.role for node in told) == ["primary"] * 3 + ["replica"]
        assert sum(node.slots or 0 for node in told) == 16_384
        assert {node.eviction for node in told} == {"noeviction"}
        assert await cache.denied("order:nothing", CacheVerb.REFRESH) == {}
        assert await cache.flush_denied(["order:*"]) is None


async def test_what_one_node_denies_is_named_with_it(nodes: Cluster) -> None:
    commands = "info get set unlink eval evalsha scan asking cluster|slots cluster|info"
    rights = [f"+{command}" for command in commands.split()]
    for node in nodes.nodes:
        node.client.execute_command("ACL", "SETUSER", "rep", "reset", "on", ">pw", "~order:*", *rights)
    cache = open_cache("main", nodes.url, Login("rep", "pw"), Login(), connect_seconds=3, read_seconds=5)
    try:
        await cache.probe()
        assert await cache.denied("order:nothing", CacheVerb.REFRESH) == {}
        odd = nodes.replicated[1]
        odd.client.execute_command("ACL", "SETUSER", "rep", "-unlink", "-scan", "-asking")
        denied = await cache.denied("order:nothing", CacheVerb.REFRESH)
        assert set(denied) == {"UNLINK", "ASKING"}
        assert f"at 127.0.0.1:{odd.port}" in denied["UNLINK"]
        assert f"127.0.0.1:{odd.port} SCAN is denied" in str(await cache.flush_denied(["order:*"]))
        for node in nodes.nodes:
            node.client.execute_command("ACL", "SETUSER", "rep", "-cluster|slots")
        with pytest.raises(ReplicatorError, match="denied a command or a key"):
            await cache.servers()
    finally:
        await cache.close()


async def test_a_url_that_names_no_cluster_says_so(redis_url: str) -> None:
    cache = open_cache(
        "main", redis_url.replace("redis://", "redis+cluster://"), Login(), Login(), connect_seconds=3, read_seconds=5
    )
    with pytest.raises(WorldMismatch, match="is no Redis Cluster"):
        await cache.probe()
    await cache.close()


async def test_the_library_reads_through_a_cluster_with_either_client_and_tags_beside_entries(nodes: Cluster) -> None:
    async with opened(nodes) as (cache, client):
        lists = CacheAside(client, key="open:{{{pk}}}", tags=["tag:{{{pk}}}"], load=lambda pk: [pk])
        found = [(await lists.read(pk="a")).source for _ in range(2)]
        await cache.apply([Invalidate("tag:{a}")])
        found += [(await lists.read(pk="a")).source for _ in range(2)]
        assert found == [Source.FILLED, Source.HIT, Source.FILLED, Source.HIT]
        with SyncCluster(host="127.0.0.1", port=nodes.primaries[0].port) as blocking:
            reader = SyncCacheAside(blocking, key="order:{pk}", load=lambda pk: {"pk": pk})
            pks = [str(number) for number in range(5)]
            assert [reader.read(pk=pk).source for pk in pks] == [Source.FILLED] * 5
            assert [reader.read(pk=pk).source for pk in pks] == [Source.HIT] * 5
            assert (await cache.apply([Invalidate(f"order:{pk}") for pk in pks])).changed == 5
            assert reader.read(pk="0").source is Source.FILLED


async def until_flushed(cache: ClusterCache) -> None:
    """A flush that is owed is tried until it is done: a server that comes back may not answer in time at first."""
    async with asyncio.timeout(PATIENT_SECONDS):
        while True:
            with suppress(Unreachable):
                await cache.flush(["order:*"])
                return
            await asyncio.sleep(0.2)


async def test_a_flush_leaves_out_a_node_that_is_away_and_stays_owed(nodes: Cluster) -> None:
    away = alone(nodes)
    async with opened(nodes) as (cache, client):
        keys = [f"order:{number}" for number in range(30)]
        for key in (*keys, "other:1"):
            await client.set(key, "V:old")
        theirs = [key for key in keys if nodes.holder(key_slot(key.encode())) is away]
        os.kill(away.server.child.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(PartAway, match=f"node 127.0.0.1:{away.port}"):
                await cache.flush(["order:*"])
            kept = [key for key in keys if key not in theirs]
            others = [node.client for node in nodes.primaries if node is not away]
            assert sum(each.dbsize() for each in others) <= 1, "what else is there"
            await cache.apply([Refresh(kept[0], "1" * 56, b"{}", 60_000)])
        finally:
            os.kill(away.server.child.process.pid, signal.SIGCONT)
        nodes.until_up()
        await until_flushed(cache)
        assert [await client.exists(key) for key in (*keys, "other:1")] == [0] * 30 + [1]


# -- slots that move ---------------------------------------------------------------------------------------------------


async def test_a_slot_moves_under_traffic_and_nothing_is_refused_or_stale(nodes: Cluster) -> None:
    slot = key_slot(b"order:0")
    pks = [key.removeprefix("order:") for key in keys_of(nodes, slot, 5)]
    others = [f"x{number}" for number in range(20)]
    async with shop(nodes) as (traffic, settler, recorder, client):
        over = asyncio.Event()

        async def keep(do: Callable[..., Awaitable[None]]) -> None:
            while not over.is_set():
                await do(*pks, *others)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for each in (traffic.write, traffic.read, traffic.read):
                group.create_task(keep(each))
            try:
                for number in (0, 1):
                    to = next(node for node in nodes.primaries if node is not nodes.holder(slot))
                    source = await asyncio.to_thread(nodes.begin_to_move, slot, to)
                    for _ in range(3):
                        await asyncio.sleep(0.05)
                        await asyncio.to_thread(nodes.move_keys, slot, source, to, 2)
                    await until(lambda: asyncio.to_thread(nodes.moved, slot, source, to))  # noqa: B023 - awaited here
                    await asyncio.sleep(0.05)
                    await asyncio.to_thread(nodes.end_move, slot, source, to)
                    await asyncio.sleep(0.1)
                    assert traffic.reads, number
            finally:
                over.set()
        state = recorder.caches["main"]
        assert (state.owed, state.error, state.refusing) == (0, None, None), state
        await settler.look(SEAT)
        assert await traffic.stale(client) == []
        assert traffic.readers.counts[Source.HIT]
        assert recorder.caches["main"].restores == 0, "an owner of before is no other server"


async def test_calls_on_several_keys_of_an_open_slot_are_divided_where_the_entries_are_on_both_sides(
    nodes: Cluster,
) -> None:
    slot = key_slot(b"order:0")
    keys = keys_of(nodes, slot, 4)
    async with opened(nodes) as (cache, client):
        for key in keys:
            await client.set(key, "L:lease")
        to = next(node for node in nodes.primaries if node is not nodes.holder(slot))
        source = nodes.begin_to_move(slot, to)
        try:
            nodes.move_keys(slot, source, to, 2)
            here = await cache.apply(
                [Invalidate(keys[0]), *(Refresh(key, "1" * 56, b"{}", 60_000) for key in keys[1:])]
            )
            assert (here.changed, here.refused) == (4, {})
            assert source.client.dbsize() + to.client.dbsize() == 0
        finally:
            nodes.end_move(slot, source, to)


# -- nodes that are away -----------------------------------------------------------------------------------------------


async def test_a_node_that_hangs_keeps_no_other_one_back(nodes: Cluster) -> None:
    keys = [f"order:{number}" for number in range(60)]
    async with opened(nodes) as (cache, client):
        for key in keys:
            await client.set(key, "L:lease")
        hung = alone(nodes)
        theirs = {key for key in keys if nodes.holder(key_slot(key.encode())) is hung}
        os.kill(hung.server.child.process.pid, signal.SIGSTOP)
        try:
            answer = await cache.apply(list(map(Invalidate, keys)))
            assert set(answer.refused) == theirs
            assert answer.changed == len(keys) - len(theirs)
            error = next(iter(answer.refused.values()))
            assert isinstance(error, Unreachable)
            assert f"node 127.0.0.1:{hung.port} of cache main" in error.message
        finally:
            os.kill(hung.server.child.process.pid, signal.SIGCONT)
        nodes.until_up()

        async def all_answer() -> bool:
            return not (await cache.apply(list(map(Invalidate, keys)))).refused

        await until(all_answer)


async def test_a_node_that_dies_is_owed_its_part_and_comes_back_old_without_leaving_anything_stale(
    nodes: Cluster,
) -> None:
    dead = alone(nodes)
    async with shop(nodes) as (traffic, settler, recorder, client):
        pks = [str(number) for number in range(40)]
        await traffic.write(*pks)
        await traffic.read(*pks)
        theirs = [pk for pk in pks if nodes.holder(key_slot(f"order:{pk}".encode())) is dead]
        dead.client.save()
        await traffic.write(*theirs[:3])  # acted on, and lost by the server
        dead.kill()
        await traffic.write(*pks[3:])
        state = recorder.caches["main"]
        assert state.error is None, "the other nodes answer"
        assert state.refusing is not None
        assert state.keys == len(set(theirs) & set(pks[3:]))
        await settler.look(SEAT)
        assert recorder.caches["main"].keys == state.keys
        dead.start()
        nodes.until_up()
        assert dead.client.dbsize() >= len(theirs), "it came back with the entries of before"

        async def settled() -> bool:
            await settler.look(SEAT)
            state = recorder.caches["main"]
            return (state.error, state.refusing, state.keys, state.owes_flush) == (None, None, 0, False)

        await until(settled)
        assert recorder.caches["main"].restores == 1
        assert recorder.caches["main"].flushes >= 1
        assert await traffic.stale(client) == []
        await traffic.read(*pks)
        await traffic.write(*pks)
        assert await traffic.stale(client) == []


async def test_a_cluster_that_is_down_as_a_whole_is_owed_everything_until_it_is_up(nodes: Cluster) -> None:
    dead = alone(nodes)
    async with shop(nodes) as (traffic, settler, recorder, client):
        pks = [str(number) for number in range(30)]
        await traffic.write(*pks)
        await traffic.read(*pks)
        for node in nodes.nodes:
            node.client.config_set("cluster-require-full-coverage", "yes")
        dead.kill()
        cache = traffic.debt.cache
        assert isinstance(cache, ClusterCache)

        async def down() -> bool:
            return len((await cache.apply(list(map(Invalidate, [f"order:{pk}" for pk in pks])))).refused) == len(pks)

        await until(down)
        await traffic.write(*pks)
        assert recorder.caches["main"].keys == len(pks)
        refusing = recorder.caches["main"].refusing
        assert refusing is not None
        with pytest.raises(Unreachable):
            await cache.probe()
        dead.start()
        nodes.until_up()

        async def settled() -> bool:
            await settler.look(SEAT)
            return not recorder.caches["main"].keys

        await until(settled)
        assert recorder.caches["main"].refusing is None
        assert await traffic.stale(client) == []
        for node in nodes.nodes:
            node.client.config_set("cluster-require-full-coverage", "no")


async def test_a_failover_is_followed_and_what_the_new_primary_may_lack_is_dropped_again(nodes: Cluster) -> None:
    primary, replica = nodes.replicated
    async with shop(nodes) as (traffic, settler, recorder, client):
        pks = [str(number) for number in range(30)]
        await traffic.write(*pks)
        await traffic.read(*pks)
        theirs = [pk for pk in pks if nodes.holder(key_slot(f"order:{pk}".encode())) is primary]
        traffic.debt.recent._since -= 10_000  # as after ten minutes, so that what was done is known
        os.kill(replica.server.child.process.pid, signal.SIGSTOP)
        primary.client.execute_command("CLIENT", "KILL", "TYPE", "REPLICA")  # it lags: what follows does not reach it
        await traffic.write(*theirs)
        primary.kill()
        os.kill(replica.server.child.process.pid, signal.SIGCONT)
        assert len(await asyncio.to_thread(lambda: replica.client.keys("order:*"))) == len(theirs), "what was dropped"

        async def over() -> bool:
            await settler.look(SEAT)
            state = recorder.caches["main"]
            return (state.error, state.refusing, state.keys) == (None, None, 0) and state.restores > 0

        await until(over)
        assert nodes.holder(key_slot(f"order:{theirs[0]}".encode())) is replica
        assert recorder.caches["main"].flushes == 0
        assert await traffic.stale(client) == []
        primary.start()
        nodes.until_up()
        nodes.until_copied([primary])

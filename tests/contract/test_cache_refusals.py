"""A cache that refuses, on real servers: no action is left undone in silence, whatever the server says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from replicator.adapters.clock import SystemClock
from replicator.adapters.redis.cache import RedisCache
from replicator.domain.cache_debt import DebtPolicy
from replicator.domain.cache_keys import CacheAction, Invalidate
from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import RegionId
from replicator.engine.applying.cache_debt import CacheDebt, Share
from replicator.engine.applying.cache_settling import Settler
from replicator.laboratory.memory import MemoryCacheDebt, value_entry
from replicator.ports.events import CacheState
from tests.contract.test_cache import V1, V2, refresh
from tests.contract.test_cache_troubles import Address, Start, client_of, start
from tests.engine.world import Recorder

pytestmark = pytest.mark.servers
OLD = value_entry(V1, b"{}")
SEAT = Share(seated=True, workers=1)
ACTIONS: list[CacheAction] = [refresh("order:1", V2), Invalidate("list:1")]
__all__ = ["start"]


class Beside(NamedTuple):
    debt: CacheDebt
    settler: Settler
    rows: MemoryCacheDebt
    recorder: Recorder

    @property
    def state(self) -> CacheState:
        return self.recorder.caches["main"]


@asynccontextmanager
async def cached(url: str, **login: str) -> AsyncIterator[Beside]:
    login = {"username": "", "password": "", **login}
    cache = RedisCache("main", url, connect_seconds=3, read_seconds=3, **login)
    recorder, rows = Recorder(), MemoryCacheDebt()
    policy = DebtPolicy(patterns=("order:*", "list:*"))
    debt = CacheDebt("main", RegionId("eu"), cache, rows, policy, clock=SystemClock(), observer=recorder)
    try:
        yield Beside(debt, Settler(debt), rows, recorder)
    finally:
        await cache.close()


async def filled(client: Any) -> None:
    await client.mset({"order:1": OLD, "list:1": "an old list"})


async def stale(client: Any) -> list[str]:
    entries = await client.mget("order:1", "list:1")
    return [key for key, entry in zip(("order:1", "list:1"), entries, strict=True) if entry in {OLD, b"an old list"}]


async def test_a_full_server_drops_what_it_cannot_store_and_says_so(start: Start) -> None:
    with start("--maxmemory-policy", "noeviction") as server:
        async with client_of(server) as client, cached(server.url) as beside:
            await filled(client)
            await client.config_set("maxmemory", 1)
            answer = await beside.debt.apply(ACTIONS)
            assert await stale(client) == []
            assert (set(answer.unstored), beside.state.keys) == ({"order:1"}, 0), "told as such, and owed nothing"


@pytest.mark.parametrize("rights", ["~list:* +@all", "~* +@all -unlink", "~* +@all -set -unlink"])
async def test_what_a_user_may_not_do_is_owed_and_told_and_done_when_it_may(start: Start, rights: str) -> None:
    with start() as server:
        async with client_of(server) as client, cached(server.url, username="rep", password="pw") as beside:
            await filled(client)
            await client.execute_command("ACL", "SETUSER", "rep", "reset", "on", ">pw", *rights.split())
            await beside.debt.apply(ACTIONS)
            undone = await stale(client)
            assert undone
            assert {each.key for each in beside.rows.rows.values()} >= set(undone), "each is owed"
            assert beside.state.refusing is not None or beside.state.error is not None, "and that is reported"
            await beside.settler.look(SEAT)
            assert {each.key for each in beside.rows.rows.values()} >= set(await stale(client))
            await client.execute_command("ACL", "SETUSER", "rep", "~*", "+@all")
            for _ in range(2):
                await beside.settler.look(SEAT)
            assert await stale(client) == []
            assert (beside.state.error, beside.state.refusing, beside.rows.rows) == (None, None, {})


@pytest.mark.parametrize("known", [True, False], ids=["it knows the entries", "it lacks them"])
async def test_a_server_that_was_demoted_in_place_is_owed_everything_until_the_address_leads_to_a_primary(
    start: Start, known: bool
) -> None:
    with start() as first, start() as second:
        address = Address(first)
        async with client_of(first) as old, client_of(second) as new, address.serve() as url, cached(url) as beside:
            await beside.settler.look(SEAT)
            if known:
                await filled(old)
            await old.replicaof("127.0.0.1", 1)
            await filled(new)
            await beside.debt.apply(ACTIONS)
            assert set(beside.debt.mine) == {"order:1", "list:1"}
            assert "read-only replica" in str(beside.state.error)
            address.leads_to = second.port

            async def settled() -> bool:
                await beside.settler.look(SEAT)
                return beside.state.error is None and not beside.rows.rows

            await eventually(settled)
            assert await stale(new) == []


async def test_what_a_server_that_took_over_lacks_is_dropped_again(start: Start) -> None:
    with start() as first, start() as second:
        address = Address(first)
        async with client_of(second) as new, address.serve() as url, cached(url) as beside:
            await beside.settler.look(SEAT)
            beside.debt.recent._since -= 10_000
            await beside.debt.apply(ACTIONS)
            await filled(new)  # these actions did not reach it
            address.leads_to = second.port
            first.stop()
            beside.debt.fell(Unreachable("The connection was lost."))

            async def again() -> bool:
                await beside.settler.look(SEAT)
                return beside.state.restores > 0 and beside.state.error is None and not beside.rows.rows

            await eventually(again)
            assert await stale(new) == []


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(20):
        if await condition():
            return
    raise AssertionError("it did not come about")

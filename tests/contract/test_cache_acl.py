"""A user with exactly the commands that `check` prints: nothing is missing for a daemon's work, and each is needed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any

import pytest
import redis

from replicator.adapters.clock import SystemClock
from replicator.adapters.redis.cache import RedisCache
from replicator.domain.cache_commands import CacheUse
from replicator.domain.cache_debt import DebtPolicy
from replicator.domain.cache_horizons import VerifyPolicy
from replicator.domain.cache_keys import CacheAction, CacheVerb, Invalidate, Publication, Refresh, publish
from replicator.domain.canary import Schema, canary_entry, canary_item
from replicator.domain.errors import ReplicatorError
from replicator.domain.identifiers import RegionId, RuleName
from replicator.domain.key_templates import KeyTemplate
from replicator.engine import canaries
from replicator.engine.applying.cache_batcher import CacheRequest
from replicator.engine.applying.cache_debt import CacheDebt, Share
from replicator.engine.applying.cache_settling import Settler
from replicator.engine.applying.cache_verifying import CacheVerifier, ItemPlace
from replicator.laboratory.memory import MemoryCacheDebt, MemoryRegion
from replicator.laboratory.servers import Valkey
from replicator.ports.targets import CacheFill
from replicator.settings import Settings
from replicator.settings.compiled_rules import cache_use, debt_policy
from tests.engine.world import Recorder, key_of

pytestmark = pytest.mark.servers
V1 = "1" * 56
EU = RegionId("eu")
SEAT = Share(seated=True, workers=1)


@pytest.fixture(scope="module", params=["valkey", pytest.param("redis", marks=pytest.mark.long)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    binary = shutil.which("redis-server") if request.param == "redis" else None
    if request.param == "redis" and binary is None:
        pytest.skip("no redis-server is installed here")
    with Valkey.start(tmp_path_factory.mktemp("acl"), binary=binary) as started:
        yield started


def configured(
    url: str, action: Mapping[str, Any], rule: Mapping[str, Any] = MappingProxyType({}), **cache: Any
) -> Settings:
    return Settings.model_validate(
        {
            "group": "test",
            "regions": {"us": {"region": "us-east-1"}, "eu": {"region": "eu-west-1"}},
            "coordination": {"region": "us"},
            "caches": {"main": {"region": "eu", "url": url, "username": "rep", "password": "pw", **cache}},
            "rules": [
                {
                    "name": "orders",
                    "mode": "ordered",
                    "table": "orders",
                    "source": "us",
                    "replicas": ["eu"],
                    "cache": [{"cache": "main", "key": "order:{pk}", **action}],
                    **rule,
                }
            ],
        }
    )


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisCache]:
    cache = RedisCache("main", url, username="rep", password="pw", connect_seconds=3, read_seconds=5)
    try:
        yield cache
    finally:
        await cache.close()


async def work(url: str, admin: Any, verb: CacheVerb, use: CacheUse, policy: DebtPolicy) -> Recorder:
    """What a daemon and `check` do with a cache: raises what the server refuses."""
    recorder, clock = Recorder(), SystemClock()
    async with opened(url) as cache:
        await cache.probe()
        denied = await cache.denied("order:nothing", verb)
        if denied or (use.scans and await cache.flush_denied(policy.patterns)):
            raise ReplicatorError(str(denied))
        debt = CacheDebt("main", EU, cache, MemoryCacheDebt(), policy, clock=clock, observer=recorder)
        settler = Settler(debt)
        await settler.look(SEAT)
        admin.script_flush()
        admin.mset({"order:1": "L:lease", "order:2": "L:lease", "order:k1": "V:old"})
        actions: list[CacheAction] = [Invalidate("order:1"), Invalidate("order:2")]
        if verb.stores:
            through = verb is CacheVerb.WRITE_THROUGH
            actions[1:] = [Refresh(key, V1, b"{}", 60_000, through=through) for key in ("order:2", "order:3")]
        if use.stores_hashes:
            admin.delete("order:2")
            admin.hset("order:2", "", "0" * 56)
            actions[1:] = [Refresh("order:2", V1, b'["a","b"]', 60_000, hashed=True)]
        if verb is CacheVerb.PUBLISH:
            actions = [publish(Publication("orders", is_stream=bool(use.streams)), "order:1", {})]
        for _ in range(2):  # by its text, and by its digest
            await debt.apply(actions)
        debt.fell(ReplicatorError("It is away."))
        await debt.apply(actions)
        await settler.look(SEAT)
        if verb is CacheVerb.PUBLISH:
            return recorder
        if verb is CacheVerb.WRITE_THROUGH:
            answer = await debt.apply([Refresh("order:4", V1, b"{}", 60_000, through=True)])
            assert await debt.fill([CacheFill("order:4", answer.leased["order:4"], b"V:x|", 60_000)]) == 1
        verifier = CacheVerifier("main", EU, debt, VerifyPolicy(1, 10), clock=clock, observer=recorder)
        sample = CacheRequest("main", [Invalidate("order:k1")])
        verifier.acted(sample, ItemPlace(key_of("k1"), MemoryRegion()), V1)
        verifier._due = [(0.0, number, place, sample) for _, number, place, sample in verifier._due]
        await verifier.look()
        await cache.flush(policy.patterns)
    return recorder


@pytest.mark.parametrize(
    ("action", "database", "more"),
    [
        ({"action": "invalidate"}, 0, {}),
        ({"action": "refresh"}, 0, {}),
        ({"action": "write_through"}, 0, {}),
        ({"action": "refresh", "value": "hash"}, 0, {}),
        ({"action": "publish", "channel": "orders"}, 0, {}),
        ({"action": "publish", "stream": "orders"}, 0, {}),
        ({"action": "refresh"}, 3, {"debt": {"flush": "database"}}),
        ({"action": "invalidate"}, 0, {"verify": {"share": 0}}),
    ],
    ids=[
        "invalidate",
        "refresh",
        "write_through",
        "hash",
        "channel",
        "stream",
        "a database of its own",
        "not verified",
    ],
)
async def test_the_printed_commands_are_enough_and_each_is_needed(
    server: Valkey, action: Mapping[str, Any], database: int, more: dict[str, Any]
) -> None:
    url = server.url.replace("/0", f"/{database}") + "?client_name=replicator"
    settings = configured(url, action, **more)
    use = cache_use(settings, "main")
    policy = debt_policy(settings, "main")
    with redis.Redis(port=server.port, db=database) as admin:
        admin.execute_command(*use.acl("rep").replace(">PASSWORD", ">pw").split())
        admin.execute_command("ACL", "LOG", "RESET")
        recorder = await work(url, admin, CacheVerb(action["action"]), use, policy)
        refused = {entry["object"] for entry in admin.acl_log()}
        assert refused <= (set() if use.reads_again else {"getrange"})
        assert (recorder.caches["main"].keys, recorder.caches["main"].refusing) == (0, None)
        assert action["action"] == "publish" or admin.keys("order:*") == []
        for command in use.commands:
            admin.execute_command(*use.acl("rep").replace(">PASSWORD", ">pw").split(), f"-{command}")
            admin.execute_command("ACL", "LOG", "RESET")
            with suppress(ReplicatorError):
                await work(url, admin, CacheVerb(action["action"]), use, policy)
            assert command in {entry["object"].lower() for entry in admin.acl_log()}, f"{command} is not needed"


async def test_the_user_of_a_rule_with_a_canary_may_store_and_read_its_entry_and_see_it_dropped(server: Valkey) -> None:
    url = server.url + "?client_name=replicator"
    action = {"action": "invalidate", "key": "order:{pk}:v1"}
    schema = Schema((("pk", "S"),))
    item = canary_item(schema, RuleName("orders"), RegionId("us"), writer="w", number=1, now=0.0)
    template = canary_entry(KeyTemplate("{pk}:v1", "order:"))
    key = template.key(item)
    assert key is not None
    with redis.Redis(port=server.port) as admin:

        def allow(rule: dict[str, Any]) -> None:
            use = cache_use(configured(url, action, rule), "main")
            admin.execute_command(*use.acl("rep").replace(">PASSWORD", ">pw").split())

        allow({"canary": {}})
        async with opened(url) as cache:
            await canaries._mark(cache, template, item)
            assert [bool(head) for head in await cache.heads([key])] == [True]
            assert (await cache.apply([Invalidate(key)])).refused == {}
            assert [bool(head) for head in await cache.heads([key])] == [False]
            allow({})
            with pytest.raises(ReplicatorError):
                await canaries._mark(cache, template, item)


def test_the_printed_line_names_keys_and_commands_once() -> None:
    use = cache_use(configured("redis+cluster://a:1?health_check_interval=5", {"action": "refresh"}), "main")
    assert use.acl("rep") == (
        "ACL SETUSER rep reset on >PASSWORD ~order:* +info +unlink +get +set +eval +evalsha +getrange +scan"
        " +asking +cluster|slots +cluster|info +ping"
    )

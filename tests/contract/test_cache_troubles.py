"""What a cache does on servers that refuse: demoted, full, restricted, broken ones; Valkey, and Redis where it is."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis.asyncio as redis_asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from replicator.adapters.clients import open_caches
from replicator.adapters.redis.cache import RedisCache
from replicator.adapters.redis.cluster import open_cache
from replicator.adapters.redis.errors import is_elsewhere, is_permission, translated
from replicator.adapters.redis.opening import Login
from replicator.domain.cache_keys import CacheAction, CacheVerb, Invalidate, Publication, publish
from replicator.domain.errors import AccessRefused, ReplicatorError, Throttled, Unreachable, WorldMismatch
from replicator.laboratory.memory import value_entry
from replicator.laboratory.servers import Valkey, free_port
from replicator.settings import Settings
from replicator.settings.sections import Cache as CacheSettings
from tests.contract.test_cache import PAYLOAD, V1, V2, V3, refresh
from tests.contract.worlds import MemoryCacheBench, RedisCacheBench, redis_bench

pytestmark = pytest.mark.servers
OLD, NEW = value_entry(V1, b"{}"), value_entry(V2, PAYLOAD)

Start = Callable[..., AbstractContextManager[Valkey]]


@pytest.fixture(params=["valkey", "redis"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Starts servers of one kind."""
    binary = shutil.which("redis-server") if request.param == "redis" else None
    if request.param == "redis" and binary is None:
        pytest.skip("no redis-server is installed here")

    @contextmanager
    def started(*options: str) -> Iterator[Valkey]:
        with Valkey.start(tmp_path, name=request.param, binary=binary, options=options) as server:
            yield server

    return started


class Address:
    """An address that leads to one server and then to another, as behind a failover; open connections stay."""

    def __init__(self, server: Valkey) -> None:
        self.leads_to = server.port
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._accept, "127.0.0.1")
        try:
            yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.leads_to)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._tasks.add(asyncio.create_task(pump(source, sink)))


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    finally:
        sink.close()


@asynccontextmanager
async def client_of(server: Valkey) -> AsyncIterator[Any]:
    client: Any = redis_asyncio.Redis.from_url(server.url)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def user_of(bench: RedisCacheBench, url: str, *rights: str) -> AsyncIterator[RedisCache]:
    """The cache as a user with these rights sees it."""
    await bench.client.execute_command("ACL", "SETUSER", "rep", "reset", "on", ">pw", *rights)
    cache = RedisCache("main", url, username="rep", password="pw", connect_seconds=3.0, read_seconds=3.0)
    try:
        yield cache
    finally:
        await cache.close()


# -- a server that was demoted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stale", [None, OLD, value_entry(V3, b"{}")], ids=["no entry", "older entry", "newer entry"])
@pytest.mark.parametrize("action", [refresh("k"), Invalidate("k")], ids=["refresh", "invalidate"])
async def test_a_demoted_server_counts_for_nothing_and_the_retry_reaches_the_new_primary(
    start: Start, tmp_path: Path, stale: bytes | None, action: CacheAction
) -> None:
    with start() as first, start() as second:
        address = Address(first)
        async with client_of(first) as old, client_of(second) as new, address.serve() as url, redis_bench(url) as bench:
            assert (await bench.cache.apply([refresh("other")])).changed == 0
            address.leads_to = second.port
            await new.set("k", OLD)
            if stale is not None:
                await old.set("k", stale)
            await old.execute_command("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(Unreachable, match="is a read-only replica") as caught:
                await bench.cache.apply([action])
            assert "network" not in caught.value.advice
            assert (await bench.cache.apply([action])).changed == 1
            assert await new.get("k") == (None if isinstance(action, Invalidate) else NEW)


async def test_what_is_published_at_a_demoted_server_reaches_the_listeners_of_the_new_primary(start: Start) -> None:
    told = publish(Publication("news"), "k", {"deleted": True})
    with start() as first, start() as second:
        address = Address(first)
        async with client_of(first) as old, client_of(second) as new, address.serve() as url, redis_bench(url) as bench:
            listener = new.pubsub()
            await listener.subscribe("news")
            assert (await bench.cache.apply([told])).changed == 1
            address.leads_to = second.port
            await old.execute_command("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(Unreachable, match="is a read-only replica"):
                await bench.cache.apply([told])
            assert (await bench.cache.apply([told])).changed == 1
            async with asyncio.timeout(30):
                while (message := await listener.get_message(timeout=1)) is None or message["type"] != "message":
                    pass
            assert message["data"] == told.message
            await listener.aclose()


async def test_a_replica_that_lost_its_primary_says_so(start: Start) -> None:
    with start() as server:
        async with redis_bench(server.url) as bench:
            await bench.client.config_set("replica-serve-stale-data", "no")
            await bench.client.execute_command("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(Unreachable, match="lost its primary"):
                await bench.cache.apply([refresh("k")])


# -- a server that is full -----------------------------------------------------------------------------------------


@asynccontextmanager
async def full(bench: RedisCacheBench) -> AsyncIterator[None]:
    await bench.client.config_set("maxmemory", "1")
    try:
        yield
    finally:
        await bench.client.config_set("maxmemory", "0")


async def test_on_a_full_server_what_cannot_be_refreshed_is_dropped_and_told(start: Start) -> None:
    with start() as server:
        async with redis_bench(server.url) as bench:
            await bench.seed({"old": OLD, "newer": value_entry(V3, b"{}"), "lease": b"L:x", "list": b"any"})
            actions = [refresh(key) for key in ("old", "absent", "newer", "lease")]
            async with full(bench):
                answer = await bench.cache.apply([*actions, Invalidate("list")])
            assert (answer.unstored, answer.refused, answer.changed) == (frozenset({"old"}), {}, 3)
            assert await bench.client.keys() == [b"newer"]


async def test_on_a_full_server_nothing_to_store_is_no_trouble(start: Start) -> None:
    with start() as server:
        async with redis_bench(server.url) as bench, full(bench):
            answer = await bench.cache.apply([refresh("absent")])
            assert (answer.unstored, answer.refused, answer.changed) == (frozenset(), {}, 0)


async def test_the_memory_cache_is_full_in_the_same_way() -> None:
    bench = MemoryCacheBench()
    await bench.seed({"old": OLD, "newer": value_entry(V3, b"{}"), "list": b"any"})
    bench.memory.full = True
    answer = await bench.cache.apply([refresh("old"), refresh("absent"), refresh("newer"), Invalidate("list")])
    assert (answer.unstored, answer.refused, answer.changed) == (frozenset({"old"}), {}, 2)
    assert list(bench.memory.entries) == ["newer"]


# -- a user with few rights ----------------------------------------------------------------------------------------

ALL = ("+info", "+get", "+set", "+unlink", "+eval", "+evalsha")


async def test_a_denied_key_keeps_no_other_one_back(start: Start) -> None:
    with start() as server:
        async with redis_bench(server.url) as bench, user_of(bench, server.url, "~mine:*", *ALL) as cache:
            keys = [f"{name}:{number}" for number in range(300) for name in ("mine", "list")]
            await bench.seed(dict.fromkeys([*keys, "theirs:1", "theirs:2"], OLD) | {"mine:0": OLD})
            mine = [key for key in keys if key.startswith("mine")]
            actions = [refresh(key) if number % 2 else Invalidate(key) for number, key in enumerate(mine)]
            answer = await cache.apply([refresh("theirs:1"), Invalidate("theirs:2"), *actions])
            assert set(answer.refused) == {"theirs:1", "theirs:2"}
            assert answer.changed == 300
            for error in answer.refused.values():
                assert isinstance(error, AccessRefused)
                assert "denied a command or a key" in error.message
            assert await bench.client.get("mine:1") == NEW
            assert await bench.client.get("theirs:1") == OLD


async def test_what_may_not_be_set_is_dropped_and_the_refusal_is_told(start: Start) -> None:
    with start() as server:
        rights = ("~*", "+info", "+get", "+unlink", "+eval", "+evalsha")
        async with redis_bench(server.url) as bench, user_of(bench, server.url, *rights) as cache:
            await bench.seed({"old": OLD, "list": b"any"})
            answer = await cache.apply([refresh("old"), Invalidate("list")])
            assert isinstance(answer.refused.get("old"), AccessRefused)
            assert await bench.client.keys() == []


async def test_permissions_are_proven_without_touching_anything(start: Start) -> None:
    with start() as server:
        async with redis_bench(server.url) as bench:
            await bench.seed({"mine:1": b"x"})
            for missing, verb, expected in (
                (None, CacheVerb.REFRESH, set()),
                ("+unlink", CacheVerb.INVALIDATE, {"UNLINK"}),
                ("+set", CacheVerb.REFRESH, {"SET"}),
                ("+get", CacheVerb.REFRESH, {"GET"}),
                ("+eval", CacheVerb.REFRESH, {"EVAL"}),
                ("+evalsha", CacheVerb.REFRESH, {"EVALSHA"}),
                ("+set", CacheVerb.INVALIDATE, set()),
                ("+eval", CacheVerb.INVALIDATE, set()),
            ):
                rights = [right for right in ALL if right != missing]
                async with user_of(bench, server.url, "~mine:*", *rights) as cache:
                    assert set(await cache.denied("mine:probe", verb)) == expected
            async with user_of(bench, server.url, "~mine:*", *ALL) as cache:
                assert set(await cache.denied("other:probe", CacheVerb.REFRESH)) == {
                    "UNLINK",
                    "GET",
                    "SET",
                    "EVAL",
                    "EVALSHA",
                }
                async with full(bench):
                    assert await cache.denied("mine:probe", CacheVerb.REFRESH) == {}
            assert await bench.found(["mine:1", "mine:probe"]) == {"mine:1": b"x", "mine:probe": None}


async def test_a_password_of_any_characters_is_used_as_it_is_meant(start: Start) -> None:
    password = "p@/?#:%41 ü"
    with start() as server:
        async with redis_bench(server.url) as bench:
            await bench.client.config_set("requirepass", password)
            place = server.url.removeprefix("redis://")
            for url, key in ((f"redis://:{quote(password, safe='')}@{place}", None), (server.url, password)):
                assert CacheSettings(region="eu", url=url).url == url
                cache = RedisCache("main", url, username=None, password=key, connect_seconds=3.0, read_seconds=3.0)
                assert (await cache.apply([refresh("k")])).refused == {}
                await cache.close()


async def test_a_cache_that_is_away_is_named_with_its_region() -> None:
    cache = {"region": "eu", "url": f"redis://127.0.0.1:{free_port()}"}
    rule = {"name": "orders", "table": "orders", "source": "us", "replicas": ["eu"]}
    regions = {name: {"region": region} for name, region in (("us", "us-east-1"), ("eu", "eu-west-1"))}
    coordination = {"region": "us"}
    given = {
        "group": "test",
        "regions": regions,
        "coordination": coordination,
        "caches": {"eu_main": cache},
        "rules": [rule],
    }
    async with open_caches(Settings.model_validate(given)) as caches:
        with pytest.raises(Unreachable, match="The cache eu_main in eu at redis://"):
            await caches["eu_main"].apply([refresh("k")])


async def test_credentials_that_were_changed_are_named(start: Start) -> None:
    with start() as server:
        async with redis_bench(server.url) as bench, user_of(bench, server.url, "~*", *ALL) as cache:
            assert (await cache.apply([refresh("k")])).refused == {}
            await bench.client.execute_command("ACL", "DELUSER", "rep")
            with pytest.raises((AccessRefused, Unreachable)):
                await cache.apply([refresh("k")])
            with pytest.raises(AccessRefused, match="refused the credentials"):
                await cache.apply([refresh("k")])
            await bench.client.execute_command("ACL", "SETUSER", "rep", "reset", "on", ">pw", "~*", *ALL)
            assert (await cache.apply([refresh("k")])).refused == {}


# -- servers that are broken or of another kind --------------------------------------------------------------------


async def test_a_server_that_cannot_save_says_so(start: Start, tmp_path: Path) -> None:
    directory = tmp_path / "lost"
    directory.mkdir()
    with start("--dir", str(directory)) as server:
        async with redis_bench(server.url) as bench:
            await bench.client.config_set("save", "3600 1")
            await bench.seed({"k": OLD})
            shutil.rmtree(directory)
            await bench.client.bgsave()
            for action in (refresh("k"), Invalidate("k")):
                await _eventually_refused(bench, action, "cannot save its data set")
            assert await bench.client.get("k") == OLD
            await bench.client.config_set("save", "")
            await bench.client.config_set("stop-writes-on-bgsave-error", "no")
            assert (await bench.cache.apply([refresh("k")])).changed == 1


async def _eventually_refused(bench: RedisCacheBench, action: CacheAction, words: str) -> None:
    """The server notices by itself, a moment later."""
    for _ in range(200):
        try:
            answer = await bench.cache.apply([action])
        except ReplicatorError as error:
            assert words in error.message  # noqa: PT017 - it may come late
            return
        if answer.refused:
            assert words in answer.refused[action.key].message
            return
        with suppress(ResponseError):  # it may have noticed since
            await bench.seed({"k": OLD})
        await asyncio.sleep(0.05)
    raise AssertionError("it was never refused")


async def test_a_primary_without_its_replicas_says_so(start: Start) -> None:
    with start("--min-replicas-to-write", "1") as server:
        async with redis_bench(server.url) as bench:
            with pytest.raises(Unreachable, match="too few replicas"):
                await bench.cache.apply([Invalidate("k")])


async def test_a_node_of_a_cluster_says_so(start: Start) -> None:
    with start("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        async with redis_bench(server.url) as bench:
            with pytest.raises(Unreachable, match="Redis Cluster"):
                await bench.cache.apply([Invalidate("k")])
            with pytest.raises(WorldMismatch, match="Redis Cluster"):
                await bench.cache.probe()


async def test_a_server_without_connections_left_says_so(start: Start) -> None:
    with start() as server:
        async with redis_bench(server.url) as bench:
            await bench.client.config_set("maxclients", "1")
            with pytest.raises(Throttled, match="no connection left"):
                await bench.cache.apply([Invalidate("k")])


async def test_a_server_that_does_not_know_a_command_says_so(start: Start) -> None:
    with start("--rename-command", "UNLINK", "") as server:
        async with redis_bench(server.url) as bench:
            with pytest.raises(WorldMismatch, match="does not know a command"):
                await bench.cache.apply([Invalidate("k")])


async def test_refreshes_that_fail_altogether_keep_no_invalidation_back(start: Start) -> None:
    with start("--rename-command", "EVALSHA", "") as server:
        async with redis_bench(server.url) as bench:
            await bench.seed({"order": OLD, "list": b"any"})
            with pytest.raises(WorldMismatch, match="does not know a command"):
                await bench.cache.apply([refresh("order"), Invalidate("list")])
            assert await bench.client.keys() == [b"order"]


async def test_a_database_that_is_not_there_is_named(start: Start) -> None:
    with start() as server:
        async with redis_bench(server.url.replace("/0", "/99")) as bench:
            for call in (bench.cache.probe(), bench.cache.apply([Invalidate("k")])):
                with pytest.raises(WorldMismatch, match="no database of this number"):
                    await call


# -- the words of servers that may not be installed here -----------------------------------------------------------

IN_SCRIPT = (
    "Error running script (call to f_62e6aac9c7520a78c28f012748b42ed670fff5d3): @user_script:14: @user_script: 14: "
)


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("-READONLY You can't write against a read only replica.", Unreachable, "read-only replica"),
        ("-OOM command not allowed when used memory > 'maxmemory'.", Throttled, "out of memory"),
        ("The user executing the script can't run this command or subcommand", AccessRefused, "denied"),
        (
            "The user executing the script can't access at least one of the keys mentioned in the command arguments",
            AccessRefused,
            "denied",
        ),
        ("-MISCONF Redis is configured to save RDB snapshots, but it is currently", Unreachable, "cannot save"),
        ("-LOADING Redis is loading the dataset in memory", Unreachable, "is loading"),
        ("-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is", Unreachable, "lost its primary"),
        ("-CLUSTERDOWN The cluster is down", Unreachable, "Redis Cluster"),
    ],
)
@pytest.mark.parametrize("before", ["", IN_SCRIPT, "@user_script: 14: "], ids=["bare", "called", "protected call"])
def test_a_kind_of_trouble_is_recognised_wherever_it_stands(
    text: str, kind: type[ReplicatorError], says: str, before: str
) -> None:
    error = ResponseError(before + text)
    ours = translated(error, "cache main")
    assert type(ours) is kind
    assert says in ours.message
    assert is_elsewhere(error) is not is_permission(error)


@pytest.mark.parametrize(
    ("scheme", "said", "hint"),
    [
        ("rediss", "Timeout connecting to server", "rediss:// needs a port that speaks TLS"),
        ("rediss", "[SSL: WRONG_VERSION_NUMBER] wrong version number", "rediss:// needs a port that speaks TLS"),
        ("redis", "Connection closed by server.", "a port that speaks TLS needs rediss://"),
        ("redis", "Timeout connecting to server", None),
        ("rediss", "Connection closed by server.", None),
    ],
)
def test_a_scheme_that_may_not_fit_the_port_is_said(scheme: str, said: str, hint: str | None) -> None:
    message = translated(RedisConnectionError(said), f"cache main in eu at {scheme}://127.0.0.1:1").message
    assert (hint in message) if hint else ("speaks TLS" not in message)


async def test_tls_to_a_server_without_it_says_what_may_be_wrong(start: Start) -> None:
    with start() as server:
        url = f"rediss://127.0.0.1:{server.port}/0"
        cache = open_cache("main in eu", url, Login(), Login(), connect_seconds=1, read_seconds=1)
        with pytest.raises(Unreachable, match="rediss:// needs a port that speaks TLS"):
            await cache.probe()
        await cache.close()


def test_what_did_not_answer_is_no_refusal() -> None:
    assert "got no answer" in translated(RedisConnectionError("Connection closed by server."), "cache main").message
    assert "answered with an error" in translated(ResponseError("ERR something else"), "cache main").message

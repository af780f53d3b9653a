"""Redis or Valkey beside a replica: versioned refresh and invalidation.

Invariant: a refresh never lowers an entry's version and never creates one; readers' leases (`L:`) are dropped, so a
reader that read before the write cannot fill behind it. Entry format: `V:version|payload`, `T:version`, `L:token`.
Nothing counts as done unless its server has proven that it takes writes, and no action keeps back another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from replicator.adapters.redis.calls import (
    FOREIGN,
    Call,
    Command,
    Tally,
    calls,
    filling,
    hash_entry,
    hash_head,
    parts,
    version_of_hash,
)
from replicator.adapters.redis.errors import (
    CLIENT_ERRORS,
    is_elsewhere,
    is_elsewhere_in_cluster,
    is_full,
    is_permission,
    is_unknown_script,
    is_wrong_type,
    translated,
)
from replicator.adapters.redis.opening import Login, open_client, safe_url
from replicator.adapters.redis.scripts import NOTHING, digest
from replicator.domain.cache_keys import CacheAction, CacheVerb
from replicator.domain.cache_nodes import CacheNode
from replicator.domain.cache_restores import CacheServer, CacheServers
from replicator.domain.errors import ReplicatorError, WorldMismatch
from replicator.ports.targets import ENTRY_HEAD, CacheAnswer, CacheFill

KEYS_PER_SCAN = 1000
_NODE_SECONDS = 3.0


class RedisCache:
    """One Redis or Valkey: a server, or the primary that Sentinels name."""

    def __init__(  # noqa: PLR0913 - a composition root fills it once
        self,
        name: str,
        url: str,
        *,
        username: str | None,
        password: str | None,
        sentinel_username: str | None = None,
        sentinel_password: str | None = None,
        connect_seconds: float,
        read_seconds: float,
    ) -> None:
        self._address = safe_url(url)
        self._what = f"cache {name} at {self._address}"
        self._clients = open_client(
            url,
            Login(username, password),
            Login(sentinel_username, sentinel_password),
            connect_seconds=connect_seconds,
            read_seconds=read_seconds,
        )
        self._client: Any = self._clients[0]
        self._database = int(self._client.connection_pool.connection_kwargs.get("db") or 0)

    async def apply(self, actions: Sequence[CacheAction]) -> CacheAnswer:
        """Carry the actions out, a few hundred keys per round trip."""
        tally = Tally()
        try:
            for call in calls(actions, parts):
                await self._send(call, tally)
        except CLIENT_ERRORS as error:
            raise await self._failure(error) from error
        if any(is_elsewhere(error) for error in tally.refused.values()):
            await self._begin_anew()
        return CacheAnswer(
            tally.changed,
            frozenset(tally.unstored),
            {key: translated(error, self._what) for key, error in tally.refused.items()},
            tally.leased,
        )

    async def fill(self, fills: Sequence[CacheFill]) -> int:
        """Store entries whose leases still stand; returns how many."""
        try:
            return sum([answer == 1 for answer in await self.pipelined([filling(fill) for fill in fills])])
        except CLIENT_ERRORS as error:
            raise await self._failure(error) from error

    async def _send(self, call: Call, tally: Tally, *, sure: bool = False) -> None:
        """Carry a call out; when one key of many is denied, each is tried by itself."""
        try:
            tally.take(call.actions, await self._client.execute_command(*call.command(sure=sure)))
        except ResponseError as error:
            if not sure and is_unknown_script(error):
                await self._send(call, tally, sure=True)
            elif not is_permission(error):
                raise
            elif len(call.actions) == 1:
                tally.refuse(call.actions, error)
            else:
                await self._send_singly(call, tally)

    async def _send_singly(self, call: Call, tally: Tally) -> None:
        each = list(call.singly())
        answers = await self.pipelined([one.command(sure=True) for one in each])
        for one, answer in zip(each, answers, strict=True):
            if isinstance(answer, Exception):
                tally.refuse(one.actions, answer)
            else:
                tally.take(one.actions, answer)

    async def pipelined(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to commands, or errors in their place; raises what kept all of them from being answered."""
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(await pipeline.execute(raise_on_error=False))

    async def run(self, command: Command) -> Any:
        """The answer to a command; raises the client's errors."""
        return await self._client.execute_command(*command)

    async def probe(self) -> None:
        """Prove that the cache answers and is one that can be used."""
        try:
            information = await self._client.info()
        except CLIENT_ERRORS as error:
            raise await self._failure(error) from error
        if information.get("cluster_enabled") == 1 or information.get("redis_mode") == "cluster":
            raise WorldMismatch(
                f"The {self._what} is a node of a Redis Cluster.",
                advice="Name the cluster by redis+cluster://host:port,host:port or rediss+cluster://.",
            )
        if information.get("role") in {"slave", "replica"}:
            raise WorldMismatch(f"The {self._what} is a read-only replica.", advice="Name its primary.")

    async def denied(self, key: str, verb: CacheVerb) -> dict[str, str]:
        """The commands that actions on this key need and that are denied, with the server's words.

        No item may have the key; nothing is changed.
        """
        commands: dict[str, Command] = {"UNLINK": ("UNLINK", key)}
        scripts: dict[str, Command] = {
            "EVAL": ("EVAL", NOTHING, 1, key),
            "EVALSHA": ("EVALSHA", digest(NOTHING), 1, key),
        }
        if verb.stores:
            commands |= {"GET": ("GET", key), "SET": ("SET", key, "", "XX"), **scripts}
        if verb is CacheVerb.WRITE_THROUGH:
            commands["TIME"] = ("TIME",)
        if verb is CacheVerb.PUBLISH:  # which need no key of an entry
            commands = {"EVAL": ("EVAL", NOTHING, 0), "EVALSHA": ("EVALSHA", digest(NOTHING), 0)}
        found = {}
        for name, command in commands.items():
            try:
                await self._client.execute_command(*command)
            except CLIENT_ERRORS as error:
                if is_permission(error):
                    found[name] = str(error)
                elif not any(harmless(error) for harmless in (is_full, is_unknown_script, is_elsewhere_in_cluster)):
                    raise await self._failure(error) from error
        return found

    async def flush_denied(self, patterns: Sequence[str] | None) -> str | None:
        """The command that a flush needs and that is denied, with the server's words; None when it is granted.

        A whole database is not flushed to try that.
        """
        if patterns is None:
            return None
        try:
            await self._client.scan(0, match=patterns[0] if patterns else "", count=1)
        except CLIENT_ERRORS as error:
            if is_permission(error):
                return f"SCAN is denied ({str(error).strip().rstrip('. ')})."
            raise await self._failure(error) from error
        return None

    async def get(self, key: str) -> bytes | None:
        """An entry as it is, for `inspect`."""
        try:
            entry: bytes | None = await self._client.get(key)
        except ResponseError as error:
            if not is_wrong_type(error):
                raise await self._failure(error) from error
            return await self._get_hash(key)
        except CLIENT_ERRORS as error:
            raise await self._failure(error) from error
        return entry

    async def _get_hash(self, key: str) -> bytes:
        try:
            return hash_entry(await self._client.hgetall(key))
        except CLIENT_ERRORS as error:
            if isinstance(error, ResponseError) and is_wrong_type(error):
                return FOREIGN
            raise await self._failure(error) from error

    async def heads(self, keys: Sequence[str]) -> list[bytes]:
        """The first bytes of entries; of a key that holds something else than a string, that it is none of ours."""
        found: list[bytes] = []
        try:
            for part in parts(keys):
                found += map(head, await self.pipelined([getrange(key) for key in part]))
            others = [place for place, entry in enumerate(found) if entry == FOREIGN]
            answers = await self.pipelined([version_of_hash(keys[place]) for place in others]) if others else []
            for place, answer in zip(others, answers, strict=True):
                found[place] = hash_head(answer)
        except CLIENT_ERRORS as error:
            raise await self._failure(error) from error
        return found

    async def append(
        self, stream: str, entries: Sequence[Mapping[str, bytes | str]], most: int | None
    ) -> list[ReplicatorError | None]:
        """Add entries to a stream, in their order, and what became of each; `most`: about how many it keeps."""
        try:
            answers = await self.pipelined([xadd(stream, entry, most) for entry in entries])
        except CLIENT_ERRORS as error:
            raise await self._failure(error) from error
        return [await self._failure(each) if isinstance(each, Exception) else None for each in answers]

    async def holds(self, key: str) -> str:
        """The type of what a key holds: `none` when there is nothing."""
        try:
            return str((await self._client.type(key)).decode())
        except CLIENT_ERRORS as error:
            raise await self._failure(error) from error

    async def describe(self) -> str:
        """What server it is, for people: `valkey 9.0.1, standalone, master with 1 replica`."""
        try:
            found = await self._client.info()
        except CLIENT_ERRORS as error:
            raise await self._failure(error) from error
        mode = found.get("server_mode", found.get("redis_mode", "standalone"))
        replicas = found.get("connected_slaves", 0)
        counted = f" with {replicas} replica{'' if replicas == 1 else 's'}" if replicas else ""
        return f"{described(found)}, {mode}, {found.get('role', 'master')}{counted}"

    async def servers(self) -> CacheServers | None:
        """What the server says of itself; None when that is denied."""
        try:
            return CacheServers((await self.itself(),))
        except CLIENT_ERRORS as error:
            if is_permission(error):
                return None
            raise await self._failure(error) from error

    async def itself(self) -> CacheServer:
        """The same; raises the client's errors."""
        found = await self._client.info()
        return CacheServer(
            str(found["run_id"]),
            float(found["uptime_in_seconds"]),
            int(found.get(f"db{self._database}", {}).get("keys", 0)),
            bool(found.get("aof_enabled")),
        )

    async def nodes(self) -> list[CacheNode]:
        """The server, as it says."""
        return [await self.node(self._address, None)]

    async def node(self, address: str, slots: int | None) -> CacheNode:
        """The same, as a node that owns so many slots."""
        try:
            async with asyncio.timeout(_NODE_SECONDS):
                found = await self._client.info()
        except CLIENT_ERRORS as error:
            role = "node" if slots is None else "primary" if slots else "replica"
            return CacheNode(address, role, slots=slots, trouble=translated(error, self._what).message)
        role = "replica" if found.get("role") in {"slave", "replica"} else "primary"
        memory, eviction = int(found.get("maxmemory", 0)), str(found.get("maxmemory_policy", ""))
        return CacheNode(address, role, described(found), None if role == "replica" else slots, memory, eviction)

    async def matching(self, pattern: str) -> AsyncIterator[list[str]]:
        """The keys that match a pattern, some at a time; what comes or goes meanwhile may be there or not, or twice."""
        try:
            async for keys in self.scanned(pattern):
                yield readable(keys)
        except CLIENT_ERRORS as error:
            raise await self._failure(error) from error

    async def flush(self, patterns: Sequence[str] | None) -> int:
        """Drop every entry whose key matches a pattern, or the whole database; returns how many were found.

        What is there from the beginning to the end of a look is found, however many entries come and go meanwhile.
        """
        dropped = 0
        try:
            if patterns is None:
                await self._client.flushdb(asynchronous=True)
            for pattern in patterns or ():
                async for keys in self.scanned(pattern):
                    dropped += await self._client.unlink(*keys) if keys else 0
        except CLIENT_ERRORS as error:
            raise await self._failure(error) from error
        return dropped

    async def scanned(self, pattern: str) -> AsyncIterator[list[bytes]]:
        """The same as bytes, and with the client's own errors: for a node of a cluster, too.

        A cursor of another server passes over most entries, so the end is an error when one took over meanwhile.
        """
        cursor: Any = 0
        server = await self._run_id()
        while True:
            cursor, keys = await self._client.scan(cursor, match=pattern, count=KEYS_PER_SCAN)
            yield keys
            if not int(cursor):
                break
        if await self._run_id() != server:
            raise RedisConnectionError("Another server took over while the entries were gone through.")

    async def _run_id(self) -> str | None:
        """Which server answers; None when it may not be asked."""
        try:
            found = await self._client.info("server")
        except CLIENT_ERRORS as error:
            if is_permission(error):
                return None
            raise
        return str(found["run_id"])

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            await client.aclose()

    async def _failure(self, error: Exception) -> ReplicatorError:
        """The error as ours; a retry opens a new connection if the address may lead to another server by now."""
        if is_elsewhere(error):
            await self._begin_anew()
        return translated(error, self._what)

    async def _begin_anew(self) -> None:
        with suppress(*CLIENT_ERRORS):
            await self._client.connection_pool.disconnect(inuse_connections=False)


def readable(keys: Iterable[bytes]) -> list[str]:
    """Keys as text, without those that are none and so are no keys of rules."""
    return [text for key in keys if (text := key.decode(errors="replace")).encode() == key]


def getrange(key: str) -> Command:
    """Reads the head of an entry."""
    return "GETRANGE", key, 0, ENTRY_HEAD - 1


def head(answer: Any) -> bytes:
    """The head of an entry, of what the server answered."""
    if isinstance(answer, bytes):
        return answer
    if isinstance(answer, ResponseError) and is_wrong_type(answer):
        return FOREIGN
    raise answer


def xadd(stream: str, entry: Mapping[str, bytes | str], most: int | None) -> Command:
    """Adds an entry to a stream."""
    bound = () if most is None else ("MAXLEN", "~", most)
    return "XADD", stream, *bound, "*", *(each for pair in entry.items() for each in pair)


def described(found: Mapping[str, Any]) -> str:
    """What server it is, of what it says of itself: `valkey 9.0.1`."""
    name = found.get("server_name", "redis")
    return f"{name} {found.get(f'{name}_version', found.get('redis_version', '?'))}"

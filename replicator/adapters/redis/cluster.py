"""A Redis or Valkey Cluster beside a replica: what `RedisCache` does, with its entries on several nodes.

Invariant: what a node does not carry out is refused by key, and what others did counts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from redis.crc import key_slot

from replicator.adapters.redis.cache import RedisCache, getrange, head, readable, xadd
from replicator.adapters.redis.calls import (
    FOREIGN,
    Call,
    Command,
    Tally,
    as_fields,
    by_slot,
    calls,
    filling,
    hash_entry,
    hash_head,
    slot_of,
    version_of_hash,
)
from replicator.adapters.redis.errors import CLIENT_ERRORS, is_permission, is_wrong_type, translated
from replicator.adapters.redis.nodes import NODE_SECONDS, SLOTS, Address, Nodes, Order, Topology
from replicator.adapters.redis.opening import Login, node_url, safe_url
from replicator.domain.cache_debt import PartAway
from replicator.domain.cache_keys import CacheAction, CacheVerb
from replicator.domain.cache_nodes import CacheNode
from replicator.domain.cache_restores import CacheServer, CacheServers
from replicator.domain.cache_urls import ClusterUrl, cluster_url
from replicator.domain.errors import ReplicatorError, Unreachable
from replicator.ports.targets import CacheAnswer, CacheFill


class ClusterCache:
    """One cluster; its nodes are learnt from those that its URL names."""

    def __init__(  # noqa: PLR0913 - a composition root fills it once
        self,
        name: str,
        url: ClusterUrl,
        *,
        username: str | None,
        password: str | None,
        connect_seconds: float,
        read_seconds: float,
    ) -> None:
        self._what = f"cache {name} at {safe_url(url.address)}"

        def open_node(address: Address) -> RedisCache:
            return RedisCache(
                name,
                node_url(url, *address),
                username=username,
                password=password,
                connect_seconds=connect_seconds,
                read_seconds=read_seconds,
            )

        self._flushed: frozenset[Any] | None = None
        """Nodes and their run ids when those that answered were flushed, and some did not."""
        self._nodes = Nodes([Address(*each) for each in url.nodes], open_node)

    # -- entries -------------------------------------------------------------------------------------------------------

    async def apply(self, actions: Sequence[CacheAction]) -> CacheAnswer:
        """Carry the actions out, in one round trip to each node at the same time; what drops entries goes first."""
        tally = Tally()
        errors: dict[str, ReplicatorError] = {}
        told: dict[tuple[int, Address | None], ReplicatorError] = {}
        for order in await self._send([Order(slot_of(call.actions[0].key), call) for call in calls(actions, by_slot)]):
            if not isinstance(order.answer, Exception):
                tally.take(order.call.actions, order.answer)
                continue
            one = id(order.answer), order.at
            if one not in told:
                told[one] = self._translated(order.answer, order.at)
            errors |= {action.key: told[one] for action in order.call.actions}
        errors |= {key: translated(error, self._what) for key, error in tally.refused.items()}
        return CacheAnswer(tally.changed, frozenset(tally.unstored), errors, tally.leased)

    async def fill(self, fills: Sequence[CacheFill]) -> int:
        """Store entries whose leases still stand; returns how many."""
        return sum([answer == 1 for answer in await self._ask([(slot_of(fill.key), filling(fill)) for fill in fills])])

    async def get(self, key: str) -> bytes | None:
        """An entry as it is, for `inspect`."""
        (answer,) = await self._ask([(slot_of(key), ("GET", key))])
        if isinstance(answer, Exception) and is_wrong_type(answer):
            (fields,) = await self._ask([(slot_of(key), ("HGETALL", key))])
            return FOREIGN if isinstance(fields, Exception) else hash_entry(as_fields(fields))
        entry: bytes | None = self._sound(answer)
        return entry

    async def heads(self, keys: Sequence[str]) -> list[bytes]:
        """The first bytes of entries; of a key that holds something else than a string, that it is none of ours."""
        answers = await self._ask([(slot_of(key), getrange(key)) for key in keys])
        try:
            found = [head(answer) for answer in answers]
        except CLIENT_ERRORS as error:
            raise translated(error, self._what) from error
        others = [place for place, entry in enumerate(found) if entry == FOREIGN]
        versions = await self._ask([(slot_of(keys[place]), version_of_hash(keys[place])) for place in others])
        for place, version in zip(others, versions, strict=True):
            found[place] = hash_head(version)
        return found

    async def append(
        self, stream: str, entries: Sequence[Mapping[str, bytes | str]], most: int | None
    ) -> list[ReplicatorError | None]:
        """Add entries to a stream, in their order, and what became of each; `most`: about how many it keeps."""
        answers = await self._ask([(slot_of(stream), xadd(stream, entry, most)) for entry in entries])
        return [translated(each, self._what) if isinstance(each, Exception) else None for each in answers]

    async def holds(self, key: str) -> str:
        """The type of what a key holds: `none` when there is nothing."""
        (answer,) = await self._ask([(slot_of(key), ("TYPE", key))])
        return str(self._sound(answer).decode())

    async def matching(self, pattern: str) -> AsyncIterator[list[str]]:
        """The keys that match a pattern, node by node; an entry that moves meanwhile may be found twice, or not."""
        for node in (await self._topology(anew=True)).primaries:
            try:
                async for keys in self._nodes.client(node).scanned(pattern):
                    yield readable(keys)
            except CLIENT_ERRORS as error:
                raise self._translated(error, node) from error

    async def flush(self, patterns: Sequence[str] | None) -> int:
        """Drop every entry whose key matches a pattern, or whole databases; returns how many were found.

        All nodes are gone through twice: an entry that moves to a node that was looked at before is found then. Raises
        `PartAway` when some do not answer; they are not flushed again before another one answers or does not.
        """
        dropped = 0
        for _ in range(2):
            primaries = (await self._topology(anew=True)).primaries
            told = dict(zip(primaries, await asyncio.gather(*map(self._itself, primaries)), strict=True))
            silent = {node: said for node, said in told.items() if isinstance(said, Exception)}
            scene = frozenset(
                (node, None if isinstance(said, Exception) else said.run_id) for node, said in told.items()
            )
            if not silent or scene != self._flushed:
                for node in primaries:
                    dropped += 0 if node in silent else await self._flush(node, patterns)
            if silent:
                node, error = next(iter(silent.items()))
                self._flushed = scene
                raise PartAway(self._translated(error, node).message) from error
        self._flushed = None
        return dropped

    async def _flush(self, node: Address, patterns: Sequence[str] | None) -> int:
        client, dropped = self._nodes.client(node), 0
        try:
            if patterns is None:
                await client.run(("FLUSHDB", "ASYNC"))
            for pattern in patterns or ():
                async for keys in client.scanned(pattern):
                    dropped += await self._drop(keys)
        except CLIENT_ERRORS as error:
            raise self._translated(error, node) from error
        return dropped

    async def _drop(self, keys: Iterable[bytes]) -> int:
        slots: dict[int, list[bytes]] = {}
        for key in keys:
            slots.setdefault(key_slot(key), []).append(key)
        orders = await self._send([Order(slot, Call(some, _unlink, _unlink)) for slot, some in slots.items()])
        return sum(self._sound(order.answer) for order in orders)

    # -- nodes ---------------------------------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Prove that every slot has a node that answers and takes part in a cluster that is up."""
        topology = await self._topology()
        if len(topology.owners) < SLOTS:
            raise Unreachable(
                f"Of the slots of the {self._what} {SLOTS - len(topology.owners)} have no node.",
                advice="Assign them (CLUSTER ADDSLOTS, or valkey-cli --cluster fix); the worker retries.",
            )
        for node in topology.primaries:
            try:
                await self._nodes.client(node).itself()
                state = await self._nodes.client(node).run(("CLUSTER", "INFO"))
            except CLIENT_ERRORS as error:
                raise self._translated(error, node) from error
            if b"cluster_state:ok" not in state:
                raise Unreachable(
                    f"The {self._what} is down, as its node {node} says (cluster_state:fail).",
                    advice="Restore its nodes (CLUSTER NODES names those that fail); the worker retries.",
                )

    async def denied(self, key: str, verb: CacheVerb) -> dict[str, str]:
        """The commands that actions on this key need and that some node denies, with the server's words.

        Replicas are asked, too, because one of them may take over; users are not copied to them by the cluster.
        """
        found: dict[str, str] = {}
        for node in (await self._topology()).nodes:
            client = self._nodes.client(node)
            denied = await client.denied(key, verb)
            for name, command in (("ASKING", ("ASKING",)), ("CLUSTER|INFO", ("CLUSTER", "INFO"))):
                try:
                    await client.run(command)
                except CLIENT_ERRORS as error:
                    if not is_permission(error):
                        raise self._translated(error, node) from error
                    denied[name] = str(error)
            found = {name: f"{words.strip().rstrip('. ')}, at {node}" for name, words in denied.items()} | found
        return found

    async def flush_denied(self, patterns: Sequence[str] | None) -> str | None:
        """The command that a flush needs and that some node denies; None when it is granted."""
        for node in (await self._topology()).nodes:
            denied = await self._nodes.client(node).flush_denied(patterns)
            if denied is not None:
                return f"At {node} {denied}"
        return None

    async def servers(self) -> CacheServers | None:
        """What the primaries say of themselves; None when that is denied."""
        primaries = (await self._topology(anew=True)).primaries
        told = await asyncio.gather(*map(self._itself, primaries))
        said = tuple(each for each in told if isinstance(each, CacheServer))
        errors = [each for each in told if isinstance(each, Exception)]
        if any(is_permission(error) for error in errors):
            return None
        if not said:
            raise translated(errors[0], self._what) from errors[0]
        return CacheServers(said, len(errors))

    async def _itself(self, node: Address) -> CacheServer | Exception:
        try:
            async with asyncio.timeout(NODE_SECONDS):
                return await self._nodes.client(node).itself()
        except CLIENT_ERRORS as error:
            return error

    async def nodes(self) -> list[CacheNode]:
        """Every node, as it is and as it says."""
        topology = await self._topology(anew=True)
        slots = Counter(topology.owners.values())
        return list(
            await asyncio.gather(
                *(self._nodes.client(node).node(str(node), slots.get(node, 0)) for node in topology.nodes)
            )
        )

    async def describe(self) -> str:
        """What it is, for people: `cluster of 3 primaries and 3 replicas, 16384 of 16384 slots`."""
        topology = await self._topology(anew=True)
        primaries, every = len(topology.primaries), len(topology.nodes)
        others = every - primaries
        replicas = f" and {others} replica{'' if others == 1 else 's'}" if others else ""
        return f"cluster of {primaries} primaries{replicas}, {len(topology.owners)} of {SLOTS} slots"

    async def close(self) -> None:
        """Close the connections."""
        await self._nodes.close()

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def _topology(self, *, anew: bool = False) -> Topology:
        try:
            return await self._nodes.topology(anew=anew)
        except CLIENT_ERRORS as error:
            raise translated(error, self._what) from error

    async def _send(self, orders: Sequence[Order]) -> list[Order]:
        try:
            return await self._nodes.send(orders)
        except CLIENT_ERRORS as error:
            raise translated(error, self._what) from error

    async def _ask(self, commands: Sequence[tuple[int, Command]]) -> list[Any]:
        """The answers to commands on one key each, in their order."""
        orders = [Order(slot, Call((None,), _always(command), _always(command))) for slot, command in commands]
        await self._send(orders)
        return [order.answer for order in orders]

    def _translated(self, error: Exception, node: Address | None) -> ReplicatorError:
        return translated(error, self._what if node is None else f"node {node} of {self._what}")

    def _sound(self, answer: Any) -> Any:
        """An answer that is no error."""
        if isinstance(answer, Exception):
            raise translated(answer, self._what) from answer
        return answer


CacheClient = RedisCache | ClusterCache


def open_cache(  # noqa: PLR0913 - what a client takes
    name: str, url: str, login: Login, sentinels: Login, *, connect_seconds: float, read_seconds: float
) -> CacheClient:
    """The client of a cache by its URL; nothing is sent yet."""
    times = {"connect_seconds": connect_seconds, "read_seconds": read_seconds}
    cluster = cluster_url(url)
    if cluster is not None:
        return ClusterCache(name, cluster, username=login.username, password=login.password, **times)
    return RedisCache(
        name,
        url,
        username=login.username,
        password=login.password,
        sentinel_username=sentinels.username,
        sentinel_password=sentinels.password,
        **times,
    )


def _unlink(keys: Sequence[bytes]) -> Command:
    return "UNLINK", *keys


def _always(command: Command) -> Any:
    return lambda _: command

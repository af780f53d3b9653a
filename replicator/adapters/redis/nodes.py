"""The nodes of a cluster: who owns which slot now, and what is sent to whom.

Calls of one slot each go out as one pipeline per node. A node that says that a slot is elsewhere is followed.
Invariant: no node delays what is meant for another one. One that does not answer refuses what was meant for it, and is
left alone for a moment.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError

from replicator.adapters.redis.errors import CLIENT_ERRORS, is_permission, is_unknown_script
from replicator.domain.addresses import host_and_port

if TYPE_CHECKING:
    from replicator.adapters.redis.cache import RedisCache
    from replicator.adapters.redis.calls import Call, Command, Maker

SLOTS = 16_384
NODE_SECONDS = 0.8
"""What one node may take to say something of itself."""

_SEND_SECONDS = 0.9
"""Less than a batch is waited for: a node that takes longer does not answer, and the rest of the batch counts."""

_LEAST_SECONDS = 0.2
"""With less time than this left nothing is sent again."""

_REST_SECONDS = 1.0
_LEARN_SECONDS = 0.5
_LEARN_APART = 0.2
_ASKED_AT_ONCE = 4
_PAUSE_SECONDS = 0.02
_SCRIPT_TRIES = 2


class Address(NamedTuple):
    """Where a node listens."""

    host: str
    port: int

    def __str__(self) -> str:
        """As people write it."""
        return host_and_port(self.host, self.port)


class Topology(msgspec.Struct, frozen=True):
    """Who owns which slot, as one of the nodes says, and the replicas of each owner."""

    owners: Mapping[int, Address]
    replicas: Mapping[Address, tuple[Address, ...]]

    @property
    def primaries(self) -> tuple[Address, ...]:
        """Every node that owns a slot, in their order."""
        return tuple(dict.fromkeys(self.owners.values()))

    @property
    def nodes(self) -> tuple[Address, ...]:
        """Every node."""
        primaries = self.primaries
        return tuple(dict.fromkeys((*primaries, *(each for one in primaries for each in self.replicas.get(one, ())))))


class Order(msgspec.Struct, eq=False):
    """A call that is under way. `node`: where an answer said that it is to go; `asking`: for this once."""

    slot: int
    call: Call
    answer: Any = None
    node: Address | None = None
    asking: bool = False
    unknown: int = 0
    """How often a server did not know its script."""
    at: Address | None = None
    """The node that was asked last."""
    failed: Address | None = None
    """A node that did not answer it."""


class Nodes:
    """Clients of the nodes, opened as they are met."""

    def __init__(self, seeds: Sequence[Address], open_node: Callable[[Address], RedisCache]) -> None:
        """`open_node` makes a client; nothing is sent."""
        self._seeds = seeds
        self._open = open_node
        self._clients: dict[Address, RedisCache] = {}
        self._owners: dict[int, Address] = {}
        self._replicas: dict[Address, tuple[Address, ...]] = {}
        self._stale = True
        self._learnt_at = float("-inf")
        self._learning = asyncio.Lock()
        self._resting: dict[Address, tuple[float, Exception]] = {}

    def client(self, address: Address) -> RedisCache:
        """The client of a node."""
        found = self._clients.get(address)
        if found is None:
            found = self._clients[address] = self._open(address)
        return found

    async def close(self) -> None:
        """Close every client."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    # -- who owns what -------------------------------------------------------------------------------------------------

    async def topology(self, *, anew: bool = False) -> Topology:
        """Who owns what now; raises why no node says."""
        if anew:
            self._stale, self._learnt_at = True, float("-inf")
        await self._learn()
        return Topology(dict(self._owners), dict(self._replicas))

    async def _learn(self) -> None:
        async with self._learning:
            if not self._stale or (self._owners and time.monotonic() - self._learnt_at < _LEARN_APART):
                return
            asked, error = self._to_ask(), None
            for start in range(0, len(asked), _ASKED_AT_ONCE):
                found = await self._first(asked[start : start + _ASKED_AT_ONCE])
                if not isinstance(found, Exception):
                    await self._take(*found)
                    return
                error = found
            assert error is not None, "there are seeds"
            raise error

    async def _first(self, some: Sequence[Address]) -> tuple[Any, Address] | Exception:
        """What the first node that knows the slots says of them; else the last error."""
        said: asyncio.Queue[tuple[Any, Address]] = asyncio.Queue()

        async def ask(address: Address) -> None:
            try:
                said.put_nowait((await self._slots(address), address))
            except CLIENT_ERRORS as error:
                said.put_nowait((error, address))

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(address), name=f"slots of {address}") for address in some]
            for _ in tasks:
                answer, address = await said.get()
                if not isinstance(answer, Exception):
                    for task in tasks:
                        task.cancel()
                    return answer, address
        assert isinstance(answer, Exception), "else it was returned"
        return answer

    def _to_ask(self) -> list[Address]:
        """Nodes that may know, those that answered last first; the seeds behind them, in case that all are gone."""
        known = list(
            dict.fromkeys((*self._owners.values(), *(each for one in self._replicas.values() for each in one)))
        )
        random.shuffle(known)
        known.sort(key=lambda address: address in self._resting)
        return list(dict.fromkeys((*known, *self._seeds)))

    async def _slots(self, address: Address) -> Any:
        async with asyncio.timeout(_LEARN_SECONDS):
            (answer,) = await self.client(address).pipelined([("CLUSTER", "SLOTS")])
        if isinstance(answer, Exception):
            raise answer
        if not answer:
            raise ClusterDownError("the node knows of no slots")
        return answer

    async def _take(self, said: Any, by: Address) -> None:
        owners: dict[int, Address] = {}
        replicas: dict[Address, tuple[Address, ...]] = {}
        for first, last, primary, *others in said:
            owner = _address(primary, by)
            owners.update(dict.fromkeys(range(first, last + 1), owner))
            replicas[owner] = tuple(_address(other, by) for other in others)
        self._owners, self._replicas = owners, replicas
        self._stale, self._learnt_at = False, time.monotonic()
        kept = {*self._seeds, *Topology(owners, replicas).nodes}
        for address in [address for address in self._clients if address not in kept]:
            self._resting.pop(address, None)
            await self._clients.pop(address).close()

    # -- what is sent --------------------------------------------------------------------------------------------------

    async def send(self, orders: Iterable[Order]) -> list[Order]:
        """Send calls and follow their slots; each has its answer then, or an error in place of one.

        A call on several keys that a node does not take as a whole is replaced by calls on one of them. Raises why no
        node of the cluster answers.
        """
        done: list[Order] = []
        left, deadline = list(orders), time.monotonic() + _SEND_SECONDS
        while left and deadline - time.monotonic() > _LEAST_SECONDS:
            if any(isinstance(order.answer, TryAgainError) for order in left):
                await asyncio.sleep(_PAUSE_SECONDS)
            try:
                await self._learn()
            except CLIENT_ERRORS:
                if any(order.at for order in (*done, *left)):
                    break  # what others did counts
                raise
            pipelines: dict[Address, list[Order]] = {}
            for order in left:
                node = self._place(order)
                if node is None:
                    done.append(order)
                else:
                    pipelines.setdefault(node, []).append(order)
            until = deadline - time.monotonic()
            await asyncio.gather(*(self._pipeline(node, some, until) for node, some in pipelines.items()))
            left = []
            for node, some in pipelines.items():
                for order in some:
                    again = list(self._again(order, node))
                    left += again
                    if not again:
                        done.append(order)
        return [*done, *left]

    def _place(self, order: Order) -> Address | None:
        """Where a call is to go; None: nowhere now, and its answer says why."""
        node = order.at = order.node or self._owners.get(order.slot)
        if node is None:
            self._stale = True
            order.answer = ClusterDownError("Hash slot not served", status_code="CLUSTERDOWN")
            return None
        if node == order.failed:
            return None
        failed_at, error = self._resting.get(node, (float("-inf"), None))
        if error is not None and time.monotonic() - failed_at < _REST_SECONDS:
            order.answer = error
            return None
        return node

    async def _pipeline(self, node: Address, orders: Sequence[Order], seconds: float) -> None:
        """One round trip. The first of several calls that a server does not know the script of brings it.

        That one may be sent elsewhere, so what is not known the second time brings it, too.
        """
        commands: list[Command] = []
        brought: set[Maker] = set()
        for order in orders:
            if order.asking:
                commands.append(("ASKING",))
            bring = order.unknown > 1 or (order.unknown > 0 and order.call.sure not in brought)
            if bring:
                brought.add(order.call.sure)
            commands.append(order.call.command(sure=bring))
        try:
            async with asyncio.timeout(seconds):
                answers = await self.client(node).pipelined(commands)
        except CLIENT_ERRORS as error:
            self._resting[node] = time.monotonic(), error
            self._stale = True
            for order in orders:
                order.answer, order.failed, order.node, order.asking = error, node, None, False
            return
        self._resting.pop(node, None)
        found = iter(answers)
        for order in orders:
            if order.asking:
                next(found)
            order.answer = next(found)

    def _again(self, order: Order, node: Address) -> Iterator[Order]:
        """What is to be sent again for a call; nothing when it is through."""
        answer = order.answer
        if not isinstance(answer, Exception):
            return
        order.node, order.asking = None, False
        several = len(order.call.actions) > 1
        if isinstance(answer, MovedError):
            self._owners[order.slot] = Address(answer.host or node.host, answer.port)
            self._stale = True
            yield order
        elif isinstance(answer, AskError):
            order.node, order.asking = Address(answer.host or node.host, answer.port), True
            yield order
        elif several and (isinstance(answer, TryAgainError) or is_permission(answer)):
            yield from (Order(order.slot, call, answer) for call in order.call.singly())
        elif isinstance(answer, TryAgainError):
            yield order
        elif not isinstance(answer, ResponseError):
            yield order  # elsewhere, if the slot has another owner by now
        elif is_unknown_script(answer) and order.unknown < _SCRIPT_TRIES:
            order.unknown += 1
            yield order
        elif isinstance(answer, ClusterDownError):
            self._stale = True


def _address(said: Sequence[Any], by: Address) -> Address:
    """A node as another one names it; one that does not know its own name is where it was asked."""
    host = said[0].decode() if isinstance(said[0], bytes) else said[0]
    return Address(by.host if host in {None, "", "?"} else str(host), int(said[1]))

"""Leases, members and registry over one store, in memory and in a table, and what operators do to it."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.coordination import (
    CoordinationTable,
    DynamoCoordination,
    DynamoMembership,
    DynamoRegistry,
    Operations,
)
from replicator.domain.gaps import Gap
from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.progress import Position
from replicator.domain.rules import Target
from replicator.domain.shards.leases import Lease, LeaseRow, Rewind, StreamRef, TargetStart
from replicator.domain.shards.lineage import Shard
from replicator.domain.targets import TargetId, replica_id
from replicator.laboratory.memory import MemoryCoordination, MemoryMembership, MemoryRegistry
from replicator.ports.coordination import Coordination, Membership, Registry
from tests.contract.worlds import create_table, fresh

ME, YOU = WorkerId("me"), WorkerId("you")
S1, S2, S3 = ShardId("shard-1"), ShardId("shard-2"), ShardId("shard-3")
STREAM = StreamRef(RegionId("us"), TableName("orders"), "arn:aws:dynamodb:us-east-1:1:table/orders/stream/a", 1000)
ORDERS_EU, ORDERS_AP, BILLS_EU, BILLS_AP, OTHER_EU = (
    replica_id(RuleName(rule), RegionId(region), TableName("orders"))
    for rule, region in (("orders", "eu"), ("orders", "ap"), ("bills", "eu"), ("bills", "ap"), ("other", "eu"))
)
EU = Target(RuleName("orders"), RegionId("eu"), TableName("orders"))
AP = Target(RuleName("orders"), RegionId("ap"), TableName("orders"))
GAP = Gap(STREAM, S1, ORDERS_EU, Position("5"), Position("9"), 1000.0, "trimmed")
FOUND = 1_700_000_000.25


class World:
    """The three ports over one store, its clock, and what operators do to it."""

    coordination: Coordination
    membership: Membership
    registry: Registry

    def turn_clock(self, now: float) -> None:
        """Let the store's clock show this time, in whole seconds since 1970."""
        raise NotImplementedError

    async def rewind(
        self, seen: LeaseRow, positions: Mapping[TargetId, Position | None], rewinds: Mapping[TargetId, Rewind]
    ) -> None:
        raise NotImplementedError

    async def pause(self, rule: RuleName) -> None:
        raise NotImplementedError

    async def resume(self, rule: RuleName) -> None:
        raise NotImplementedError

    async def acknowledge(self, gap: Gap) -> None:
        raise NotImplementedError

    async def gaps(self) -> list[Gap]:
        raise NotImplementedError

    async def note_start(self, target_id: TargetId, started_at: float) -> None:
        """Store a target's start as an earlier version did."""
        raise NotImplementedError

    async def rows(self, stream: StreamRef = STREAM) -> Mapping[ShardId, LeaseRow]:
        """Every shard's row."""
        return (await self.coordination.state(stream)).rows

    async def row(self, shard_id: ShardId = S1) -> LeaseRow:
        """One shard's row."""
        return (await self.rows())[shard_id]

    async def found(self, *shards: ShardId | Shard) -> None:
        """Let shards be discovered."""
        listed = [shard if isinstance(shard, Shard) else Shard(shard) for shard in shards]
        await self.coordination.discover(STREAM, listed, FOUND)

    async def claimed(self, shard_id: ShardId = S1, owner: WorkerId = ME) -> Lease:
        """A lease on a shard, which is discovered if it is not known."""
        if shard_id not in await self.rows():
            await self.found(shard_id)
        row = await self.coordination.claim(STREAM, await self.row(shard_id), owner)
        assert row is not None
        return Lease(STREAM, shard_id, owner, row.epoch)


class MemoryWorld(World):
    def __init__(self) -> None:
        self.members = self.membership = MemoryMembership()
        self.now = 1_700_000_000.0
        self.ledger = self.registry = MemoryRegistry(lambda: self.now)
        self.leases = self.coordination = MemoryCoordination(registry=self.ledger, now=lambda: self.now)

    def turn_clock(self, now: float) -> None:
        self.now = now

    async def rewind(
        self, seen: LeaseRow, positions: Mapping[TargetId, Position | None], rewinds: Mapping[TargetId, Rewind]
    ) -> None:
        self.leases.rewind(STREAM, seen.shard_id, positions, rewinds)

    async def pause(self, rule: RuleName) -> None:
        self.members.pause(rule)

    async def resume(self, rule: RuleName) -> None:
        self.members.resume(rule)

    async def acknowledge(self, gap: Gap) -> None:
        self.ledger.acknowledge(gap.gap_id)

    async def gaps(self) -> list[Gap]:
        return self.ledger.gaps

    async def note_start(self, target_id: TargetId, started_at: float) -> None:
        self.ledger.put_start(STREAM, TargetStart(target_id, started_at))


class TableWorld(World):
    def __init__(self, opened: Place, table: str) -> None:
        self.client, self.table = opened.dynamodb, table
        rows = CoordinationTable(opened.dynamodb, table=table, group="test", region_id="us")
        self.names = rows.names
        self.coordination, self.membership, self.registry = (
            DynamoCoordination(rows),
            DynamoMembership(rows),
            DynamoRegistry(rows),
        )
        self.operations = Operations(rows)

    def turn_clock(self, now: float) -> None:
        self.date_answers(formatdate(now, usegmt=True))

    def date_answers(self, date: str) -> None:
        """Let the server's answers bear this Date."""

        def note(parsed: dict[str, Any], **_: Any) -> None:
            parsed["ResponseMetadata"]["HTTPHeaders"]["date"] = date

        self.client.meta.events.register("after-call.dynamodb", note)

    async def rewind(
        self, seen: LeaseRow, positions: Mapping[TargetId, Position | None], rewinds: Mapping[TargetId, Rewind]
    ) -> None:
        assert await self.operations.rewind(STREAM, seen, positions, rewinds)

    async def pause(self, rule: RuleName) -> None:
        await self.operations.pause(rule, now=FOUND)

    async def resume(self, rule: RuleName) -> None:
        await self.operations.resume(rule)

    async def acknowledge(self, gap: Gap) -> None:
        assert await self.operations.acknowledge(gap, now=FOUND, by="me")

    async def note_start(self, target_id: TargetId, started_at: float) -> None:
        start = {"sv": {"N": "1"}, "started_at": {"N": str(int(started_at))}, "shape": {"S": "x"}}
        await self.put(self.names.stream(STREAM), f"target|{target_id}", **start)

    async def gaps(self) -> list[Gap]:
        return [stored.gap for stored in await self.operations.gaps()]

    async def put(self, partition: str, sort: str, **attributes: dict[str, Any]) -> None:
        """Write a row as it is."""
        row = {"pk": {"S": partition}, "sk": {"S": sort}, **attributes}
        await self.client.put_item(TableName=self.table, Item=row)

    async def overwrite(self, attribute: str, value: dict[str, Any] | None, sort: str = f"shard|{S1}") -> None:
        """Set an attribute of a row of the stream, or (None) take it away."""
        request: dict[str, Any] = {"UpdateExpression": "REMOVE #a"}
        if value is not None:
            request = {"UpdateExpression": "SET #a = :a", "ExpressionAttributeValues": {":a": value}}
        await self.client.update_item(
            TableName=self.table,
            Key={"pk": {"S": self.names.stream(STREAM)}, "sk": {"S": sort}},
            ExpressionAttributeNames={"#a": attribute},
            **request,
        )


async def table_world(opened: Place) -> TableWorld:
    table = fresh("coordination")
    await create_table(opened.dynamodb, table, {"pk": "S", "sk": "S"})
    return TableWorld(opened, table)

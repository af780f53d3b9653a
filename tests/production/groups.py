"""Row 33: several groups on one coordination table, with the real adapter on a server."""

from __future__ import annotations

from replicator.adapters.dynamodb.coordination import (
    CoordinationTable,
    DynamoCoordination,
    DynamoMembership,
    DynamoRegistry,
    Operations,
)
from replicator.domain.gaps import Gap
from replicator.domain.identifiers import RegionId, RuleName, TableName, WorkerId
from replicator.domain.progress import END, Position
from replicator.domain.rules import Target
from replicator.domain.shards.leases import Lease, Pulse, StreamRef
from replicator.domain.shards.lineage import Shard
from tests.contract.worlds import create_table, fresh, place
from tests.production.guarantee import require
from tests.production.reading import S0

STREAM = StreamRef(RegionId("us"), TableName("orders"), "arn:aws:dynamodb:us-east-1:1:table/orders/stream/a", 1000)
RULE, ME = RuleName("orders"), WorkerId("me")
TARGET = Target(RULE, RegionId("eu"), TableName("orders"))
GAP = Gap(STREAM, S0, TARGET.target_id, Position("5"), END, 1000.0, "trimmed")


class _Group:
    """Everything that one group does with the coordination table."""

    def __init__(self, rows: CoordinationTable) -> None:
        self.coordination, self.membership = DynamoCoordination(rows), DynamoMembership(rows)
        self.registry, self.operations = DynamoRegistry(rows), Operations(rows)

    async def work(self) -> Lease:
        """Leave every kind of row."""
        await self.membership.beat(ME, Pulse(1))
        await self.registry.remember_stream(STREAM)
        await self.registry.start(STREAM, TARGET, started_at=1000.0)
        await self.registry.record_gap(GAP)
        await self.operations.acknowledge(GAP, now=1.0, by="me")
        await self.operations.pause(RULE, now=1.0)
        await self.coordination.take_seat(STREAM, None, ME)
        await self.coordination.discover(STREAM, [Shard(S0)], 1000.0)
        row = (await self.coordination.state(STREAM)).rows[S0]
        claim = await self.coordination.claim(STREAM, row, ME)
        require(claim is not None and claim.epoch == 1, "a group claims shards for itself")
        lease = Lease(STREAM, S0, ME, 1)
        await self.coordination.save(lease, {TARGET.target_id: Position("7")})
        return lease

    async def finds_nothing(self) -> None:
        """Nobody else's rows are seen."""
        state = await self.coordination.state(STREAM)
        require(not state.rows and not state.seat and not state.starts, "a group sees no shards of another one")
        require(await self.membership.members() == {}, "a group sees no workers of another one")
        require(await self.membership.paused() == {}, "a group's pauses are its own")
        require(not await self.registry.acknowledged(GAP), "a group's losses are its own")
        require(await self.registry.streams(STREAM.region, STREAM.table) == [], "a group's streams are its own")


async def groups(url: str) -> None:
    """Two groups share one coordination table by accident."""
    async with place(url) as opened:
        name = fresh("coordination")
        await create_table(opened.dynamodb, name, {"pk": "S", "sk": "S"})
        blue, green = (
            _Group(CoordinationTable(opened.dynamodb, table=name, group=group, region_id="us"))
            for group in ("blue", "green")
        )
        lease = await blue.work()
        await green.finds_nothing()
        await green.work()
        await blue.coordination.save(lease, {TARGET.target_id: Position("8")})
        for group, position in ((blue, "8"), (green, "7")):
            row = (await group.coordination.state(STREAM)).rows[S0]
            require(row.checkpoints[TARGET.target_id].text == position, "a group's positions are its own")

"""Everything under a rule's name, handed to another name or forgotten, in a DynamoDB table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.coordination import (
    CoordinationTable,
    DynamoJobs,
    FunctionNotes,
    Pause,
    RuleRows,
    StoredGap,
)
from replicator.domain.drivers import Drivers
from replicator.domain.driving import FunctionNote
from replicator.domain.errors import WorldMismatch
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.jobs import Job, JobKind, JobState, Part
from replicator.domain.progress import END, HORIZON, Position
from replicator.domain.shards.leases import KnownStream, Rewind
from replicator.domain.targets import mesh_id, replica_id, source_caches_id
from replicator.domain.values import replace
from tests.contract.coordination_worlds import (
    BILLS_EU,
    EU,
    FOUND,
    GAP,
    ORDERS_EU,
    S1,
    S2,
    STREAM,
    TableWorld,
    table_world,
)

pytestmark = pytest.mark.servers

OLD, NEW, BILLS = RuleName("orders"), RuleName("sales"), RuleName("bills")
NEW_EU = ORDERS_EU.of_rule(NEW)
TARGETS = [
    ORDERS_EU,
    ORDERS_EU.earlier,
    replica_id(OLD, RegionId("ap"), TableName("orders-v2")),
    source_caches_id(OLD, RegionId("us")),
    mesh_id(OLD, [(RegionId("us"), TableName("orders")), (RegionId("eu"), TableName("orders"))]),
]
OTHER_GAP = replace(GAP, target_id=BILLS_EU)
FILLING = Job("b1", JobKind.BOOTSTRAP, OLD, TableName("orders"), (ORDERS_EU,), (Part("us:orders", 2),), created_at=5.0)
REPAIR = replace(FILLING, job_id="r2", kind=JobKind.REPAIR, created_at=6.0)
OTHER_FILLING = replace(FILLING, job_id="b3", rule=BILLS, targets=(BILLS_EU,), created_at=7.0)


class Stored:
    """All that can stand under a rule's name, and the same of another rule, which nothing here may touch."""

    def __init__(self, world: TableWorld) -> None:
        self.world = world
        self.table = CoordinationTable(world.client, table=world.table, group="test", region_id="us")
        self.rows = RuleRows(self.table)
        self.jobs = DynamoJobs(self.table)
        self.notes = FunctionNotes(self.table)

    async def fill(self) -> None:
        world = self.world
        await world.registry.remember_stream(STREAM, {ORDERS_EU, BILLS_EU})
        await world.registry.start(STREAM, EU)
        for target_id in (*TARGETS[1:], BILLS_EU):
            await world.note_start(target_id, 5.0)
        await world.found(S1, S2)
        ours = {target_id: Position(str(number)) for number, target_id in enumerate(TARGETS)}
        await world.rewind(await world.row(S1), {**ours, BILLS_EU: END}, {ORDERS_EU: Rewind(5.0, END)})
        await world.rewind(await world.row(S2), {ORDERS_EU: END, BILLS_EU: HORIZON}, {BILLS_EU: Rewind(6.0, END)})
        for rule in (OLD, BILLS):
            await world.operations.pause(rule, now=FOUND, note=f"{rule} rests")
            await world.operations.drive(rule, Drivers.LAMBDA)
            await self.notes.note(rule, STREAM, 7, seen_at=FOUND)
        for gap in (GAP, replace(GAP, shard_id=S2), OTHER_GAP):
            await world.registry.record_gap(gap)
        assert await world.operations.acknowledge(GAP, now=FOUND, by="ada", note="compared")
        for job in (FILLING, OTHER_FILLING):
            await self.jobs.create(job)
            await self.jobs.end(job, JobState.DONE, at=9.0, counts={"items": 3})
        await self.jobs.create(REPAIR)
        await self.jobs.note("r2", {"found": 1})

    async def all(self) -> list[dict[str, Any]]:
        """Every row of the group."""
        answer = await self.world.client.scan(TableName=self.world.table, ConsistentRead=True)
        return sorted(answer["Items"], key=lambda row: (row["pk"]["S"], row["sk"]["S"]))

    async def left(self, rule: RuleName) -> list[dict[str, Any]]:
        """Every row that is a rule's, or has something of it."""
        return [row for row in await self.all() if any(_is_of(rule, text) for text in _texts(row))]


def _texts(row: dict[str, Any]) -> Iterator[str]:
    """Whatever in a row may name a rule or a target."""
    yield from row
    yield row["sk"]["S"]
    yield row["sk"]["S"].partition("|")[0]
    yield from (row.get(name, {}).get("S", "") for name in ("target", "rule"))
    yield from json.loads(row["document"]["S"])["targets"] if "document" in row else ()
    yield from row.get("drained_for", {}).get("SS", ())


def _is_of(rule: RuleName, text: str) -> bool:
    name = text
    for prefix in ("at:", "rewind:", "target|", "on|job|", "filled|"):
        name = name.removeprefix(prefix)
    return name == rule or name.startswith(f"{rule}/")


@pytest.fixture
async def stored(dynamo_place: Place) -> Stored:
    made = Stored(await table_world(dynamo_place))
    await made.fill()
    return made


async def test_a_renamed_rule_keeps_everything_that_it_had(stored: Stored) -> None:
    world = stored.world
    started = await world.registry.starts(STREAM)
    assert await stored.rows.rename(OLD, NEW) == 1 + 5 + 2 + 1 + 2 + 4 + 1
    assert await world.operations.pauses() == [Pause(BILLS, FOUND, "bills rests"), Pause(NEW, FOUND, "orders rests")]
    row = await world.row(S1)
    moved = {target_id.of_rule(NEW): Position(str(number)) for number, target_id in enumerate(TARGETS)}
    assert row.checkpoints == {**moved, BILLS_EU: END}
    assert row.rewinds == {NEW_EU: Rewind(5.0, END)}
    assert (await world.row(S2)).checkpoints == {NEW_EU: END, BILLS_EU: HORIZON}
    found = await world.registry.starts(STREAM)
    assert found.keys() == {target_id.of_rule(NEW) for target_id in TARGETS} | {BILLS_EU}
    assert found[NEW_EU].started_at == started[ORDERS_EU].started_at
    known = [KnownStream(STREAM, frozenset({NEW_EU, BILLS_EU}))]
    assert await world.registry.streams(STREAM.region, STREAM.table) == known
    renamed = replace(GAP, target_id=NEW_EU)
    accepted = StoredGap(renamed, acknowledged_at=FOUND, acknowledged_by="ada", note="compared")
    assert await world.registry.acknowledged(renamed)
    gaps = await world.operations.gaps()
    assert accepted in gaps
    assert {each.gap.gap_id for each in gaps} == {
        gap.gap_id for gap in (renamed, replace(renamed, shard_id=S2), OTHER_GAP)
    }
    assert (await world.membership.driven())[NEW].by is Drivers.LAMBDA
    assert await stored.notes.find(NEW, STREAM) == FunctionNote(FOUND, 7)
    assert await stored.rows.formerly() == {NEW: frozenset({OLD})}
    assert await world.registry.former_names(NEW) == {OLD}
    assert await stored.left(OLD) == []


async def test_jobs_of_a_renamed_rule_go_on_and_what_they_filled_stays_filled(stored: Stored) -> None:
    await stored.rows.rename(OLD, NEW)
    renamed = replace(REPAIR, rule=NEW, targets=(NEW_EU,))
    done = [replace(job, state=JobState.DONE, counts={"items": 3}, ended_at=9.0) for job in (FILLING, OTHER_FILLING)]
    assert await stored.jobs.jobs() == [replace(done[0], rule=NEW, targets=(NEW_EU,)), renamed, done[1]]
    assert await stored.jobs.filled() == {NEW_EU: 9.0, BILLS_EU: 9.0}
    assert await stored.jobs.notes("r2") == [("found", 1)]
    assert await stored.jobs.create(replace(renamed, job_id="r4")) == renamed, "one job on a target"
    assert await stored.jobs.end(renamed, JobState.DONE, at=10.0, counts={})
    assert await stored.jobs.create(replace(renamed, job_id="r4")) is None


async def test_two_jobs_that_are_not_over_never_come_to_one_rule(stored: Stored) -> None:
    await stored.jobs.create(replace(REPAIR, job_id="r4", rule=NEW, targets=(NEW_EU,)))
    before = await stored.all()
    with pytest.raises(WorldMismatch, match="job r4 of its own"):
        await stored.rows.rename(OLD, NEW)
    assert await stored.all() == before


async def test_a_rule_that_is_renamed_twice_remembers_both_names(stored: Stored) -> None:
    await stored.rows.rename(OLD, NEW)
    await stored.rows.rename(NEW, RuleName("trade"))
    assert await stored.rows.formerly() == {"trade": frozenset({OLD, NEW})}
    assert (await stored.world.membership.paused()).keys() == {BILLS, "trade"}
    assert await stored.world.operations.resume(RuleName("trade"))
    assert (await stored.world.membership.paused()).keys() == {BILLS}
    assert await stored.rows.formerly() == {"trade": frozenset({OLD, NEW})}, "to resume is not to forget"


@pytest.mark.parametrize("calls", range(1, 18, 2))
async def test_a_rename_that_is_interrupted_is_finished_by_the_next_one(
    stored: Stored, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = calls

    async def some(self: CoordinationTable, *given: object, **named: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise WorldMismatch("interrupted")
        return await update(self, *given, **named)  # type: ignore[arg-type]

    update = CoordinationTable.update
    monkeypatch.setattr(CoordinationTable, "update", some)
    try:
        await stored.rows.rename(OLD, NEW)
    except WorldMismatch:
        assert (await stored.world.membership.paused()).keys() & {OLD, NEW}, "it rests throughout"
    monkeypatch.setattr(CoordinationTable, "update", update)
    await stored.rows.rename(OLD, NEW)
    assert await stored.left(OLD) == []
    row = await stored.world.row(S1)
    assert row.checkpoints.keys() == {target_id.of_rule(NEW) for target_id in TARGETS} | {BILLS_EU}
    assert await stored.world.registry.acknowledged(replace(GAP, target_id=NEW_EU))
    assert NEW in await stored.world.membership.paused()
    assert await stored.jobs.filled() == {NEW_EU: 9.0, BILLS_EU: 9.0}


async def test_a_forgotten_rule_leaves_nothing_behind(stored: Stored) -> None:
    world = stored.world
    assert await stored.rows.forget(OLD) == 5 + 2 + 1 + 2 + 1 + 4 + 1
    assert [job.job_id for job in await stored.jobs.jobs()] == ["b3"]
    assert (await stored.jobs.filled(), await stored.jobs.notes("r2")) == ({BILLS_EU: 9.0}, [])
    assert await world.operations.pauses() == [Pause(BILLS, FOUND, "bills rests")]
    assert [each.gap for each in await world.operations.gaps()] == [OTHER_GAP]
    assert (await world.row(S1)).checkpoints == {BILLS_EU: END}
    row = await world.row(S2)
    assert (row.checkpoints, row.rewinds) == ({BILLS_EU: HORIZON}, {BILLS_EU: Rewind(6.0, END)})
    assert set(await world.registry.starts(STREAM)) == {BILLS_EU}
    assert await world.registry.streams(STREAM.region, STREAM.table) == [KnownStream(STREAM, frozenset({BILLS_EU}))]
    assert await stored.left(OLD) == []
    assert await stored.rows.forget(OLD) == 0


async def test_an_accepted_loss_of_a_forgotten_rule_is_accepted_for_no_new_rule_of_its_name(stored: Stored) -> None:
    await stored.rows.forget(OLD)
    await stored.world.registry.record_gap(GAP)
    assert not await stored.world.registry.acknowledged(GAP)


async def test_two_positions_are_never_made_one(stored: Stored) -> None:
    world = stored.world
    await world.rewind(await world.row(S2), {NEW_EU: Position("3")}, {})
    before = await stored.all()
    with pytest.raises(WorldMismatch, match="progress of its own"):
        await stored.rows.rename(OLD, NEW)
    assert await stored.all() == before


async def test_a_start_that_is_noted_under_the_new_name_meanwhile_is_not_written_over(stored: Stored) -> None:
    world = stored.world

    async def note(**_: object) -> None:
        events.unregister("before-call.dynamodb.GetItem", note)
        await world.note_start(NEW_EU, 9.0)

    events: Any = world.client.meta.events  # it awaits what it calls
    await world.operations.resume(OLD)
    started = (await world.registry.starts(STREAM))[ORDERS_EU]
    events.register("before-call.dynamodb.GetItem", note)
    with pytest.raises(WorldMismatch, match="changed while it was read"):
        await stored.rows.rename(OLD, NEW)
    found = await world.registry.starts(STREAM)
    assert (found[NEW_EU].started_at, found[ORDERS_EU]) == (9.0, started)


async def test_a_row_that_changes_meanwhile_is_not_overwritten(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    query, world = CoordinationTable.query, stored.world

    async def late(self: CoordinationTable, *given: Any, **named: Any) -> object:
        rows = await query(self, *given, **named)
        if given[0] == world.names.stream(STREAM):
            await world.rewind(await world.row(S1), {ORDERS_EU: Position("99")}, {})
        return rows

    monkeypatch.setattr(CoordinationTable, "query", late)
    with pytest.raises(WorldMismatch, match="changed while it was read"):
        await stored.rows.rename(OLD, NEW)
    assert (await world.row(S1)).checkpoints[ORDERS_EU] == Position("99")


async def test_a_rule_of_an_earlier_version_is_renamed_with_what_it_is_through_with(stored: Stored) -> None:
    world = stored.world
    place = world.names.stream_key(STREAM)
    await world.client.update_item(
        TableName=world.table,
        Key=place,
        UpdateExpression="SET drained_for = :d",
        ExpressionAttributeValues={":d": {"SS": ["orders", "bills"]}},
    )
    await stored.rows.rename(OLD, NEW)
    (known,) = await world.registry.streams(STREAM.region, STREAM.table)
    assert known == KnownStream(STREAM, rules=frozenset({NEW, BILLS}))
    assert known.is_drained(NEW_EU)

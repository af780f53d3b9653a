"""Operations on a group's rows, as functions: what they return and what they store, without a command line."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from replicator import operations
from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.coordination import CoordinationTable
from replicator.adapters.dynamodb.streams import DynamoStreams, whole_listing
from replicator.domain.drivers import Drivers
from replicator.domain.errors import TableMissing
from replicator.domain.gaps import EVERY_SHARD
from replicator.domain.identifiers import RegionId, RuleName, TableName, WorkerId
from replicator.domain.jobs import Job, JobKind
from replicator.domain.progress import END, HORIZON, Position
from replicator.domain.shards.leases import Pulse, StreamRef
from replicator.domain.shards.lineage import Shard
from replicator.domain.values import replace
from replicator.operations import gaps, jobs, leases, pauses, rewind
from replicator.operations.audit import audited, list_deeds
from replicator.operations.documents import document
from replicator.operations.driving import drive
from replicator.operations.errors import RequestRefused
from replicator.operations.leases import LeaseFilter, ReleaseRequest
from replicator.operations.status import status
from tests.contract.coordination_worlds import EU, GAP, ME, ORDERS_EU, S1, S2, S3, STREAM, YOU, TableWorld, table_world
from tests.contract.operation_worlds import group_of
from tests.contract.worlds import create_table, fresh

pytestmark = pytest.mark.servers

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.fixture
async def stored(dynamo_place: Place) -> TableWorld:
    """Three shards: one finished, its child owned, and a grandchild that waits."""
    stored = await table_world(dynamo_place)
    await stored.registry.remember_stream(STREAM)
    await stored.registry.start(STREAM, EU, started_at=5.0)
    await stored.found(Shard(S1, closed=True), Shard(S2, (S1,)), Shard(S3, (S2,)))
    await stored.rewind(await stored.row(S1), {ORDERS_EU: END}, {})
    await stored.coordination.save(await stored.claimed(S2), {ORDERS_EU: Position("7")})
    return stored


# -- leases --------------------------------------------------------------------------------------------------------


async def test_shards_are_listed_with_what_they_wait_for(stored: TableWorld, dynamo_place: Place) -> None:
    group, _ = group_of(stored, dynamo_place)
    await stored.membership.beat(ME, Pulse(3, admin="http://here:1"))
    found = await leases.list_leases(group, LeaseFilter(fast=True))
    assert [(shard.shard, shard.state, shard.waits_for) for shard in found.shards] == [
        (S2, "open", []),
        (S3, "waiting", [S2]),
    ]
    assert found.hidden_finished == 1
    assert [(worker.worker, worker.is_, worker.heartbeat, worker.shards) for worker in found.workers] == [
        (ME, "unknown", 3, 1)
    ]
    assert found.shards[0].positions == {ORDERS_EU: Position("7")}
    assert [(stream.shards, stream.finished) for stream in found.streams] == [(3, 1)]
    everything = await leases.list_leases(group, LeaseFilter(everything=True, fast=True))
    assert [shard.state for shard in everything.shards] == ["finished", "open", "waiting"]
    assert [
        shard.shard for shard in (await leases.list_leases(group, LeaseFilter(owner="free", fast=True))).shards
    ] == [S3]
    with pytest.raises(RequestRefused, match="no rule none"):
        await leases.list_leases(group, LeaseFilter(rule="none"))


async def test_a_release_leaves_out_what_went_to_another_owner(stored: TableWorld, dynamo_place: Place) -> None:
    group, _ = group_of(stored, dynamo_place)
    await stored.claimed(S3, YOU)
    (released,) = await leases.release(group, ReleaseRequest(worker=ME))
    assert (released.shard, released.owner, released.epoch) == (S2, ME, 2)
    assert [(await stored.row(shard)).owner for shard in (S2, S3)] == [None, YOU]
    assert await leases.release(group, ReleaseRequest(worker=ME)) == []
    with pytest.raises(RequestRefused, match="needs one of"):
        await leases.release(group, ReleaseRequest(worker=ME, everything=True))


# -- gaps and pauses -----------------------------------------------------------------------------------------------


async def test_a_gap_is_accepted_as_it_was_seen_and_not_once_it_has_grown(
    stored: TableWorld, dynamo_place: Place
) -> None:
    group, _ = group_of(stored, dynamo_place)
    await stored.registry.record_gap(GAP)
    seen = await gaps.gap_named(group, GAP.gap_id[:4])
    assert gaps.listed(seen).meaning.startswith(f"Records of shard {GAP.shard_id} of ")
    whole = gaps.listed(replace(seen, gap=replace(GAP, shard_id=EVERY_SHARD)))
    assert whole.meaning.startswith("Records of every shard of ")
    await stored.registry.record_gap(replace(GAP, until=END))
    with pytest.raises(RequestRefused, match="has grown meanwhile"):
        await gaps.acknowledge(group, seen, by="ada")
    gap, changed = await gaps.acknowledge(group, await gaps.gap_named(group, GAP.gap_id), by="ada", note="compared")
    assert (changed, gap.is_open, gap.acknowledged_by, gap.until) == (True, False, "ada", END)
    again, changed = await gaps.acknowledge(group, await gaps.gap_named(group, GAP.gap_id), by="bob")
    assert (changed, again) == (False, gap)
    assert await gaps.list_gaps(group) == await gaps.list_gaps(group, "orders") == [gap]
    assert await gaps.list_gaps(group, "bills") == []


async def test_a_rule_that_left_the_configuration_can_be_resumed_but_not_paused(
    stored: TableWorld, dynamo_place: Place
) -> None:
    before, _ = group_of(stored, dynamo_place, "orders")
    after, _ = group_of(stored, dynamo_place, "bills")
    assert [await pauses.pause(before, "orders"), await pauses.pause(before, "orders")] == [True, False]
    with pytest.raises(RequestRefused):
        await pauses.pause(after, "orders")
    assert await pauses.resume(after, "orders")
    with pytest.raises(RequestRefused):
        await pauses.resume(after, "orders")
    assert not await pauses.resume(before, "orders")


async def test_a_rule_rests_in_one_of_its_regions_and_goes_on_there(stored: TableWorld, dynamo_place: Place) -> None:
    group, _ = group_of(stored, dynamo_place, "orders")
    written = group.settings.rules[0].regions_written[0]
    assert [await pauses.pause_region(group, "orders", written, "upgrade") for _ in range(2)] == [True, False]
    assert await stored.membership.resting() == {("orders", written)}
    assert await stored.membership.paused() == {}
    (pause,) = await group.operations.region_pauses()
    assert (pause.rule, pause.region, pause.note) == ("orders", written, "upgrade")
    with pytest.raises(RequestRefused, match="writes no table in xx"):
        await pauses.pause_region(group, "orders", "xx")
    with pytest.raises(RequestRefused, match="writes no table in xx"):
        await pauses.resume_region(group, "orders", "xx")
    assert [await pauses.resume_region(group, "orders", written) for _ in range(2)] == [True, False]
    assert await stored.membership.resting() == frozenset()


# -- rewind --------------------------------------------------------------------------------------------------------


async def read_stream(stored: TableWorld, opened: Place) -> StreamRef:
    """A real stream of one shard, which orders/eu has read to 42."""
    table = fresh("orders")
    await create_table(opened.dynamodb, table, {"pk": "S"}, stream=True)
    streams = DynamoStreams(opened)
    stream = replace(await streams.current(TableName(table)), region=RegionId("us"))
    await stored.registry.remember_stream(stream)
    await stored.registry.start(stream, EU, started_at=5.0)
    await stored.coordination.discover(stream, await whole_listing(streams, stream), found_at=1.0)
    (row,) = (await stored.coordination.state(stream)).rows.values()
    assert await stored.operations.rewind(stream, row, {ORDERS_EU: Position("42")}, {})
    return stream


async def test_a_shard_that_changed_hands_since_it_was_shown_is_rewound_from_where_it_stands(
    stored: TableWorld, dynamo_place: Place
) -> None:
    group, _ = group_of(stored, dynamo_place)
    stream = await read_stream(stored, dynamo_place)
    request = rewind.RewindRequest("orders", "1h", stream=stream.arn)
    stored.turn_clock(NOW.timestamp())
    planned = await rewind.plan(group, request)
    (step,) = planned.steps
    assert step.old == {ORDERS_EU: Position("42")}
    assert await stored.operations.rewind(stream, step.row, {ORDERS_EU: Position("50")}, {})
    (moved,) = (await rewind.carry_out(group, planned)).moved
    assert (moved.from_, moved.to) == (Position("50"), HORIZON)
    (row,) = (await stored.coordination.state(stream)).rows.values()
    assert row.checkpoints == {ORDERS_EU: HORIZON}
    skips = row.rewinds[ORDERS_EU]
    assert skips.until == Position("50")
    assert skips.before == pytest.approx(NOW.timestamp() - 3600, abs=60)
    assert (await rewind.plan(group, request)).steps == []
    assert (await rewind.carry_out(group, planned)).moved == []


# -- status --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(status: dict[str, Any]) -> AsyncIterator[str]:
    """An admin server that shows this; yields its address."""

    async def show(_: web.Request) -> web.Response:
        return web.json_response(status)

    app = web.Application()
    app.add_routes([web.get("/status", show)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_of_a_shard_that_two_workers_speak_of_the_owner_s_word_counts(
    stored: TableWorld, dynamo_place: Place
) -> None:
    group, _ = group_of(stored, dynamo_place)

    def says(worker: str, lag: float) -> dict[str, Any]:
        target = {
            "target": ORDERS_EU.text,
            "region": "eu",
            "position": "9",
            "lag_seconds": lag,
            "counts": {"records": 2},
        }
        shard = {"shard": S2, "stream": STREAM.arn, "targets": [target]}
        return {"group": "test", "worker": worker, "rules": [{"name": "orders", "shards": [shard]}]}

    before = WorkerId("a")
    assert before < ME, "so it is heard first"
    async with serving(says(before, 9.0)) as other, serving(says(ME, 1.0)) as owner:
        await stored.membership.beat(before, Pulse(1, admin=other))
        await stored.membership.beat(ME, Pulse(1, admin=owner))
        found = await status(group)
    (rule,) = found.rules
    assert [(shard.shard, shard.owner, shard.over) for shard in rule.shards] == [
        (S1, None, "finished"),
        (S2, ME, None),
        (S3, None, None),
    ]
    (target,) = rule.shards[1].targets
    assert (target.checkpoint, target.position, target.lag_seconds) == ("7", "9", 1.0)
    assert [worker.daemon is not None for worker in found.workers] == [True, True]
    assert document(found)["rules"][0]["shards"][1]["targets"][0]["counts"] == {"records": 2}


async def test_status_is_an_error_only_when_neither_the_table_nor_a_worker_answers(dynamo_place: Place) -> None:
    group, _ = group_of(TableWorld(dynamo_place, "none"), dynamo_place)
    with pytest.raises(TableMissing):
        await status(group)
    answer = {"group": "test", "worker": "me", "rules": [{"name": "orders", "shards": []}]}
    async with serving(answer) as address:
        port = int(address.rpartition(":")[2])
        known, _ = group_of(TableWorld(dynamo_place, "none"), dynamo_place, admin={"port": port})
        found = await status(known)
    assert found.coordination_error is not None
    assert (found.daemon, found.rules[0].shards) == ({"group": "test", "worker": "me"}, [])


# -- clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [-600, 600])
async def test_what_is_written_bears_the_servers_time_whatever_this_machines_clock_says(
    stored: TableWorld, dynamo_place: Place, off: int
) -> None:
    group, _ = group_of(stored, dynamo_place)
    await stored.registry.record_gap(GAP)
    servers = time.time() + off
    stored.turn_clock(servers)
    async with audited(group, who="ada", what="pause", command="replicator pause orders", origin="here"):
        await pauses.pause(group, "orders")
    await pauses.pause_region(group, "orders", group.settings.rules[0].regions_written[0])
    gap, _ = await gaps.acknowledge(group, await gaps.gap_named(group, GAP.gap_id), by="ada")
    await leases.release(group, ReleaseRequest(worker=ME))
    job = await jobs.submit(group, Job("verify-1", JobKind.VERIFY, RuleName("orders"), TableName("orders"), (), ()))
    job = await jobs.job_named(group, job.job_id)
    await jobs.cancel(group, job.job_id, "ada")
    (deed,) = await list_deeds(group)
    row, _ = await CoordinationTable(stored.client, table=stored.table, group="test", region_id="us").get(
        stored.names.shard_key(STREAM, S2)
    )
    times: dict[str, list[float | None]] = {
        "pause": [pause.paused_at for pause in await group.operations.pauses()],
        "region": [pause.paused_at for pause in await group.operations.region_pauses()],
        "gap": [gap.acknowledged_at.timestamp() if gap.acknowledged_at else None],
        "release": [float(row["seized_at"]["N"])],
        "job": [job.created_at, (await jobs.job_named(group, job.job_id)).ended_at],
        "deed": [deed.at.timestamp() if deed.at else None],
    }
    assert times == {what: [pytest.approx(servers, abs=abs(off) / 2)] * len(found) for what, found in times.items()}
    assert job.created_at <= servers + 1, "it closes what was lost before it was asked for, and nothing later"


def test_no_operation_asks_this_machines_clock() -> None:
    """Whatever it does with that, a laptop's may be wrong by minutes: `Group.time` knows the servers'."""
    asking = {
        f"{path.stem}: {call}"
        for path in Path(operations.__path__[0]).glob("*.py")
        for call in re.findall(r"time\.time\(\)|datetime\.now\(|SystemClock\(\)", path.read_text())
    }
    assert asking == {
        "conflict_entries: datetime.now(",  # how far back entries are listed
        "inspect: SystemClock()", "item_region: SystemClock()", "provisioning: SystemClock()",  # what only reads
    }  # fmt: skip


# -- functions and pods ------------------------------------------------------------------------------------------------


async def test_functions_that_drive_already_keep_what_they_noted_of_losses(
    stored: TableWorld, dynamo_place: Place
) -> None:
    stream, name = await read_stream(stored, dynamo_place), RuleName("orders")
    rule = {"name": name, "table": stream.table, "source": "us", "replicas": ["eu"]}
    group, _ = group_of(stored, dynamo_place, rules=[rule])
    await group.function_notes.note(name, stream, 1, seen_at=5.0)
    assert await drive(group, name, Drivers.LAMBDA)
    assert await group.function_notes.find(name, stream) is None, "of another time that they drove it"
    await group.function_notes.note(name, stream, 30, seen_at=time.time())
    assert not await drive(group, name, Drivers.LAMBDA)
    noted = await group.function_notes.find(name, stream)
    assert noted is not None
    assert noted.oldest_hours == 30


async def test_a_hand_over_that_is_killed_at_any_call_leaves_one_driver_and_can_be_repeated(
    stored: TableWorld, dynamo_place: Place
) -> None:
    stream, name = await read_stream(stored, dynamo_place), RuleName("orders")
    rule = {"name": name, "table": stream.table, "source": "us", "replicas": ["eu"]}
    group, _ = group_of(stored, dynamo_place, rules=[rule])
    shard = next(iter((await stored.coordination.state(stream)).rows))
    left = 0

    def kill(**_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise asyncio.CancelledError

    async def by() -> Drivers:
        found = (await group.membership.driven()).get(name)
        return Drivers.PODS if found is None else found.by

    async def killed_everywhere(before: Drivers, after: Drivers) -> None:
        nonlocal left
        events = dynamo_place.dynamodb.meta.events
        for calls in itertools.count():
            left = calls
            events.register("before-call.dynamodb", kill)
            try:
                await drive(group, name, after)
            except asyncio.CancelledError:
                pass
            else:
                assert calls > 3
                return
            finally:
                events.unregister("before-call.dynamodb", kill)
            assert await by() in {before, after}

    await killed_everywhere(Drivers.PODS, Drivers.LAMBDA)
    assert await by() is Drivers.LAMBDA
    await group.function_notes.note(name, stream, 0, seen_at=time.time())
    await killed_everywhere(Drivers.LAMBDA, Drivers.PODS)
    assert await by() is Drivers.PODS
    row = (await stored.coordination.state(stream)).rows[shard]
    assert (row.checkpoints[ORDERS_EU], row.owner) == (HORIZON, None)
    assert row.rewinds[ORDERS_EU].before == pytest.approx(time.time(), abs=600)

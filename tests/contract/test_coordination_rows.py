"""What only a table can hold: rows that are corrupt, incomplete, or of a newer program."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from replicator.adapters.aws.clients import Place
from replicator.domain.errors import TableMissing, WorldMismatch
from replicator.domain.identifiers import SequenceNumber, ShardId
from replicator.domain.progress import Position
from replicator.domain.shards.leases import LeaseRow, Pulse
from replicator.domain.shards.lineage import Shard
from replicator.domain.shards.statements import Statement, Subject
from tests.contract.coordination_worlds import FOUND, ME, ORDERS_EU, S1, S2, S3, STREAM, TableWorld, table_world

pytestmark = pytest.mark.servers


@pytest.fixture
async def stored(dynamo_place: Place) -> TableWorld:
    return await table_world(dynamo_place)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("epoch", {"S": "one"}),
        ("epoch", {"N": "1.5"}),
        ("epoch", None),
        ("owner", {"N": "1"}),
        ("sv", {"S": "1"}),
        ("at:orders/replica/eu:orders", {"S": "somewhere"}),
        ("at:orders/replica/eu:orders", {"N": "5"}),
        ("rewind:orders/replica/eu:orders", {"S": "5"}),
        ("rewind:orders/replica/eu:orders", {"S": "nan 5"}),
        ("rewind:orders/replica/eu:orders", {"S": "5.0 somewhere"}),
        ("parents", {"S": "shard-2"}),
        ("closed", {"S": "yes"}),
        ("vanished", {"N": "1"}),
        ("first", {"S": "first"}),
        ("found_at", {"S": "today"}),
    ],
)
async def test_a_corrupt_row_is_named_with_its_attribute_and_a_remedy_and_hides_no_other(
    stored: TableWorld, attribute: str, value: dict[str, str] | None
) -> None:
    await stored.found(S1, S2)
    await stored.overwrite(attribute, value)
    state = await stored.coordination.state(STREAM)
    assert set(state.rows) == {S2}
    assert state.unreadable is not None
    assert "shard-1" in state.unreadable.message
    assert "is corrupt" in state.unreadable.message
    assert repr(attribute) in state.unreadable.message
    assert "Delete the row" in state.unreadable.advice


@pytest.mark.parametrize("stored_time", ["", "soon 5", "nan 5", "50.0 somewhere", "50.0 6", "50.0"])
async def test_a_time_that_cannot_be_read_or_is_of_a_later_place_is_not_known(
    stored: TableWorld, stored_time: str
) -> None:
    await stored.found(S1)
    await stored.overwrite("at:orders/replica/eu:orders", {"S": "5"})
    await stored.overwrite("through:orders/replica/eu:orders", {"S": stored_time} if stored_time else None)
    assert (await stored.row()).checkpoints[ORDERS_EU].through is None
    await stored.overwrite("through:orders/replica/eu:orders", {"S": "50.0 5"})
    assert (await stored.row()).checkpoints[ORDERS_EU].through == 50.0


async def test_a_heartbeat_says_up_to_when_targets_have_everything(stored: TableWorld) -> None:
    about = Subject(STREAM.region, STREAM.table, STREAM.generation, ORDERS_EU)
    said = {about: Statement(50.25, "0123456789ab")}
    await stored.membership.beat(ME, Pulse(1, through=said))
    assert (await stored.membership.members())[ME].through == said
    for strange in ({"S": "x"}, {"B": b"x"}, {"B": zlib.compress(b"[1]")}, None):
        await stored.put("test|workers", ME, beat={"N": "1"}, **({} if strange is None else {"through": strange}))
        assert (await stored.membership.members())[ME].through == {}, "it lives, and says nothing"


async def test_a_row_that_was_corrected_is_read_again(stored: TableWorld) -> None:
    await stored.found(S1, S2)
    await stored.overwrite("at:orders/replica/eu:orders", {"S": "somewhere"})
    await stored.overwrite("at:orders/replica/eu:orders", {"S": "5"})
    state = await stored.coordination.state(STREAM)
    assert state.unreadable is None
    assert state.rows[S1].checkpoints == {ORDERS_EU: Position("5")}


async def test_a_row_without_lineage_is_a_shard_of_which_nothing_is_known_until_it_is_listed(
    stored: TableWorld,
) -> None:
    shard = Shard(S2, (S1,), closed=True, first=SequenceNumber("5"))
    await stored.found(shard)
    for attribute in ("parents", "closed", "first", "found_at"):
        await stored.overwrite(attribute, None, f"shard|{S2}")
    assert await stored.row(S2) == LeaseRow(Shard(S2))
    await stored.found(shard)
    assert await stored.row(S2) == LeaseRow(shard, found_at=FOUND)


async def test_a_seat_that_cannot_be_read_is_told_and_hides_no_shard(stored: TableWorld) -> None:
    await stored.found(S1)
    await stored.put(stored.names.stream(STREAM), "seat", sv={"N": "1"}, epoch={"S": "x"})
    state = await stored.coordination.state(STREAM)
    assert (set(state.rows), state.seat) == ({S1}, None)
    assert state.unreadable is not None
    assert "takes the seat again" in state.unreadable.advice


async def test_a_worker_whose_row_is_corrupt_shows_no_life_and_hides_nobody(stored: TableWorld) -> None:
    await stored.membership.beat(ME, Pulse(1))
    for name, beat in (("a", {"S": "x"}), ("b", {"N": "1.5"})):
        await stored.put("test|workers", name, beat=beat)
    await stored.put("test|workers", "c", beat={"N": "1"}, news={"S": "much"})
    assert await stored.membership.members() == {ME: Pulse(1)}


async def test_a_heartbeat_tells_people_when_the_worker_started_and_as_what(stored: TableWorld) -> None:
    await stored.membership.beat(ME, Pulse(1))
    first = await heartbeat(stored)
    await stored.membership.beat(ME, Pulse(2))
    assert (await heartbeat(stored))["started"] == first["started"]
    assert first["program"]["S"]


async def heartbeat(stored: TableWorld) -> Mapping[str, Any]:
    """The one heartbeat row as it is."""
    answer = await stored.client.scan(TableName=stored.table)
    (row,) = answer["Items"]
    return row


@pytest.mark.parametrize(
    ("partition", "sort", "words"),
    [
        ("test|streams", "us|orders|0000000001000", "present stream is recorded again"),
        ("test|streams", "us|orders|x", "present stream is recorded again"),
        ("test|us|" + STREAM.arn, "target|orders/replica/eu:orders", "start is then recorded again"),
        ("test|gaps", "0123456789ab", "detected and recorded again"),
        ("test|rules", "orders", "is then not paused"),
    ],
)
async def test_the_advice_about_a_corrupt_row_fits_its_kind(
    stored: TableWorld, partition: str, sort: str, words: str
) -> None:
    await stored.put(partition, sort, sv={"N": "1"}, started_at={"S": "x"}, paused_at={"S": "x"})
    with pytest.raises(WorldMismatch, match="is corrupt") as raised:  # noqa: PT012 - whichever reads this kind
        await stored.coordination.state(STREAM)
        await stored.registry.streams(STREAM.region, STREAM.table)
        await stored.operations.gaps()
        await stored.operations.pauses()
    assert words in raised.value.advice


async def test_gaps_of_the_first_version_are_passed_over(stored: TableWorld) -> None:
    sort = "orders/eu|arn:aws:dynamodb:us-east-1:1:table/orders/stream/a|s1|5"
    told = {name: {"S": "x"} for name in ("stream", "region", "table", "shard", "target", "why")}
    await stored.put(stored.names.gaps, sort, sv={"N": "1"}, found_at={"N": "1"}, after={"S": "5"}, **told)
    assert await stored.operations.gaps() == []


async def test_a_start_that_cannot_be_read_is_not_taken_for_none(stored: TableWorld) -> None:
    await stored.put(
        stored.names.stream(STREAM), "target|orders/replica/eu:orders", sv={"N": "1"}, started_at={"S": "x"}
    )
    for ask in (stored.coordination.state, stored.registry.starts):
        with pytest.raises(WorldMismatch, match="is corrupt"):
            await ask(STREAM)


async def test_rows_of_a_newer_program_stop_an_older_one(stored: TableWorld) -> None:
    await stored.found(S1)
    await stored.overwrite("sv", {"N": "2"})
    with pytest.raises(WorldMismatch, match="newer replicator"):
        await stored.coordination.state(STREAM)
    await stored.found(S1)
    with pytest.raises(WorldMismatch, match="newer replicator"):
        await stored.coordination.state(STREAM)


async def test_a_coordination_table_that_is_missing_is_named(dynamo_place: Place) -> None:
    absent = TableWorld(dynamo_place, "nowhere")
    with pytest.raises(TableMissing, match="coordination table nowhere in us"):
        await absent.coordination.state(STREAM)
    with pytest.raises(TableMissing, match="coordination table nowhere in us"):
        await absent.found(S1)
    with pytest.raises(TableMissing, match="coordination table nowhere in us"):
        await absent.membership.members()


async def test_a_row_that_cannot_be_written_holds_back_its_descendants_and_no_other(stored: TableWorld) -> None:
    broken, child, grandchild = S1, S2, S3
    await stored.found(broken)
    await stored.overwrite("parents", {"S": "no set"})
    other, below = Shard(ShardId("shard-4")), Shard(ShardId("shard-5"), (ShardId("shard-4"),))
    sight = [Shard(broken, (ShardId("gone"),)), Shard(child, (broken,)), Shard(grandchild, (child,)), other, below]
    with pytest.raises(WorldMismatch) as raised:
        await stored.found(*sight)
    assert "replicator check" in raised.value.advice
    assert set(await stored.rows()) == {other.shard_id, below.shard_id}


async def test_parents_are_stored_before_their_children_and_a_failure_keeps_children_away(stored: TableWorld) -> None:
    """A child without its parent's row would be read at once, ahead of its parent."""
    sent: list[str] = []
    events = stored.client.meta.events
    events.register(
        "before-parameter-build.dynamodb.UpdateItem", lambda params, **_: sent.append(params["Key"]["sk"]["S"])
    )
    family = [Shard(S3, (S1, S2)), Shard(S2), Shard(S1)]
    await stored.found(*family)
    assert sorted(sent[:2]) == [f"shard|{S1}", f"shard|{S2}"]
    assert sent[2:] == [f"shard|{S3}"]
    await stored.client.delete_table(TableName=stored.table)
    with pytest.raises(TableMissing):
        await stored.found(*family)
    assert sorted(sent[3:]) == [f"shard|{S1}", f"shard|{S2}"]


@pytest.mark.parametrize(
    ("parent", "grandparent"),
    [("shard-1", "shard-0"), ("shard-9", "shard-8"), ("shard-1", "shard-9"), ("shard-9", "shard-1")],
)
async def test_a_child_is_not_shown_without_a_parent_that_was_stored_while_pages_were_read(
    stored: TableWorld, parent: str, grandparent: str
) -> None:
    """Rows come in pages, and rows of a new generation may be written between two of them."""
    await stored.found(ShardId("shard-4"), ShardId("shard-6"))
    events = stored.client.meta.events
    family = [Shard(ShardId(child), (ShardId(parent),)) for child in ("shard-3", "shard-5", "shard-7")] + [
        Shard(ShardId(parent), (ShardId(grandparent),)),
        Shard(ShardId(grandparent)),
    ]
    queries: list[str] = []

    async def write_between_pages(**_: object) -> None:
        queries.append("answered")
        if len(queries) == 1:
            await stored.found(*family)

    events.register("before-parameter-build.dynamodb.Query", lambda params, **_: params.update(Limit=1))
    events.register("after-call.dynamodb.Query", cast("Callable[..., None]", write_between_pages))
    rows = await stored.rows()
    assert len(queries) > 2
    assert rows.keys() >= {ShardId("shard-4"), ShardId("shard-6"), ShardId("shard-3")}
    assert all(above in rows for row in rows.values() for above in row.shard.parents)

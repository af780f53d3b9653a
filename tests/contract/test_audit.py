"""The audit: a deed is noted before it is done, what came of it after, and the newest are kept."""

from __future__ import annotations

import pytest

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.coordination.audit import AuditRows
from replicator.domain.audit import Result
from replicator.domain.errors import ReplicatorError, Unreachable
from replicator.operations.audit import audited, list_deeds
from replicator.operations.errors import RequestRefused
from replicator.operations.group import Group
from tests.contract.coordination_worlds import TableWorld, table_world
from tests.contract.operation_worlds import group_of

pytestmark = pytest.mark.servers
DEED = {"who": "alice", "what": "pause", "command": "replicator pause orders", "origin": "127.0.0.1"}


@pytest.fixture
async def stored(dynamo_place: Place) -> TableWorld:
    return await table_world(dynamo_place)


@pytest.fixture
async def group(stored: TableWorld, dynamo_place: Place) -> Group:
    return group_of(stored, dynamo_place)[0]


async def results(group: Group) -> list[tuple[Result, str]]:
    return [(each.result, each.reason) for each in await list_deeds(group)]


async def test_a_deed_is_noted_before_it_is_done_and_settled_after(group: Group) -> None:
    async with audited(group, **DEED):
        assert await results(group) == [(Result.BEGUN, "")]
    (deed,) = await list_deeds(group)
    assert (deed.who, deed.command, deed.origin, deed.result) == ("alice", DEED["command"], "127.0.0.1", Result.DONE)
    assert deed.at is not None


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (RequestRefused("There is no such thing.", advice=""), (Result.REFUSED, "There is no such thing.")),
        (Unreachable("It is away.", advice=""), (Result.FAILED, "It is away.")),
        (KeyError("planted"), (Result.FAILED, "KeyError")),
    ],
)
async def test_what_was_not_done_says_why_and_shows_no_value(
    group: Group, error: Exception, result: tuple[Result, str]
) -> None:
    with pytest.raises(type(error)):
        async with audited(group, **DEED):
            raise error
    assert await results(group) == [result]


async def test_what_cannot_be_noted_is_not_done(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group.table, "_table", "no-such-table")
    done = []
    with pytest.raises(ReplicatorError):
        async with audited(group, **DEED):
            done.append(True)
    assert not done


async def test_a_deed_whose_end_cannot_be_noted_stands_as_begun(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    async with audited(group, **DEED):
        right = group.table._table
        monkeypatch.setattr(group.table, "_table", "no-such-table")
    monkeypatch.setattr(group.table, "_table", right)
    assert await results(group) == [(Result.BEGUN, "")]


async def test_the_newest_are_kept(stored: TableWorld, group: Group) -> None:
    for number in range(4):
        await stored.put("test|audit", f"{number:013d}-x", **row(f"deed {number}"))
    await AuditRows(group.table).trim(most=2)
    assert [each.what for each in await list_deeds(group)] == ["deed 3", "deed 2"]
    assert [each.what for each in await list_deeds(group, 1)] == ["deed 3"]


async def test_a_result_of_a_newer_program_is_one_that_began(stored: TableWorld, group: Group) -> None:
    await stored.put("test|audit", "0-x", **row("deed", result="undone"))
    assert await results(group) == [(Result.BEGUN, "")]


def row(what: str, result: str = "done") -> dict[str, dict[str, str]]:
    text = {"who": "a", "what": what, "command": "c", "origin": "o", "result": result, "reason": ""}
    return {name: {"S": each} for name, each in text.items()} | {"at": {"N": "5.000"}, "sv": {"N": "1"}}

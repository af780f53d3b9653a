"""The contract of a conflict log, in memory, in a table and in a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replicator.adapters.aws.clients import Place
from replicator.adapters.conflict_sinks import ConflictLogs, conflict_log
from replicator.adapters.dynamodb.conflict_log import DynamoConflictLog, shown
from replicator.adapters.files.conflict_log import FileConflictLog
from replicator.domain.conflict_document import document
from replicator.domain.conflicts import ConflictEntry, ConflictKind, LogConflict, Operation, Reason, Witness
from replicator.domain.errors import TableMissing, Unreachable
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName
from replicator.domain.image import Image
from replicator.domain.records import ItemKey
from replicator.domain.values import replace
from replicator.laboratory.memory import MemoryConflictLog
from replicator.ports.targets import ConflictLog
from replicator.settings import Settings
from tests.contract.worlds import create_table, fresh, place

WITNESS = Witness(RegionId("us"), ShardId("shard-1"), SequenceNumber("17"))


def entry(number: int = 1, *, loser: Image | None = None, detected_at: float = 1_790_000_000.25) -> ConflictEntry:
    conflict = LogConflict(
        key=ItemKey((("pk", "S", "k\u00fc"), ("sk", "N", "1"))),
        kind=ConflictKind.DELETE_PUT,
        winner_version=f"{number}!D",
        winner=None,
        loser=loser or Image(b'{"pk":{"S":"k\xc3\xbc"},"sk":{"N":"1"},"n":{"N":"1.50"},"b":{"B":"AAE="}}'),
        reason=Reason.VERSION,
        loser_version="1!P!x",
        winner_region="us",
        winner_micros=1_790_000_000_000_000,
        winner_op=Operation.DELETE,
    )
    return ConflictEntry(conflict, TableName("orders"), RuleName("orders"), "versioned", WITNESS, detected_at)


@dataclass
class Bench:
    """A log, and what it holds."""

    log: ConflictLog
    read: Callable[[], Any]

    async def found(self) -> list[dict[str, Any]]:
        rows = self.read()
        return list(await rows if asyncio.iscoroutine(rows) else rows)


async def table_bench(opened: Place, mask: frozenset[str] = frozenset()) -> Bench:
    name = fresh("conflicts")
    await create_table(opened.dynamodb, name, {"id": "S"})
    log = DynamoConflictLog(opened.dynamodb, table=name, region_id="us", ttl=timedelta(days=30), mask=mask)

    async def read() -> list[dict[str, Any]]:
        return [shown(row) for row in (await opened.dynamodb.scan(TableName=name))["Items"]]

    return Bench(log, read)


def file_bench(path: Path, mask: frozenset[str] = frozenset()) -> Bench:
    log = FileConflictLog(path, max_bytes=10_000_000, keep=2, mask=mask)
    return Bench(log, lambda: [json.loads(line) for line in path.read_text().splitlines()])


@pytest.fixture(params=["memory", "file", pytest.param("table", marks=pytest.mark.servers)])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "memory":
        memory = MemoryConflictLog()
        yield Bench(memory, lambda: [document(held) for held in memory.entries(RuleName("orders"))])
    elif request.param == "file":
        yield file_bench(tmp_path / "conflicts.jsonl")
    else:
        async with place(request.getfixturevalue("dynamodb_url")) as opened:
            yield await table_bench(opened)


def told(shown_entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shown_entry.items() if value is not None}


async def test_an_entry_is_kept_as_it_is(bench: Bench) -> None:
    await bench.log.write(entry())
    assert [told(found) for found in await bench.found()] == [told(document(entry()))]


async def test_an_entry_that_is_written_again_is_there_once_as_it_was_first(bench: Bench) -> None:
    again = replace(entry(), detected_at=1_800_000_000.0, witness=replace(WITNESS, region=RegionId("eu")))
    for one in (entry(), again, entry(2), entry()):
        await bench.log.write(one)
    found = await bench.found()
    assert sorted(one["winner_version"] for one in found) == ["1!D", "2!D"]
    assert {one["detected_at"] for one in found} == {"2026-09-21T14:13:20.250+00:00"}


async def test_an_entry_of_images_that_are_too_large_for_an_item_is_kept_with_a_mark(bench: Bench) -> None:
    loser = Image(b'{"pk":{"S":"k"},"note":{"S":"n"},"long":{"S":"%b"}}' % (b"x" * 450_000))
    await bench.log.write(entry(loser=loser))
    (found,) = await bench.found()
    assert (found["loser_truncated"], found["loser_bytes"]) == (True, len(loser.wire))
    assert found["loser"] == {"pk": {"S": "k"}, "note": {"S": "n"}}


# -- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.servers
async def test_a_table_holds_what_its_indexes_and_its_expiry_need(dynamo_place: Place) -> None:
    name = fresh("conflicts")
    await create_table(dynamo_place.dynamodb, name, {"id": "S"})
    log = DynamoConflictLog(dynamo_place.dynamodb, table=name, region_id="us", ttl=timedelta(days=1))
    await log.write(entry())
    (row,) = (await dynamo_place.dynamodb.scan(TableName=name))["Items"]
    assert row["rule"] == {"S": "orders"}
    assert row["item"] == {"S": entry().item}
    assert row["exp"] == {"N": str(1_790_000_000 + 86_400)}


@pytest.mark.servers
async def test_a_missing_conflict_table_is_named(dynamo_place: Place) -> None:
    log = DynamoConflictLog(dynamo_place.dynamodb, table="nowhere", region_id="us", ttl=timedelta(days=1))
    with pytest.raises(TableMissing, match="conflict table nowhere in us"):
        await log.write(entry())


# -- masks ---------------------------------------------------------------------------------------------------------


@pytest.mark.servers
async def test_a_masked_value_reaches_no_sink(dynamo_place: Place, tmp_path: Path) -> None:
    mask = frozenset({"n", "pk", "other"})
    for bench in (await table_bench(dynamo_place, mask), file_bench(tmp_path / "masked.jsonl", mask)):
        await bench.log.write(entry())
        (found,) = await bench.found()
        assert found["loser"] == {"pk": {"S": "k\u00fc"}, "sk": {"N": "1"}, "n": {"S": "***"}, "b": {"B": "AAE="}}
        assert found["loser_masked"] == ["n"]
        assert "1.50" not in json.dumps(found)


# -- the file ------------------------------------------------------------------------------------------------------


async def test_a_file_is_continued_by_the_next_process_without_doubles(tmp_path: Path) -> None:
    path = tmp_path / "conflicts.jsonl"
    for _ in range(2):
        bench = file_bench(path)
        for number in (1, 2):
            await bench.log.write(entry(number))
    assert [one["winner_version"] for one in await bench.found()] == ["1!D", "2!D"]


async def test_a_line_that_a_crash_cut_short_is_closed_and_its_entry_written_again(tmp_path: Path) -> None:
    path = tmp_path / "conflicts.jsonl"
    await file_bench(path).log.write(entry())
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    await file_bench(path).log.write(entry(2))
    first, broken, last = path.read_bytes().splitlines()
    assert (first + b"\n", broken) == (whole, whole[:40])
    assert json.loads(last)["id"] == entry(2).id


def files_in(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


async def test_a_file_that_has_grown_is_renamed_and_the_oldest_ends(tmp_path: Path) -> None:
    path = tmp_path / "conflicts.jsonl"
    log = FileConflictLog(path, max_bytes=2_000, keep=2)
    for number in range(12):
        await log.write(entry(number))
    files = files_in(tmp_path)
    assert [file.name for file in files] == ["conflicts.jsonl", "conflicts.jsonl.1", "conflicts.jsonl.2"]
    assert all(file.stat().st_size <= 2_000 for file in files)
    versions = [
        json.loads(line)["winner_version"] for file in reversed(files) for line in file.read_text().splitlines()
    ]
    assert versions == [f"{number}!D" for number in range(12)][-len(versions) :]


async def test_many_at_once_are_all_written(tmp_path: Path) -> None:
    bench = file_bench(tmp_path / "conflicts.jsonl")
    await asyncio.gather(*(bench.log.write(entry(number % 20)) for number in range(60)))
    assert len(await bench.found()) == 20


async def test_a_file_that_cannot_be_written_is_named_and_asked_again(tmp_path: Path) -> None:
    log = FileConflictLog(tmp_path / "missing" / "conflicts.jsonl", max_bytes=2_000, keep=2)
    with pytest.raises(Unreachable, match=r"conflict file .*conflicts.jsonl cannot be written"):
        await log.write(entry())
    (tmp_path / "missing").mkdir()
    await log.write(entry())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
async def test_a_full_disk_is_named() -> None:
    log = FileConflictLog(Path("/dev/full"), max_bytes=2_000, keep=2)
    with pytest.raises(Unreachable, match="conflict file /dev/full cannot be written: No space left on device"):
        await log.write(entry())


# -- what is configured --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [False, True], ids=["a table", "a table and a file"])
async def test_the_sinks_are_those_of_the_settings(file: bool, tmp_path: Path) -> None:
    conflicts: dict[str, Any] = {"mask": ["secret"], **({"file": str(tmp_path / "log")} if file else {})}
    settings = Settings.model_validate(
        {
            "group": "test",
            "regions": {"us": {"region": "us-east-1"}, "eu": {"region": "eu-west-1"}},
            "coordination": {"region": "us"},
            "rules": [{"name": "orders", "table": "orders", "source": "us", "replicas": ["eu"]}],
            "conflicts": conflicts,
        }
    )
    log = conflict_log(None, settings)  # type: ignore[arg-type]
    assert isinstance(log, ConflictLogs if file else DynamoConflictLog)


async def test_several_sinks_are_written_one_after_another(tmp_path: Path) -> None:
    benches = [file_bench(tmp_path / name) for name in ("one", "two")]
    await ConflictLogs([bench.log for bench in benches]).write(entry())
    assert [len(await bench.found()) for bench in benches] == [1, 1]

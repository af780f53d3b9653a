"""The laboratory's event source mapping, in virtual time: whom it calls when, with what, and what it gives up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import ShardId
from replicator.domain.shards.lineage import Shard
from replicator.laboratory.event_source import Event, EventSource, Fed, MappingOptions

Answer = Callable[[list[str]], Awaitable[Any]]
NOW = 1_700_000_000.0
S1, S2 = ShardId("s1"), ShardId("s2")


class Clock:
    """The loop's time, as that of the world."""

    def now(self) -> float:
        return NOW + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def fed(number: int, *, key: str = "a", age: float = 0.0, text: str = "") -> Fed:
    return Fed.of(str(number), NOW - age, key.encode(), {"number": str(number), "text": text})


class Shards:
    """Shards that hold what they are given: pages come when they are due."""

    arn = "arn:aws:dynamodb:us-east-1:0:table/orders/stream/x"

    def __init__(self, pages: Mapping[ShardId, Sequence[tuple[float, list[Fed]]]], *, parents: Any = ()) -> None:
        self._pages = pages
        self._parents = dict(parents)
        self.troubles = 0

    async def shards(self) -> list[Shard]:
        return [Shard(shard, parents=tuple(self._parents.get(shard, ()))) for shard in self._pages]

    async def iterator(self, shard: ShardId, behind: str | None) -> str:
        seen = [record.sequence for _, page in self._pages[shard] for record in page]
        return f"{shard}|{0 if behind is None else seen.index(behind) + 1}"

    async def read(self, iterator: str) -> tuple[list[Fed], str | None]:
        if self.troubles:
            self.troubles -= 1
            raise Unreachable("nothing answers")
        shard, _, start = iterator.partition("|")
        due = [(at, record) for at, page in self._pages[ShardId(shard)] for record in page]
        left = due[int(start) :]
        found = [record for at, record in left if at <= asyncio.get_running_loop().time()]
        following = None if len(found) == len(left) else f"{shard}|{int(start) + len(found)}"
        return found, following


class Function:
    """What is called: `calls` holds when, and with which numbers."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.calls: list[tuple[float, list[str]]] = []

    async def invoke(self, event: Event) -> Any:
        numbers = [record["number"] for record in event["Records"]]
        self.calls.append((asyncio.get_running_loop().time(), numbers))
        return await self._answer(numbers)

    @property
    def batches(self) -> list[list[str]]:
        return [numbers for _, numbers in self.calls]


async def well(numbers: list[str]) -> Any:
    del numbers
    return {"batchItemFailures": []}


async def mapped(
    pages: Mapping[ShardId, Sequence[tuple[float, list[Fed]]]],
    answer: Answer = well,
    *,
    until: int | None = None,
    parents: Any = (),
    **options: Any,
) -> tuple[Function, EventSource]:
    """A mapping that ran until so many records were through or given up: all of them."""
    function = Function(answer)
    source = EventSource(Shards(pages, parents=parents), function.invoke, Clock(), MappingOptions(**options))
    running = asyncio.create_task(source.run())
    wanted = sum(len(page) for each in pages.values() for _, page in each) if until is None else until
    async with asyncio.timeout(3600):
        while source.counts.records + len(source.counts.discarded) < wanted:
            assert not running.done()
            await asyncio.sleep(0.05)
    source.stop()
    await running
    return function, source


def numbers(*some: int) -> list[str]:
    return [str(number) for number in some]


async def test_a_batch_waits_for_its_window_and_no_longer_than_until_it_is_full() -> None:
    pages = [(0.0, [fed(1)]), (1.0, [fed(2)]), (9.0, [fed(3)]), (10.0, [fed(4), fed(5), fed(6), fed(7)])]
    function, _ = await mapped({S1: pages}, window_seconds=5.0, batch_size=3)
    assert function.batches == [numbers(1, 2), numbers(3, 4, 5), numbers(6, 7)]
    ends = [at for at, _ in function.calls]
    assert 5.0 <= ends[0] < 5.5
    assert 10.0 <= ends[1] < 10.5, "a full batch does not wait"


async def test_a_batch_ends_before_an_invocation_would_be_too_large() -> None:
    """A record that is too large by itself comes alone."""
    records = [fed(number, text="x" * size) for number, size in enumerate((400, 400, 400, 2000, 10))]
    function, source = await mapped({S1: [(0.0, records)]}, payload_bytes=1000, batch_size=100)
    assert function.batches == [numbers(0, 1), numbers(2), numbers(3), numbers(4)]
    assert sum(len(json.dumps({"Records": [record.event]})) > 1000 for record in records) == 1
    assert source.waiting == 0


@pytest.mark.parametrize("factor", [1, 2, 10])
async def test_a_key_is_in_one_lane_and_lanes_are_called_beside_each_other(factor: int) -> None:
    records = [fed(number, key=f"k{number % 50}") for number in range(100)]
    running, most, order = 0, 0, dict[str, list[int]]()

    async def slow(called: list[str]) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for number in map(int, called):
            order.setdefault(f"k{number % 50}", []).append(number)
        await asyncio.sleep(1)
        running -= 1
        return None

    await mapped({S1: [(0.0, records)]}, slow, factor=factor, batch_size=2)
    assert most == factor
    assert all(seen == sorted(seen) for seen in order.values())


async def test_what_is_reported_comes_again_from_the_lowest_number_on() -> None:
    failures = [["4", "2"], ["3"], []]

    async def answer(_: list[str]) -> Any:
        return {"batchItemFailures": [{"itemIdentifier": each} for each in failures.pop(0)]}

    function, source = await mapped({S1: [(0.0, [fed(number) for number in range(1, 6)])]}, answer)
    assert function.batches == [numbers(1, 2, 3, 4, 5), numbers(2, 3, 4, 5), numbers(3, 4, 5)]
    assert (source.counts.partial, source.counts.failed, source.counts.discarded) == (2, 0, [])


async def test_a_report_that_is_not_asked_for_is_no_report() -> None:
    async def answer(called: list[str]) -> Any:
        return {"batchItemFailures": [{"itemIdentifier": called[0]}]}

    function, _ = await mapped({S1: [(0.0, [fed(1)])]}, answer, reports_failures=False)
    assert function.batches == [numbers(1)]


async def test_an_identifier_of_no_record_lets_the_whole_batch_come_again() -> None:
    failures = [[""], ["7", "2"], []]

    async def answer(_: list[str]) -> Any:
        return {"batchItemFailures": [{"itemIdentifier": each} for each in failures.pop(0)]}

    function, _ = await mapped({S1: [(0.0, [fed(1), fed(2)])]}, answer)
    assert function.batches == [numbers(1, 2)] * 3


async def dies_of_three(called: list[str]) -> Any:
    if "3" in called:
        raise TimeoutError
    return None


async def test_a_batch_that_ends_badly_is_bisected_until_the_record_is_alone_and_is_given_up() -> None:
    records = [fed(number) for number in range(1, 9)]
    function, source = await mapped({S1: [(0.0, records)]}, dies_of_three, bisects=True, most_retries=2)
    assert function.batches[:4] == [numbers(*range(1, 9)), numbers(1, 2, 3, 4), numbers(1, 2), numbers(3, 4)]
    assert function.batches.count(numbers(3)) == 3, "halves are no retries; two follow the first"
    assert source.counts.discarded == ["3"]
    assert source.counts.records == 7
    (said,) = source.counts.destination
    assert said["requestContext"] == {"condition": "RetryAttemptsExhausted"}
    assert said["DDBStreamBatchInfo"] == {
        "shardId": S1,
        "startSequenceNumber": "3",
        "endSequenceNumber": "3",
        "approximateArrivalOfFirstRecord": "2023-11-14T22:13:20.000Z",
        "approximateArrivalOfLastRecord": "2023-11-14T22:13:20.000Z",
        "batchSize": 1,
        "streamArn": Shards.arn,
    }


async def test_without_bisecting_a_batch_is_tried_and_given_up_as_a_whole_and_the_next_one_goes_on() -> None:
    records = [fed(number) for number in range(1, 9)]
    function, source = await mapped({S1: [(0.0, records)]}, dies_of_three, most_retries=1, batch_size=4)
    assert function.batches == [numbers(1, 2, 3, 4)] * 2 + [numbers(5, 6, 7, 8)]
    assert source.counts.discarded == numbers(1, 2, 3, 4)
    assert [said["DDBStreamBatchInfo"]["batchSize"] for said in source.counts.destination] == [4]


async def test_without_a_limit_nothing_is_given_up() -> None:
    times = 0

    async def answer(_: list[str]) -> Any:
        nonlocal times
        times += 1
        if times < 200:
            raise TimeoutError

    function, source = await mapped({S1: [(0.0, [fed(1)])]}, answer)
    assert (len(function.calls), source.counts.discarded) == (200, [])
    gaps = [late - early for (early, _), (late, _) in zip(function.calls, function.calls[1:], strict=False)]
    assert max(gaps) <= 5.1, "the pause between tries has a bound"


async def test_records_that_grow_too_old_go_to_the_failure_destination_and_younger_ones_go_on() -> None:
    async def answer(called: list[str]) -> Any:
        if "2" in called:
            raise TimeoutError

    records = [fed(1, age=100.0), fed(2, age=10.0), fed(3, age=-1000.0)]
    function, source = await mapped({S1: [(0.0, records)]}, answer, oldest_seconds=60.0)
    assert function.batches[0] == numbers(2, 3)
    assert source.counts.discarded == numbers(1, 2)
    assert {said["requestContext"]["condition"] for said in source.counts.destination} == {"RecordAgeExceeded"}
    assert 50.0 <= function.calls[-1][0] < 60.0
    assert function.batches[-1] == numbers(3)


async def test_a_shard_waits_for_its_parent_to_be_through() -> None:
    async def slow(_: list[str]) -> Any:
        await asyncio.sleep(20)

    pages = {S2: [(0.0, [fed(2)])], S1: [(0.0, [fed(1)])]}
    function, _ = await mapped(pages, slow, parents={S2: [S1]})
    assert function.batches == [numbers(1), numbers(2)]
    assert function.calls[1][0] >= 20


async def test_a_stream_that_does_not_answer_is_read_on_from_where_it_was() -> None:
    function = Function(well)
    shards = Shards({S1: [(0.0, [fed(1)]), (3.0, [fed(2)])]})
    source = EventSource(shards, function.invoke, Clock(), MappingOptions())
    running = asyncio.create_task(source.run())
    await asyncio.sleep(2)
    shards.troubles = 9
    await asyncio.sleep(10)
    source.stop()
    await running
    assert function.batches == [numbers(1), numbers(2)]


@pytest.mark.parametrize(
    "wrong", [{"factor": 0}, {"factor": 11}, {"batch_size": 10_001}, {"window_seconds": 301}, {"payload_bytes": 2**23}]
)
def test_choices_that_no_mapping_has_are_refused(wrong: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match="No mapping has this"):
        MappingOptions(**wrong)

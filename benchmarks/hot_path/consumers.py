"""Consumers that a team would write without this program: the same stream, the same conditional writes, the same cache.

    python -m benchmarks.hot_path.consumers aiobotocore --endpoint http://127.0.0.1:1234 --cache redis://127.0.0.1:1235

Each reads to the end of the shard, prints a JSON line with its own processor time (user and system, in microseconds a
record, from the first record on), and ends. They have what a correct one needs (a version in every item, a condition, a
tombstone check for new items, one cache entry dropped a record, a checkpoint a page) and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
import redis.asyncio as redis_asyncio
import uvloop

FIRST_ITERATOR = "us-east-1:0"
_CONCURRENCY = 64


def cpu_seconds() -> float:
    """Processor time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def write_of(record: Any) -> tuple[str, dict[str, Any]]:
    """The call that a record becomes, and its parameters, as the resource-free client takes them."""
    change = record["dynamodb"]
    version = f"0-{change['SequenceNumber']:0>40}"
    condition = {
        "ConditionExpression": "attribute_not_exists(#v) OR #v < :v",
        "ExpressionAttributeNames": {"#v": "_version"},
        "ExpressionAttributeValues": {":v": {"S": version}},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    if record["eventName"] == "REMOVE":
        return "delete_item", {"TableName": "orders", "Key": change["Keys"], **condition}
    put = {"TableName": "orders", "Item": {**change["NewImage"], "_version": {"S": version}}, **condition}
    if record["eventName"] == "MODIFY":
        return "put_item", put
    check = {
        "TableName": "tombstones",
        "Key": change["Keys"],
        "ConditionExpression": "attribute_not_exists(pk)",
    }
    return "transact_write_items", {"TransactItems": [{"ConditionCheck": check}, {"Put": put}]}


def checkpoint(sequence: str) -> dict[str, Any]:
    """Parameters of the call that stores how far it is."""
    return {"TableName": "checkpoints", "Key": {"pk": {"S": "orders"}}, **_expressed(sequence)}


def _expressed(sequence: str) -> dict[str, Any]:
    return {"UpdateExpression": "SET s = :s", "ExpressionAttributeValues": {":s": {"S": sequence}}}


async def with_aiobotocore(options: argparse.Namespace) -> tuple[int, float]:
    """A task a record, behind a semaphore."""
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession

    session, config = AioSession(), AioConfig(max_pool_connections=_CONCURRENCY)
    cache = redis_asyncio.Redis.from_url(options.cache)
    slots = asyncio.Semaphore(_CONCURRENCY)
    where = {"region_name": "us-east-1", "endpoint_url": options.endpoint, "config": config}
    async with (
        session.create_client("dynamodb", **where) as table,
        session.create_client("dynamodbstreams", **where) as stream,
    ):

        async def apply(record: Any) -> None:
            async with slots:
                operation, parameters = write_of(record)
                await getattr(table, operation)(**parameters)
                await cache.unlink(f"order:{record['dynamodb']['Keys']['pk']['S']}")

        done, began, iterator = 0, 0.0, FIRST_ITERATOR
        while done < options.records:
            page = await stream.get_records(ShardIterator=iterator, Limit=1000)
            iterator = page["NextShardIterator"]
            if not page["Records"]:
                await asyncio.sleep(0.05)
                continue
            began = began or cpu_seconds()
            async with asyncio.TaskGroup() as group:
                for record in page["Records"]:
                    group.create_task(apply(record))
            await table.update_item(**checkpoint(page["Records"][-1]["dynamodb"]["SequenceNumber"]))
            done += len(page["Records"])
        spent = cpu_seconds() - began
    await cache.aclose()
    return done, spent


def with_boto3(options: argparse.Namespace) -> tuple[int, float]:
    """A pool of threads."""
    import botocore.session
    from botocore.config import Config

    session, config = botocore.session.Session(), Config(max_pool_connections=_CONCURRENCY)
    where = {"region_name": "us-east-1", "endpoint_url": options.endpoint, "config": config}
    table: Any = session.create_client("dynamodb", **where)  # its methods are made as it is
    stream: Any = session.create_client("dynamodbstreams", **where)
    cache = redis.Redis.from_url(options.cache)

    def apply(record: Any) -> None:
        operation, parameters = write_of(record)
        getattr(table, operation)(**parameters)
        cache.unlink(f"order:{record['dynamodb']['Keys']['pk']['S']}")

    done, began, iterator = 0, 0.0, FIRST_ITERATOR
    with ThreadPoolExecutor(32) as pool:
        while done < options.records:
            page = stream.get_records(ShardIterator=iterator, Limit=1000)
            iterator = page["NextShardIterator"]
            if not page["Records"]:
                time.sleep(0.05)
                continue
            began = began or cpu_seconds()
            list(pool.map(apply, page["Records"]))
            table.update_item(**checkpoint(page["Records"][-1]["dynamodb"]["SequenceNumber"]))
            done += len(page["Records"])
    return done, cpu_seconds() - began


def measured(options: argparse.Namespace) -> Iterator[tuple[int, float]]:
    """Run the consumer that is named."""
    if options.consumer == "aiobotocore":
        yield uvloop.run(with_aiobotocore(options))
    else:
        yield with_boto3(options)


def main() -> int:
    """Parse, consume, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("consumer", choices=("aiobotocore", "boto3"))
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--records", type=int, required=True)
    for done, spent in measured(parser.parse_args()):
        print(json.dumps({"records": done, "microseconds": round(spent / done * 1e6, 1)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

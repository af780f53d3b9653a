"""A server that answers at once: one shard of a stream in each of two regions, and writes that always succeed.

    python -m benchmarks.hot_path.answering --upstream http://127.0.0.1:4566 --records 20000 --mix modify

Users' records are shown after `POST /release`. Writes of items are then counted and answered; everything else, and all
of it before the release, goes to the server behind this one. For a mesh it keeps the items of both regions, and what
is written to them shows in their streams, as it does on DynamoDB. `GET /counts` says how far it is. Prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import zlib
from collections import Counter
from pathlib import Path

import aiohttp
import msgspec
import uvloop

from benchmarks.hot_path.mixes import MIXES
from benchmarks.hot_path.records import FIRST_SEQUENCE, Change, changes, record

HOME = "us-east-1"
TABLE = "orders"
_OTHER = "eu-west-1"
_SHARD = "shardId-00000001700000000000-00000001"
_HOT = frozenset({"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems", "GetItem"})
_LIMIT = 1000
_ABSENT = "attribute_not_exists(#pk)"
_REFUSED = b'{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","message":"refused"%b}'


class _Asked(msgspec.Struct):
    TableName: str
    Item: msgspec.Raw = msgspec.Raw()
    Key: msgspec.Raw = msgspec.Raw()
    ConditionExpression: str = ""
    ExpressionAttributeNames: dict[str, str] = {}
    ExpressionAttributeValues: dict[str, msgspec.Raw] = {}
    ReturnValues: str = ""


_ASKED = msgspec.json.Decoder(_Asked)
_KEYED = msgspec.json.Decoder(dict[str, dict[str, object]])


class Region:
    """The stream and the items of one region."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stream: list[bytes] = []
        self.items: dict[str, bytes] = {}
        self.read = 0

    def write(self, change: Change) -> None:
        """A write, which its stream shows."""
        self.stream.append(record(len(self.stream), self.name, change))
        if change.new is None:
            self.items.pop(change.key, None)
        else:
            self.items[change.key] = change.new


class Answers:
    """What is asked, and what is said to it."""

    def __init__(self, made: list[Change], upstream: str, *, mesh: bool) -> None:
        self.regions = {name: Region(name) for name in (HOME, _OTHER)}
        for change in made:
            self.regions[HOME].write(change)
            if mesh and change.old is not None:
                self.regions[_OTHER].items[change.key] = change.old
        self._mesh = mesh
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None
        self._is_released = False
        self.counts: Counter[str] = Counter()

    def at_once(self, head: dict[bytes, bytes], path: str, body: bytes) -> tuple[int, bytes] | None:
        """Status and body of the answer to what needs no other server."""
        if path == "/release":
            self._is_released = True
            return 200, b"{}"
        if path == "/counts":
            return 200, self._counted()
        service, _, operation = head.get(b"x-amz-target", b"").decode().partition(".")
        self.counts[operation] += 1
        answer = self._streams(operation, body) if service.startswith("DynamoDBStreams") else None
        if answer is not None:
            return 200, answer
        return self._write(head, operation, body) if self._is_released and operation in _HOT else None

    def _write(self, head: dict[bytes, bytes], operation: str, body: bytes) -> tuple[int, bytes] | None:
        if b'"TableName":"replicator-' in body and operation != "TransactWriteItems":
            is_side = b'"TableName":"replicator-side-' in body
            return (200, b"{}") if is_side or operation == "UpdateItem" else None
        if not self._mesh:
            return 200, b"{}"
        region = self.regions[_OTHER if b"/eu-west-1/" in head[b"authorization"] else HOME]
        return self._item(region, operation, _ASKED.decode(body))

    def _counted(self) -> bytes:
        regions = self.regions.values()
        read, of = sum(region.read for region in regions), sum(len(region.stream) for region in regions)
        if not self._mesh:
            read, of = self.regions[HOME].read, len(self.regions[HOME].stream)
        return json.dumps({"read": read, "of": of, "calls": self.counts}).encode()

    def _item(self, region: Region, operation: str, asked: _Asked) -> tuple[int, bytes]:
        """One call about an item of a mesh; its condition is judged by whether there is an item."""
        subject = _KEYED.decode(bytes(asked.Item) or bytes(asked.Key))
        key = str(subject["pk"]["S"])
        old = region.items.get(key)
        if operation == "GetItem":
            return 200, b"{}" if old is None else b'{"Item":%b}' % old
        if (old is None) != (asked.ConditionExpression == _ABSENT):
            return 400, _REFUSED % (b"" if old is None else b',"Item":%b' % old)
        if operation == "UpdateItem":
            assert old is not None, "what is stamped is there"
            stamp = {asked.ExpressionAttributeNames["#rep"]: asked.ExpressionAttributeValues[":stamp"]}
            new = msgspec.json.encode(msgspec.json.decode(old, type=dict[str, msgspec.Raw]) | stamp)
        else:
            new = bytes(asked.Item)
        region.write(Change(key, old, new if operation != "DeleteItem" else None))
        is_told = asked.ReturnValues == "ALL_OLD" and old is not None
        return 200, b'{"Attributes":%b}' % old if is_told and old else b"{}"

    def _streams(self, operation: str, body: bytes) -> bytes | None:
        if operation == "GetRecords":
            asked = json.loads(body)
            name, _, place = asked["ShardIterator"].partition(":")
            region, start = self.regions[name], int(place)
            page = region.stream[start : start + asked.get("Limit", _LIMIT)] if self._is_released else []
            region.read = max(region.read, start + len(page))
            return b'{"NextShardIterator":"%b:%d","Records":[%b]}' % (name.encode(), start + len(page), b",".join(page))
        if operation == "GetShardIterator":
            asked = json.loads(body)
            place = int(asked.get("SequenceNumber", FIRST_SEQUENCE)) - FIRST_SEQUENCE
            place += asked["ShardIteratorType"] == "AFTER_SEQUENCE_NUMBER"
            return b'{"ShardIterator":"%b:%d"}' % (self._of(asked).encode(), place)
        if operation == "DescribeStream":
            asked = json.loads(body)
            shard = {"ShardId": _SHARD, "SequenceNumberRange": {"StartingSequenceNumber": str(FIRST_SEQUENCE)}}
            described = {"StreamArn": asked["StreamArn"], "StreamStatus": "ENABLED", "Shards": [shard]}
            return json.dumps({"StreamDescription": described}, separators=(",", ":")).encode()
        return None

    @staticmethod
    def _of(asked: dict[str, str]) -> str:
        return _OTHER if f":{_OTHER}:" in asked["StreamArn"] else HOME

    async def passed_on(self, head: dict[bytes, bytes], body: bytes) -> tuple[int, bytes]:
        """What the server behind this one answers."""
        if self._session is None:
            self._session = aiohttp.ClientSession()
        kept = {
            name.decode(): value.decode() for name, value in head.items() if name not in {b"content-length", b"host"}
        }
        async with self._session.post(self._upstream, data=body, headers=kept) as answer:
            return answer.status, await answer.read()

    async def close(self) -> None:
        """Leave the server behind this one."""
        if self._session is not None:
            await self._session.close()


class Connection(asyncio.Protocol):
    """One connection of a consumer."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._buffer[:end].split(b"\r\n")
            head = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
            length = int(head.get(b"content-length", b"0"))
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            answer = self._answers.at_once(head, first.split()[1].decode(), body)
            if answer is None:
                task = asyncio.get_running_loop().create_task(self._pass_on(head, body))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._say(*answer)

    async def _pass_on(self, head: dict[bytes, bytes], body: bytes) -> None:
        self._say(*await self._answers.passed_on(head, body))

    def _say(self, status: int, body: bytes) -> None:
        assert self._transport is not None
        self._transport.write(
            b"HTTP/1.1 %d OK\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: 0\r\n"
            b"x-amz-crc32: %d\r\nContent-Length: %d\r\n\r\n%b" % (status, zlib.crc32(body), len(body), body)
        )


async def serve(options: argparse.Namespace) -> None:
    """Serve until the end of standard input."""
    stamped = options.mode == "active-active"
    made = changes(options.records, MIXES[options.mix], options.seed, stamped=stamped)
    answers = Answers(made, options.upstream, mesh=options.mode != "ordered")
    tls = None
    if options.certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(answers), "127.0.0.1", 0, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    await answers.close()


def main() -> int:
    """Parse and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--mix", choices=MIXES, default="modify")
    parser.add_argument("--mode", choices=("ordered", "versioned", "active-active"), default="ordered")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--certificate", type=Path, default=None, help="a PEM file with key and certificate: TLS")
    uvloop.run(serve(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A server that answers at once: one shard of a stream, and writes that always succeed.

    python -m benchmarks.hot_path.answering --upstream http://127.0.0.1:4566 --records 20000 --mix modify

Records are shown after `POST /release`. Writes of items are counted and answered with `{}`; everything else, and all of
it before the release, goes to the server behind this one. `GET /counts` says how far it is. Prints its port.
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
import uvloop

from benchmarks.hot_path.mixes import MIXES
from benchmarks.hot_path.records import Written, records

_SHARD = "shardId-00000001700000000000-00000001"
_HOT = frozenset({"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems", "GetItem"})


class Answers:
    """What is asked, and what is said to it."""

    def __init__(self, made: list[Written], upstream: str) -> None:
        self._records = [record.wire for record in made]
        self._places = {str(record.sequence): number for number, record in enumerate(made)}
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None
        self._is_released = False
        self.counts: Counter[str] = Counter()
        self.read = 0

    def at_once(self, target: str, path: str, body: bytes) -> bytes | None:
        """The answer to what needs no other server."""
        if path == "/release":
            self._is_released = True
            return b"{}"
        if path == "/counts":
            return json.dumps({"read": self.read, "of": len(self._records), "calls": self.counts}).encode()
        service, _, operation = target.partition(".")
        self.counts[operation] += 1
        if service.startswith("DynamoDBStreams"):
            return self._stream(operation, body)
        is_own = b'"TableName":"replicator-' in body and operation != "TransactWriteItems"
        if self._is_released and operation in _HOT and not (is_own and operation != "UpdateItem"):
            return b"{}"
        return None

    def _stream(self, operation: str, body: bytes) -> bytes | None:
        if operation == "GetRecords":
            asked = json.loads(body)
            start = int(asked["ShardIterator"])
            page = self._records[start : start + asked.get("Limit", 1000)] if self._is_released else []
            self.read = max(self.read, start + len(page))
            return b'{"NextShardIterator":"%d","Records":[%b]}' % (start + len(page), b",".join(page))
        if operation == "GetShardIterator":
            asked = json.loads(body)
            place = self._places.get(asked.get("SequenceNumber", ""), 0)
            behind = asked["ShardIteratorType"] == "AFTER_SEQUENCE_NUMBER"
            return b'{"ShardIterator":"%d"}' % (place + behind)
        if operation == "DescribeStream":
            arn = json.loads(body)["StreamArn"]
            shard = {"ShardId": _SHARD, "SequenceNumberRange": {"StartingSequenceNumber": next(iter(self._places))}}
            described = {"StreamArn": arn, "StreamStatus": "ENABLED", "Shards": [shard]}
            return json.dumps({"StreamDescription": described}, separators=(",", ":")).encode()
        return None

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
            answer = self._answers.at_once(head.get(b"x-amz-target", b"").decode(), first.split()[1].decode(), body)
            if answer is None:
                task = asyncio.get_running_loop().create_task(self._pass_on(head, body))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._say(200, answer)

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
    answers = Answers(records(options.records, MIXES[options.mix], options.seed), options.upstream)
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
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--certificate", type=Path, default=None, help="a PEM file with key and certificate: TLS")
    uvloop.run(serve(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

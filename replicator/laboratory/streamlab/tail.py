"""Following one single-shard stream of MiniStack, from its first record to its end.

Invariant: every record is delivered once and in order; a failed call is repeated from the same place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from replicator.laboratory.streamlab.changes import Change, Source, changes_of
from replicator.laboratory.streamlab.options import Options
from replicator.laboratory.streamlab.refusals import ServiceError
from replicator.laboratory.streamlab.tables import Scope
from replicator.laboratory.streamlab.upstream import Upstream

_STREAMS: Final = "DynamoDBStreams_20120810"
_SHORTEST_SECONDS: Final = 0.004
"""Between two looks; what is written meanwhile comes together."""

_RETRY_SECONDS: Final = 0.2


@dataclass(slots=True, eq=False)
class Tail:
    """A follower. `deliver` gets each page's changes, `ended` is called after the last one."""

    upstream: Upstream
    scope: Scope
    arn: str
    partition_key: str
    options: Options
    deliver: Callable[[list[Change]], None]
    ended: Callable[[], None]
    over: bool = False
    _last: str | None = None
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def wake(self) -> None:
        """Look again soon: something was written."""
        self._woken.set()

    async def settled(self) -> None:
        """Wait until everything that is in MiniStack's stream by now was delivered."""
        if self.over:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self.wake()
        await waiting

    async def run(self) -> None:
        """Follow to the stream's end."""
        iterator: str | None = None
        pause = _SHORTEST_SECONDS
        due: list[asyncio.Future[None]] = []
        try:
            while True:
                due += self._waiting
                self._waiting = []
                try:
                    iterator = iterator or await self._iterator()
                    page = await self._read(iterator)
                except ServiceError as error:
                    if error.code == "ResourceNotFoundException":
                        break
                    if error.code == "ExpiredIteratorException":
                        iterator = None
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                self.deliver(page.changes)
                self._last = page.last or self._last
                if page.following is None:
                    break
                iterator = page.following
                if page.changes:
                    pause = _SHORTEST_SECONDS
                    continue
                due = _answer(due)
                pause = await self._idle(pause)
        finally:
            self.over = True
            _answer(due + self._waiting)
        self.ended()

    async def _idle(self, pause: float) -> float:
        """Wait for a wake-up or the end of the pause; returns the next pause."""
        await asyncio.sleep(_SHORTEST_SECONDS)
        try:
            async with asyncio.timeout(pause):
                await self._woken.wait()
        except TimeoutError:
            return min(pause * 2, self.options.poll_seconds)
        self._woken.clear()
        return _SHORTEST_SECONDS

    async def _iterator(self) -> str:
        described = await self._call("DescribeStream", {"StreamArn": self.arn})
        (shard,) = described["StreamDescription"]["Shards"]
        asked = {"StreamArn": self.arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        if self._last is not None:
            asked |= {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": self._last}
        return str((await self._call("GetShardIterator", asked))["ShardIterator"])

    async def _read(self, iterator: str) -> Source:
        body = await self.upstream.call(self.scope, "GetRecords", {"ShardIterator": iterator, "Limit": 1000}, _STREAMS)
        return changes_of(body, self.partition_key)

    async def _call(self, operation: str, body: dict[str, Any]) -> Any:
        return msgspec.json.decode(await self.upstream.call(self.scope, operation, body, _STREAMS))


def _answer(waiting: list[asyncio.Future[None]]) -> list[asyncio.Future[None]]:
    for one in waiting:
        if not one.done():
            one.set_result(None)
    return []

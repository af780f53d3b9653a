"""The laboratory's commands: what happens to streams, to their listings, and to their readers.

Invariant: every command is a method here with JSON-able arguments, so a test, a script and `POST /_lab/<command>` do
the same. A command without a table means every known stream; dice come from the seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from replicator.laboratory.streamlab.background import Background
from replicator.laboratory.streamlab.changes import canonical
from replicator.laboratory.streamlab.counters import Counters
from replicator.laboratory.streamlab.faults import Fault, Faults
from replicator.laboratory.streamlab.gateway import DEFAULT_ACCOUNT, Gateway
from replicator.laboratory.streamlab.generator import Generator, Order
from replicator.laboratory.streamlab.kinesis import Kinesis
from replicator.laboratory.streamlab.listing import Lie, Listing
from replicator.laboratory.streamlab.options import Options
from replicator.laboratory.streamlab.refusals import Refused
from replicator.laboratory.streamlab.report import stats, summary
from replicator.laboratory.streamlab.service import Service
from replicator.laboratory.streamlab.shard import LabShard
from replicator.laboratory.streamlab.stream import Delays, LabStream
from replicator.laboratory.streamlab.tables import LabClock, LabTable, Scope, Tables


@dataclass(slots=True, eq=False, repr=False)
class Laboratory:
    """A stream laboratory in front of a MiniStack. `url` is the endpoint for every AWS service of every region."""

    url: str
    seed: int
    options: Options
    clock: LabClock
    counters: Counters
    tables: Tables
    listing: Listing
    faults: Faults
    gateway: Gateway
    service: Service
    kinesis: Kinesis
    random: Random
    background: Background
    generators: dict[LabTable, Generator] = field(default_factory=dict)

    # -- lineage ---------------------------------------------------------------------------------------------------

    def split(self, table: str | None = None, region: str | None = None, shard: str | None = None) -> list[str]:
        """Split a shard (or one by the dice) of each stream; returns the children's ids."""
        return _ids(
            child
            for stream in self._meant(table, region, shard)
            for child in stream.split(self._open(stream, shard), self.clock.now(), self._delays)
        )

    def merge(
        self, table: str | None = None, region: str | None = None, shards: Sequence[str] | None = None
    ) -> list[str]:
        """Merge two neighbours (or two by the dice) of each stream; returns the children's ids."""
        merged = []
        for stream in self._meant(table, region, shards[0] if shards else None):
            left, right = self._neighbours(stream, shards)
            merged += stream.merge(left, right, self.clock.now(), self._delays)
        return _ids(merged)

    def roll(self, table: str | None = None, region: str | None = None, shard: str | None = None) -> list[str]:
        """Close a shard (or every open one) and go on in one child; returns the children's ids."""
        rolled = []
        for stream in self._meant(table, region, shard):
            victims = list(stream.open_shards) if shard is None else [stream.shard(shard)]
            for victim in victims:
                rolled += stream.roll(victim, self.clock.now(), self._delays)
        return _ids(rolled)

    def reshard(self, shards: int, table: str | None = None, region: str | None = None) -> int:
        """Split or merge until so many shards are open; returns how many that are, over all streams meant."""
        for stream in self.tables.chosen(table, region):
            while len(stream.open_shards) < shards:
                widest = max(stream.open_shards, key=lambda shard: shard.high - shard.low)
                stream.split(widest, self.clock.now(), self._delays)
            while len(stream.open_shards) > max(1, shards):
                stream.merge(*self._neighbours(stream, None), self.clock.now(), self._delays)
        return sum(len(stream.open_shards) for stream in self.tables.chosen(table, region))

    @property
    def _delays(self) -> Delays:
        return Delays(self.options.child_listed_after, self.options.parent_open_for)

    def _open(self, stream: LabStream, shard: str | None) -> LabShard:
        return self.random.choice(stream.open_shards) if shard is None else stream.shard(shard)

    def _neighbours(self, stream: LabStream, shards: Sequence[str] | None) -> tuple[LabShard, LabShard]:
        if shards is not None:
            left, right = (stream.shard(name) for name in shards)
            return left, right
        if len(stream.open_shards) < 2:  # noqa: PLR2004 - it takes two
            raise Refused(f"Stream {stream.arn} has a single open shard; nothing can be merged.")
        at = self.random.randrange(len(stream.open_shards) - 1)
        return stream.open_shards[at], stream.open_shards[at + 1]

    # -- listings --------------------------------------------------------------------------------------------------

    def hide(self, shard: str, seconds: float | None = None, times: int | None = None) -> None:
        """Leave a shard out of listings, for a time or for that many listings."""
        self._lie(shard, seconds, times, hidden=True, parents=None)

    def contradict(
        self, shard: str, parents: Sequence[str] = (), seconds: float | None = None, times: int | None = None
    ) -> None:
        """List a shard with other parents (or none), for a time or for that many listings."""
        self._lie(shard, seconds, times, hidden=False, parents=tuple(parents))

    def honest(self) -> None:
        """End every lie about shards."""
        self.listing.lies.clear()
        self.listing.pages_to_lose = 0

    def lose_pages(self, pages: int = 1) -> None:
        """Answer the next pages of DescribeStream without their shards."""
        self.listing.pages_to_lose += pages

    def _lie(
        self, shard: str, seconds: float | None, times: int | None, *, hidden: bool, parents: tuple[str, ...] | None
    ) -> None:
        until = None if seconds is None else self.clock.now() + seconds
        stream = self._stream_of(shard)
        self.listing.lies[stream.arn, shard] = Lie(shard, hidden, parents, until, times)

    def _meant(self, table: str | None, region: str | None, shard: str | None) -> list[LabStream]:
        """The streams that a command means: that of a shard, present or not, else the present ones."""
        return [self._stream_of(shard)] if shard else self.tables.chosen(table, region)

    def _stream_of(self, shard: str) -> LabStream:
        found = [stream for stream in self.tables.streams() if shard in stream.shards]
        if len(found) != 1:
            raise Refused(f"{len(found)} streams have a shard {shard}.")
        return found[0]

    # -- retention -------------------------------------------------------------------------------------------------

    def trim(
        self,
        table: str | None = None,
        region: str | None = None,
        shard: str | None = None,
        older_than: float = 0.0,
        keep: int = 0,
    ) -> int:
        """Trim records that are older (seconds), but the newest `keep` of each shard; returns how many."""
        trimmed = 0
        for stream in self._meant(table, region, shard):
            for one in list(stream.shards.values()) if shard is None else [stream.shard(shard)]:
                old = one.older_than(self.clock.now() - older_than) if older_than else len(one.numbers)
                trimmed += one.trim(min(old, len(one.numbers) - keep))
        return trimmed

    def vanish(self, shard: str | None = None, table: str | None = None, forget_parents: bool = False) -> list[str]:  # noqa: FBT001, FBT002 - JSON
        """Let a closed shard (or all closed ones) disappear; with `forget_parents` its children no longer name it."""
        gone = []
        for stream in self._meant(table, None, shard):
            for one in [stream.shard(shard)] if shard else [s for s in stream.shards.values() if not s.is_open]:
                stream.forget(one, parents_too=forget_parents)
                gone.append(one)
        return _ids(gone)

    def advance(self, seconds: float) -> None:
        """Let time pass in the laboratory: iterators expire, shards roll, records and shards age away."""
        self.clock.advance(seconds)
        self.tick()

    def freeze(self) -> None:
        """Stop time in the laboratory: from now on it passes by `advance` alone."""
        self.clock.freeze()

    def tick(self) -> None:
        """What time does by itself: rolls, and the end of what is too old. Called about every half second."""
        self.tables.sweep()
        self.kinesis.deliver()
        if self.options.roll_seconds > 0:
            now = self.clock.now()
            for stream in self.tables.streams():
                for shard in [one for one in stream.open_shards if self._is_due(one, now)]:
                    stream.roll(shard, now, self._delays)

    def _is_due(self, shard: LabShard, now: float) -> bool:
        spread = 0.8 + 0.4 * (int(shard.shard_id[-8:], 16) / 0xFFFFFFFF)
        return now - shard.created_at >= self.options.roll_seconds * spread

    # -- endpoint --------------------------------------------------------------------------------------------------

    def set(self, **changes: Any) -> dict[str, Any]:
        """Change options; returns all of them."""
        wanted: dict[str, Any] = msgspec.to_builtins(self.options) | changes
        try:
            checked = msgspec.convert(wanted, Options)
        except msgspec.ValidationError as error:
            raise Refused(f"No such options: {error}.") from None
        for name in changes:
            setattr(self.options, name, getattr(checked, name))
        for stream in self.tables.streams():
            stream.identity = self.options.ttl_identity
        return wanted

    def fault(self, kind: str, **details: Any) -> None:
        """Let calls fail: throttle, error, slow, drop, drop_after, truncate; see `faults.Fault`."""
        try:
            self.faults.active.append(msgspec.convert({"kind": kind} | details, Fault))
        except msgspec.ValidationError as error:
            raise Refused(f"No such fault: {error}.") from None

    def clear(self) -> None:
        """End all faults."""
        self.faults.active.clear()

    # -- changes ---------------------------------------------------------------------------------------------------

    async def settle(self, table: str | None = None, region: str | None = None) -> None:
        """Wait until everything written by now is in the laboratory's streams."""
        await self.gateway.settled(self.tables.table(table, region) if table else None)
        self.kinesis.settle()

    async def adopt(self, table: str, region: str, account: str = DEFAULT_ACCOUNT) -> str:
        """Follow a table of MiniStack (done by itself once it was described through here); returns the stream's ARN."""
        await self.gateway.discover(Scope(account, region, account), table)
        return self.tables.chosen(table, region)[0].arn

    def make(self, table: str, region: str, shards: int | None = None, account: str = DEFAULT_ACCOUNT) -> str:
        """Make a stream whose records come from `generate` alone; the table need not exist. Returns its ARN."""
        scope = Scope(account, region, account)
        if self.tables.find(scope, table) is not None:
            raise Refused(f"Table {table} in {region} has a stream already.")
        made = self.tables.add(scope, table, None)
        made.made = True
        made.present = self.tables.begin(made, shards=shards)
        return made.present.arn

    async def expire(self, table: str, key: dict[str, Any], region: str | None = None) -> bool:
        """Delete an item as TTL does: its REMOVE record carries the service's identity. False: it was not there."""
        chosen = self.tables.table(table, region)
        marked = canonical(msgspec.json.encode(key))
        if chosen.made:
            change = self._generator(chosen).expire(chosen, key)
            if change is not None:
                chosen.expiring[marked] += 1
                self.tables.record(chosen, chosen.present, [change])
            return change is not None
        chosen.expiring[marked] += 1
        asked = {"TableName": table, "Key": key, "ReturnValues": "ALL_OLD"}
        answer = await self.gateway.upstream.call(chosen.scope, "DeleteItem", asked)
        if not msgspec.json.decode(answer).get("Attributes"):
            chosen.unmark(marked)
            return False
        await self.gateway.settled(chosen)
        return True

    async def recreate(self, table: str, region: str | None = None, off: bool = False) -> str | None:  # noqa: FBT001, FBT002 - JSON
        """Close a table's stream and begin a new one; with `off` only close it (then `recreate` again begins one).

        What is written while it is off is never recorded, as on AWS. Returns the new stream's ARN.
        """
        chosen = self.tables.table(table, region)
        await self.gateway.settled(chosen)
        if chosen.present is not None:
            chosen.present.close(self.clock.now())
        chosen.present = None if off else self.tables.begin(chosen)
        return None if chosen.present is None else chosen.present.arn

    async def generate(  # noqa: PLR0913, PLR0917 - a command's arguments
        self,
        table: str,
        count: int = 1,
        keys: int = 100,
        size: int = 100,
        rate: float = 0.0,
        apply: bool = False,  # noqa: FBT001, FBT002 - JSON
        region: str | None = None,
    ) -> int:
        """Make changes by the seed: `count` of them over `keys` items, `rate` a second (0: at once).

        With `apply` they are written to MiniStack's table; a followed stream gets its records from there.
        """
        chosen = self.tables.table(table, region)
        if not (chosen.made or apply):
            raise Refused(f"The records of {table} come from MiniStack; say `apply` to write to the table.")
        order = Order(count, keys, size, rate, apply)
        return await self._generator(chosen).run(chosen, self.tables, self.gateway, order)

    def _generator(self, table: LabTable) -> Generator:
        seed = f"{self.seed}/{table.scope.account}/{table.scope.region}/{table.name}"
        return self.generators.setdefault(table, Generator(Random(seed)))  # noqa: S311 - seeded

    # -- what happened ---------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Everything that is counted; see `report.stats`."""
        return stats(self.tables, self.counters)

    def streams(self) -> list[dict[str, Any]]:
        """Every stream with its shards."""
        return [summary(stream, self.counters) for stream in self.tables.streams()]


def _ids(shards: Any) -> list[str]:
    return [shard.shard_id for shard in shards]

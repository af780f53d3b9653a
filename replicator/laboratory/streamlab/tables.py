"""Tables with streams, by account, region and name, and streams by ARN: what the laboratory knows.

Invariant: a table's streams are in the order of their labels; at most one of them, the present one, gets records.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from replicator.laboratory.streamlab.changes import Change, canonical
from replicator.laboratory.streamlab.counters import Counters
from replicator.laboratory.streamlab.options import Options
from replicator.laboratory.streamlab.refusals import Refused
from replicator.laboratory.streamlab.stream import LabStream

VIEW: Final = "NEW_AND_OLD_IMAGES"
_AUTO_KEY: Final = [{"AttributeName": "pk", "KeyType": "HASH"}]


@dataclass(slots=True)
class LabClock:
    """The laboratory's time: seconds since 1970 on a clock that never jumps, but by `advance`."""

    offset: float = field(default_factory=lambda: time.time() - time.monotonic())
    still: float | None = None
    """The time at which it was stopped; None while it runs."""

    def now(self) -> float:
        """The time in the laboratory."""
        return time.monotonic() + self.offset if self.still is None else self.still

    def advance(self, seconds: float) -> None:
        """Let that much time pass at once."""
        self.offset += seconds
        if self.still is not None:
            self.still += seconds

    def freeze(self) -> None:
        """Stop, but for `advance`."""
        self.still = self.now()


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose tables: an account's in a region. `access_key` is what MiniStack is asked with."""

    account: str
    region: str
    access_key: str

    @property
    def place(self) -> tuple[str, str]:
        """Account and region."""
        return self.account, self.region


@dataclass(slots=True, eq=False)
class LabTable:
    """A table and its streams, oldest first."""

    scope: Scope
    name: str
    key_schema: list[dict[str, str]]
    view: str = VIEW
    made: bool = False
    """Its changes are made here and not read from MiniStack."""
    streams: list[LabStream] = field(default_factory=list)
    present: LabStream | None = None
    """What gets the records; None while the stream is off."""
    sinks: list[Callable[[Change], None]] = field(default_factory=list)
    """Where its changes go beside its stream."""
    expiring: Counter[bytes] = field(default_factory=Counter)
    """Keys whose next removal is one by TTL, in canonical form."""

    @property
    def partition_key(self) -> str:
        """The name of its partition key."""
        return next(key["AttributeName"] for key in self.key_schema if key["KeyType"] == "HASH")

    @property
    def latest(self) -> LabStream | None:
        """The newest stream."""
        return self.streams[-1] if self.streams else None

    def marked(self, change: Change) -> Change:
        """The change, as one by TTL if its key is about to expire."""
        if not self.expiring or change.event != "REMOVE":
            return change
        key = canonical(change.keys)
        if not self.unmark(key):
            return change
        return Change(change.event, change.keys, change.new, change.old, change.created_at, change.hashed, by_ttl=True)

    def unmark(self, key: bytes) -> bool:
        """Take a mark back; False when there is none."""
        marked = self.expiring[key] > 0
        self.expiring[key] -= marked
        self.expiring += Counter[bytes]()  # drops what is zero
        return marked


@dataclass(slots=True)
class Tables:
    """All of them."""

    options: Options
    clock: LabClock
    counters: Counters
    seed: int
    by_name: dict[tuple[str, str, str], LabTable] = field(default_factory=dict)
    by_arn: dict[str, tuple[LabTable, LabStream]] = field(default_factory=dict)

    def find(self, scope: Scope, name: str) -> LabTable | None:
        """A known table."""
        return self.by_name.get((*scope.place, name))

    def add(self, scope: Scope, name: str, key_schema: list[dict[str, str]] | None, view: str = VIEW) -> LabTable:
        """Get to know a table, without a stream yet."""
        table = LabTable(scope, name, key_schema or _AUTO_KEY, view)
        self.by_name[(*scope.place, name)] = table
        return table

    def begin(self, table: LabTable, *, label: str | None = None, shards: int | None = None) -> LabStream:
        """Give a table a new stream; `label` is MiniStack's, else the time in the laboratory."""
        now = self.clock.now()
        label = label or self._next_label(table, now)
        account, region = table.scope.place
        stream = LabStream(
            arn=f"arn:aws:dynamodb:{region}:{account}:table/{table.name}/stream/{label}",
            label=label,
            table=table.name,
            region=region,
            account=account,
            view=table.view,
            key_schema=table.key_schema,
            created_at=now,
            random=Random(f"{self.seed}/{account}/{region}/{table.name}/{len(table.streams)}"),  # noqa: S311 - seeded
            digits=self.options.digits,
            identity=self.options.ttl_identity,
        )
        stream.begin(shards or self.options.table_shards.get(table.name, self.options.shards), now)
        table.streams.append(stream)
        table.streams.sort(key=lambda one: one.label)
        self.by_arn[stream.arn] = (table, stream)
        return stream

    def record(self, table: LabTable, stream: LabStream | None, changes: list[Change]) -> None:
        """Add changes to a stream; without one, or to one that is closed, they are never recorded, as on AWS."""
        now = self.clock.now()
        marked = [table.marked(change) for change in changes]
        for change in marked:
            for sink in table.sinks:
                sink(change)
        if stream is None or stream.closed_at is not None:
            self.counters.unrecorded += len(changes)
            return
        for change in marked:
            stream.append(change, now)

    def streams(self) -> Iterator[LabStream]:
        """Every stream that is not gone."""
        for _, stream in self.by_arn.values():
            yield stream

    def chosen(self, table: str | None, region: str | None) -> list[LabStream]:
        """The present streams that a command means: of one table, of one region, or all."""
        found = [
            one.present
            for one in self.by_name.values()
            if one.present is not None
            and (table is None or one.name == table)
            and (region is None or one.scope.region == region)
        ]
        if not found:
            raise Refused(f"No table {table or '*'} with a stream is known in {region or 'any region'}.")
        return found

    def table(self, name: str | None, region: str | None) -> LabTable:
        """The one table that a command means."""
        found = [
            one
            for one in self.by_name.values()
            if (name is None or one.name == name) and (region is None or one.scope.region == region)
        ]
        if len(found) != 1:
            raise Refused(f"{len(found)} known tables match {name or '*'} in {region or 'any region'}; name one.")
        return found[0]

    def sweep(self) -> None:
        """Let go of what is older than the retention."""
        horizon = self.clock.now() - self.options.retention_seconds
        for stream in list(self.streams()):
            stream.sweep(horizon)
            if stream.closed_at is not None and stream.closed_at < horizon:
                self.remove(stream)

    def remove(self, stream: LabStream) -> None:
        """A closed stream is gone."""
        table, _ = self.by_arn.pop(stream.arn)
        table.streams.remove(stream)

    def _next_label(self, table: LabTable, now: float) -> str:
        moment = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
        label = moment.isoformat(timespec="milliseconds")
        while table.latest is not None and label <= table.latest.label:
            moment += timedelta(milliseconds=1)
            label = moment.isoformat(timespec="milliseconds")
        return label

"""A table's way into a Kinesis stream: what DynamoDB does for a destination, with its disorder.

Invariant: every change arrives, each of its copies at most the bound later than it was made, and with the one time that
it was made at.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

import msgspec

from replicator.laboratory.streamlab.changes import Change
from replicator.laboratory.streamlab.envelope import Precision, envelope
from replicator.laboratory.streamlab.options import Options
from replicator.laboratory.streamlab.shard import LabShard
from replicator.laboratory.streamlab.stream import LabStream
from replicator.laboratory.streamlab.tables import LabClock

_MICROS = 1_000_000


def kinesis_record(stream: LabStream, hashed: int, data: bytes, now: float) -> LabShard:
    """Put a record into the shard of a hash."""
    encoded, key = msgspec.json.encode(data), f"{hashed:032x}".encode()

    def text(number: int) -> bytes:
        return b'{"SequenceNumber":"%d","Data":%b,"PartitionKey":"%b","ApproximateArrivalTimestamp":%.3f}' % (
            number,
            encoded,
            key,
            now,
        )

    return stream.put(hashed, text, now)


@dataclass(slots=True, eq=False)
class Relay:
    """One destination of one table. `status` and `precision` as DynamoDB names them."""

    table: str
    region: str
    stream: LabStream
    clock: LabClock
    options: Options
    random: Random
    precision: Precision = "MILLISECOND"
    status: str = "ACTIVE"
    _last: int = 0
    _sent: int = 0
    _waiting: list[tuple[float, int, int, bytes]] = field(default_factory=list)

    def take(self, change: Change) -> None:
        """A change was made; it goes out by itself, a little later, perhaps more than once."""
        if self.status != "ACTIVE":
            return
        now = self.clock.now()
        self._last = max(self._last + 1, int(now * _MICROS))
        event_id = str(UUID(int=self.random.getrandbits(128), version=4))
        data = envelope(
            change,
            table=self.table,
            region=self.region,
            event_id=event_id,
            micros=self._last,
            precision=self.precision,
        )
        copies = 1 + (self.random.random() < self.options.kinesis_duplicates)
        for _ in range(copies):
            self._sent += 1
            due = now + self.random.random() * self.options.kinesis_disorder
            heapq.heappush(self._waiting, (due, self._sent, change.hashed, data))
        self.deliver(now)

    def deliver(self, until: float) -> None:
        """Put what is due into the stream."""
        while self._waiting and self._waiting[0][0] <= until:
            _, _, hashed, data = heapq.heappop(self._waiting)
            if self.stream.closed_at is None:
                kinesis_record(self.stream, hashed, data, self.clock.now())

    def settle(self) -> None:
        """Put everything into the stream now, in its disorder."""
        self.deliver(float("inf"))


Relays = dict[tuple[str, str, str, str], Relay]
"""By account, region, table and the stream's ARN."""

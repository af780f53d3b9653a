"""Workers in the coordination table: one heartbeat row per worker, and the rules that operators have paused.

Invariant: a heartbeat is one write, whatever the number of shards; a row that cannot be read shows no life.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from replicator import __version__
from replicator.adapters.dynamodb.coordination.changes import Change, binary, number, schema, text
from replicator.adapters.dynamodb.coordination.names import DRIVEN_BY, STATEMENTS, key
from replicator.adapters.dynamodb.coordination.rows import CorruptRow
from replicator.adapters.dynamodb.coordination.statements import packed
from replicator.domain.identifiers import RegionId, RuleName, WorkerId
from replicator.domain.shards.leases import Pulse

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination.table import CoordinationTable
    from replicator.domain.driving import Driving


class DynamoMembership:
    """Workers and their pulses."""

    def __init__(self, table: CoordinationTable) -> None:
        self._table = table

    async def beat(self, worker: WorkerId, pulse: Pulse) -> None:
        """Show a sign of life. When and as what the worker started is for people only."""
        change = Change(
            sets={
                "beat": number(pulse.beat),
                "news": number(pulse.news),
                "admin": text(pulse.admin),
                "program": text(__version__),
                STATEMENTS: binary(packed(pulse.through)),
                "sv": schema(),
            },
            defaults={"started": text(datetime.now(UTC).isoformat(timespec="seconds"))},
        )
        await self._table.update(key(self._table.names.workers, worker), change)

    async def members(self) -> dict[WorkerId, Pulse]:
        """Every worker's last pulse; a row without one shows no life, as an absent row."""
        pulses: dict[WorkerId, Pulse] = {}
        for row in await self._table.query(self._table.names.workers):
            with suppress(CorruptRow):
                pulses[WorkerId(self._table.reader.text(row, "sk"))] = self._table.reader.pulse(row)
        return pulses

    async def leave(self, worker: WorkerId) -> None:
        """Remove a worker's row."""
        await self._table.delete(key(self._table.names.workers, worker))

    async def paused(self) -> dict[RuleName, float]:
        """Rules that an operator has paused, and since when."""
        rows, reader = await self._table.query(self._table.names.rules), self._table.reader
        return {
            RuleName(reader.text(row, "sk")): reader.seconds(row, "paused_at") for row in rows if "paused_at" in row
        }

    async def driven(self) -> dict[RuleName, Driving]:
        """What drives the rules that were ever handed over."""
        table = self._table
        rows, date = await table.read(table.names.rules)
        now = table.seconds_of(date)
        return {
            RuleName(table.reader.text(row, "sk")): table.reader.driving(row, now) for row in rows if DRIVEN_BY in row
        }

    async def resting(self) -> frozenset[tuple[RuleName, RegionId]]:
        """Regions that an operator has paused for a rule."""
        rows = await self._table.query(self._table.names.regions)
        return frozenset(self._table.reader.rule_and_region(row) for row in rows)

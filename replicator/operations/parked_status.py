"""What targets are owed, in numbers: as the owed tables say, else as workers do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replicator.domain.errors import ReplicatorError
from replicator.domain.targets import TargetId, parse_target
from replicator.operations.parked_rows import Parked, open_rows

if TYPE_CHECKING:
    from replicator.domain.owed_keys import OwedKey, OwedTo
    from replicator.operations.group import Group


@dataclass(frozen=True, slots=True)
class ParkedStatus:
    """What a target refused and is owed still, of the keys of one table: keys, and records that cannot be read."""

    target: TargetId
    table: str
    keys: int
    records: int
    oldest_seconds: float | None


async def parked_status(
    group: Group, daemons: Mapping[str, Mapping[str, Any]]
) -> tuple[list[ParkedStatus], ReplicatorError | None]:
    """What targets refused: as the owed tables say, else as workers do; and why tables do not."""
    try:
        return summed_up(await open_rows(group)), None
    except ReplicatorError as error:
        told: dict[tuple[str, str], ParkedStatus] = {}
        for daemon in daemons.values():
            for rule in daemon.get("rules", ()):
                for rows in rule.get("parked", ()):
                    target = parse_target(rows["target"])
                    if target is not None and rows["keys"] + rows["records"]:
                        told[rule["table"], rows["target"]] = ParkedStatus(
                            target, rule["table"], rows["keys"], rows["records"], rows["oldest_seconds"]
                        )
        return list(told.values()), error


def summed_up(rows: Sequence[Parked], now: float | None = None) -> list[ParkedStatus]:
    """Open rows by target and table; `now` in seconds since 1970."""
    found: dict[OwedTo, list[OwedKey]] = {}
    for row in rows:
        found.setdefault(row.owed.to, []).append(row.owed)
    return [
        ParkedStatus(
            to.target_id,
            to.table,
            sum(owed.key is not None for owed in some),
            sum(owed.key is None for owed in some),
            round(max(0.0, (time.time() if now is None else now) - min(owed.first for owed in some)), 1),
        )
        for to, some in sorted(found.items(), key=lambda pair: (pair[0].target_id.text, pair[0].table))
    ]

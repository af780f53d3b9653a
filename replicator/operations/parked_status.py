"""What targets are owed, in numbers: as the owed tables say, else as workers do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replicator.domain.targets import TargetId, parse_target
from replicator.operations.parked_rows import Parked

if TYPE_CHECKING:
    from replicator.domain.owed_keys import OwedKey, OwedTo


@dataclass(frozen=True, slots=True)
class ParkedStatus:
    """What a target refused and is owed still, of the keys of one table: keys, and records that cannot be read."""

    target: TargetId
    table: str
    keys: int
    records: int
    oldest_seconds: float | None


def parked_status(
    rows: Sequence[Parked], silent: Collection[str], daemons: Iterable[Mapping[str, Any]], now: float
) -> list[ParkedStatus]:
    """What targets refused: as the open rows say, and for regions whose owed tables do not answer as workers do."""
    told: dict[tuple[str, str, str], ParkedStatus] = {}
    for daemon in daemons:
        for rule in daemon.get("rules", ()):
            for known in rule.get("parked", ()) if rule.get("source") in silent else ():
                target = parse_target(known["target"])
                if target is not None and known["keys"] + known["records"]:
                    told[rule["source"], rule["table"], known["target"]] = ParkedStatus(
                        target, rule["table"], known["keys"], known["records"], known["oldest_seconds"]
                    )
    return [*summed_up(rows, now), *told.values()]


def summed_up(rows: Sequence[Parked], now: float) -> list[ParkedStatus]:
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
            round(max(0.0, now - min(owed.first for owed in some)), 1),
        )
        for to, some in sorted(found.items(), key=lambda pair: (pair[0].target_id.text, pair[0].table))
    ]

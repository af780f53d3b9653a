"""Regions that are away or rest, and what they are owed: as workers say, else as the owed tables do."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replicator.domain.errors import ReplicatorError, TableMissing
from replicator.domain.owed_keys import OwedFor
from replicator.domain.presence import Reason, Standing
from replicator.operations.parked_rows import Silent, tables_of

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination.operations import Pause
    from replicator.adapters.dynamodb.owed_keys import DynamoOwedKeys
    from replicator.domain.owed_keys import OwedTo
    from replicator.operations.group import Group

_MOST_PAGES = 20
"""So many pages of rows, of a megabyte each, are counted where no worker counts."""


@dataclass(frozen=True, slots=True)
class RegionStatus:
    """A region that a rule writes, and that rests, is away, or is owed keys.

    `keys`: how many it is owed by all others; at least so many when `more`. `away_seconds`: None when no worker says
    that it is away. `why` is what it said last, or the operator's note.
    """

    rule: str
    region: str
    paused: bool
    away_seconds: float | None
    why: str
    keys: int
    more: bool
    oldest_seconds: float | None
    rebuild: bool = False
    """Whether it missed so much that its table must be made anew."""


@dataclass(frozen=True, slots=True)
class _Owed:
    keys: int
    oldest_seconds: float | None
    more: bool = False


async def away_status(
    group: Group, daemons: Mapping[str, Mapping[str, Any]], pauses: Sequence[Pause], silent: Silent
) -> list[RegionStatus]:
    """Every region that is not as it should be. `silent`: whose owed tables are not asked; gets what fails here."""
    now = group.table.clock.now()
    told = list(_told(daemons))
    owed = {(row["rule"], row["region"], row["source"], row["table"]): row for row in told if row["keys"] is not None}
    counted: dict[tuple[str, str, str, str], _Owed] = {
        where: _Owed(row["keys"], row["oldest_seconds"]) for where, row in owed.items()
    }
    tables = [(source, rows) for source, rows in tables_of(group).items() if source not in silent]
    for found in await asyncio.gather(*(_of_table(*each, counted.keys(), now, silent) for each in tables)):
        counted |= found
    resting = {(str(pause.rule), str(pause.region)): pause for pause in pauses}
    away = {(row["rule"], row["region"]): row for row in told if row["standing"] == Standing.AWAY}
    names = {*resting, *away, *(where[:2] for where, each in counted.items() if each.keys)}
    return [_joined(name, resting, away, [each for where, each in counted.items() if where[:2] == name])
            for name in sorted(names)]  # fmt: skip


def _told(daemons: Mapping[str, Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """What workers say of other regions of meshes; one that counts rows last, so that its word stands."""
    rows = [
        {"rule": rule["name"], "source": rule["source"], "table": rule["table"], **region}
        for daemon in daemons.values()
        for rule in daemon.get("rules", ())
        for region in rule.get("regions", ())
    ]
    return iter(sorted(rows, key=lambda row: (row["keys"] is not None, row["keys"] or 0)))


async def _of_table(
    source: str, rows: DynamoOwedKeys, known: Container[tuple[str, str, str, str]], now: float, silent: Silent
) -> dict[tuple[str, str, str, str], _Owed]:
    found: dict[tuple[str, str, str, str], _Owed] = {}
    try:
        for to in await rows.targets():
            where = (str(to.target_id.rule), str(to.target_id.region), source, str(to.table))
            if to.owed_for is OwedFor.AWAY and where not in known:
                found[where] = await _count(rows, to, now)
    except TableMissing:
        return found  # where rows must be, what was refused is missing there too
    except ReplicatorError as error:
        silent.setdefault(source, error)
    return found


async def _count(rows: DynamoOwedKeys, to: OwedTo, now: float) -> _Owed:
    keys, oldest, after = 0, now, None
    for _ in range(_MOST_PAGES):
        page = await rows.page(to, after)
        keys += len(page.rows)
        oldest = min([oldest, *(row.first for row in page.rows)])
        after = page.after
        if after is None:
            break
    return _Owed(keys, round(now - oldest, 1) if keys else None, after is not None)


def _joined(
    name: tuple[str, str],
    resting: Mapping[tuple[str, str], Pause],
    away: Mapping[tuple[str, str], Mapping[str, Any]],
    owed: Sequence[_Owed],
) -> RegionStatus:
    told, pause = away.get(name), resting.get(name)
    ages = [each.oldest_seconds for each in owed if each.oldest_seconds is not None]
    return RegionStatus(
        rule=name[0],
        region=name[1],
        paused=pause is not None,
        away_seconds=None if told is None else told["seconds"],
        why=pause.note if pause is not None else "" if told is None else told["why"],
        keys=sum(each.keys for each in owed),
        more=any(each.more for each in owed),
        oldest_seconds=max(ages, default=None),
        rebuild=told is not None and told.get("reason") == Reason.OVERDUE,
    )

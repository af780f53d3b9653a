"""Everything that is stored under a rule's name: handed to another name, or forgotten.

That is its pause and what drives it, its positions, rewinds and starts on every stream, which streams it is through
with, what functions noted of them, its gaps with their acknowledgements, its jobs with what they filled, and which
tables it has written. Invariant: no row is overwritten that changed since it was read, a shard is taken from the owner
that it had, and what was interrupted can be repeated. The pause goes first, so that a rule that rests is at no moment
one that does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.coordination.changes import Change, number, schema, text
from replicator.adapters.dynamodb.coordination.function_notes import FunctionNotes
from replicator.adapters.dynamodb.coordination.known_tables import KnownTables
from replicator.adapters.dynamodb.coordination.names import (
    CHECKPOINT,
    DRAINED_FOR,
    FORMERLY,
    KEEPS,
    REWIND,
    SHARD,
    TARGET,
    THROUGH,
    key,
)
from replicator.adapters.dynamodb.coordination.rule_jobs import RuleJobs
from replicator.domain.errors import WorldMismatch
from replicator.domain.identifiers import RuleName
from replicator.domain.targets import parse_target
from replicator.domain.values import replace

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from replicator.adapters.dynamodb.coordination.changes import Value
    from replicator.adapters.dynamodb.coordination.rows import Row
    from replicator.adapters.dynamodb.coordination.table import CoordinationTable
    from replicator.domain.identifiers import RegionId, TableName
    from replicator.domain.shards.leases import StreamRef

_KEY = frozenset({"pk", "sk"})
_BY_TARGET = (CHECKPOINT, REWIND, THROUGH, KEEPS)
_SERVES = "serves"


class RuleRows:
    """The rows of rules. Nothing may be changed while a worker of the group lives."""

    def __init__(self, table: CoordinationTable) -> None:
        self._table = table
        self._names, self._reader = table.names, table.reader

    async def formerly(self) -> dict[RuleName, frozenset[RuleName]]:
        """The names that rules had before, by the names that they have now."""
        rows = await self._table.query(self._names.rules)
        return {
            RuleName(self._reader.text(row, "sk")): self._reader.former_names(row) for row in rows if FORMERLY in row
        }

    async def rename(self, old: RuleName, new: RuleName) -> int:
        """Hand everything over to another name; returns how many rows changed."""
        streams = await self._streams()
        for stream, rows in streams.items():
            for row in rows:
                self._refuse_two(stream, row, old, new)
        jobs = RuleJobs(self._table)
        await jobs.refuse_two(old, new)
        changed = await self._rename_rule(old, new)
        for stream, rows in streams.items():
            for row in rows:
                changed += await self._rename_row(row, old, new)
            changed += await self._rename_drained(stream, old, new)
        changed += await self._rename_gaps(old, new)
        changed += await self._rename_regions(old, new)
        changed += await FunctionNotes(self._table).hand_over(old, new)
        changed += await jobs.hand_over(old, new)
        changed += await KnownTables(self._table).hand_over(old, new)
        if changed:
            await self._note_name(old, new)
        return changed

    async def forget(self, old: RuleName) -> int:
        """Delete everything; returns how many rows changed."""
        changed = 0
        for stream, rows in (await self._streams()).items():
            for row in rows:
                changed += await self._forget_row(row, old)
            changed += await self._rename_drained(stream, old, None)
        for row in await self._gaps_of(old):
            changed += await self._table.delete(_key_of(row))
        changed += await RuleJobs(self._table).hand_over(old, None)
        changed += await KnownTables(self._table).hand_over(old, None)
        changed += await self._rename_regions(old, None)
        changed += await FunctionNotes(self._table).forget(old)
        return changed + await self._table.delete(key(self._names.rules, old), present=("sv",))

    async def forget_unread(self, old: RuleName, tables: Collection[tuple[RegionId, TableName]]) -> int:
        """Delete the rows of these tables' streams at which only this rule had something; no worker at all may live."""
        changed = 0
        for stream, rows in (await self._streams()).items():
            head, _ = await self._table.get(self._names.stream_key(stream))
            if (stream.region, stream.table) in tables and not any(_needs(row, old) for row in [head, *rows]):
                for row in rows:
                    changed += await self._table.delete(_key_of(row))
                changed += await self._table.delete(_key_of(head))
        return changed

    async def _streams(self) -> dict[StreamRef, list[Row]]:
        """Every stream that the group ever read, with its rows."""
        known = [self._reader.stream(row) for row in await self._table.query(self._names.streams)]
        return {stream: await self._table.query(self._names.stream(stream)) for stream in known}

    # -- the rule ------------------------------------------------------------------------------------------------------

    async def _rename_rule(self, old: RuleName, new: RuleName) -> int:
        """Move what operators want of a rule; what is there under the new name stays."""
        row, _ = await self._table.get(key(self._names.rules, old))
        if not row:
            return 0
        moved = {name: value for name, value in row.items() if name not in _KEY | {FORMERLY}}
        former = sorted(self._reader.former_names(row))
        await self._table.update(key(self._names.rules, new), Change(defaults=moved, merges={FORMERLY: former}))
        await self._table.delete(_key_of(row))
        return 1

    async def _note_name(self, old: RuleName, new: RuleName) -> None:
        """Note that a rule had another name, under which there are conflict entries, and claims of tables."""
        change = Change(sets={"sv": schema()}, merges={FORMERLY: [old]})
        await self._table.update(key(self._names.rules, new), change)

    async def _rename_regions(self, old: RuleName, new: RuleName | None) -> int:
        """Move where a rule rests, or forget it; what is there under the new name stays."""
        changed = 0
        for row in await self._table.query(self._names.regions):
            rule, region = self._reader.rule_and_region(row)
            if rule != old:
                continue
            if new is not None:
                moved = {name: value for name, value in row.items() if name not in _KEY}
                await self._table.update(key(self._names.regions, f"{new}|{region}"), Change(defaults=moved))
            changed += await self._table.delete(_key_of(row))
        return changed

    # -- streams -------------------------------------------------------------------------------------------------------

    async def _rename_row(self, row: Row, old: RuleName, new: RuleName) -> int:
        """Move positions and rewinds inside a shard's row, or a target's start."""
        sort = self._reader.text(row, "sk")
        if sort.startswith(TARGET):
            renamed = _renamed(sort, TARGET, old, new)
            if renamed is None:
                return 0
            await self._move_start(row, key(self._reader.text(row, "pk"), renamed))
            return 1
        found = dict(_targets_of(row, old, new)) if sort.startswith(SHARD) else {}
        if not found:
            return 0
        await self._move(row, {renamed: row[name] for name, renamed in found.items()}, list(found))
        return 1

    async def _move_start(self, row: Row, place: Mapping[str, Value]) -> None:
        """Copy a start, then delete it; what is noted there already must be the same."""
        moved = {name: value for name, value in row.items() if name not in _KEY}
        seen, _ = await self._table.get(place)
        self._expect("started_at" not in seen or seen["started_at"] == row.get("started_at"), row)
        change = Change(sets=moved, when={name: seen.get(name) for name in moved})
        self._expect(await self._table.update(place, change) is not None, row)
        self._expect(await self._table.delete(_key_of(row), moved), row)

    async def _forget_row(self, row: Row, old: RuleName) -> int:
        sort = self._reader.text(row, "sk")
        if sort.startswith(TARGET) and _renamed(sort, TARGET, old, old) is not None:
            return int(await self._table.delete(_key_of(row)))
        found = [name for name, _ in _targets_of(row, old, old)] if sort.startswith(SHARD) else []
        if not found:
            return 0
        await self._move(row, {}, found)
        return 1

    async def _move(self, row: Row, sets: Mapping[str, Value], removes: Sequence[str]) -> None:
        """Change a shard's row as it was seen, and take the shard from the owner that it had."""
        seen: dict[str, Value | None] = {name: row[name] for name in removes}
        change = Change(
            sets={**sets, "epoch": number(self._reader.number(row, "epoch") + 1)},
            removes=["owner", *removes],
            when=seen | dict.fromkeys(sets) | {"epoch": row["epoch"], "owner": row.get("owner")},
        )
        self._expect(await self._table.update(_key_of(row), change) is not None, row)

    async def _rename_drained(self, stream: StreamRef, old: RuleName, new: RuleName | None) -> int:
        """What a rule is through with, under its new name; under none when there is none."""
        row, _ = await self._table.get(self._names.stream_key(stream))
        noted = row.get(DRAINED_FOR, {}).get("SS", [])
        mine = {name: _of_rule(name, old, new) for name in noted if _of_rule(name, old, new) is not None}
        if not mine:
            return 0
        if new is not None:
            await self._table.update(_key_of(row), Change(merges={DRAINED_FOR: sorted(filter(None, mine.values()))}))
        await self._table.update(_key_of(row), Change(takes={DRAINED_FOR: sorted(mine)}))
        return 1

    # -- gaps ----------------------------------------------------------------------------------------------------------

    async def _rename_gaps(self, old: RuleName, new: RuleName) -> int:
        """Store each gap under the id that it has by its target's new name, with what was said about it."""
        changed = 0
        for row in await self._gaps_of(old):
            gap = self._reader.gap(row)
            gap = replace(gap, target_id=gap.target_id.of_rule(new))
            moved = {name: value for name, value in row.items() if name not in _KEY}
            change = Change(sets={**moved, "target": text(gap.target_id.text)}, when={"found_at": None})
            await self._table.update(key(self._names.gaps, gap.gap_id), change)
            changed += await self._table.delete(_key_of(row))
        return changed

    async def _gaps_of(self, rule: RuleName) -> list[Row]:
        rows = await self._table.query(self._names.gaps)
        targets = ((row, parse_target(row.get("target", {}).get("S", ""))) for row in rows)
        return [row for row, target in targets if target is not None and target.rule == rule]

    # -- refusals ------------------------------------------------------------------------------------------------------

    def _refuse_two(self, stream: StreamRef, row: Row, old: RuleName, new: RuleName) -> None:
        """Two positions of one target cannot become one."""
        if any(renamed in row for _, renamed in _targets_of(row, old, new)):
            raise WorldMismatch(
                f"Rule {new} has progress of its own on table {stream.table} in {stream.region}.",
                advice=f"Keep it and run `replicator rules forget {old}`.",
            )

    def _expect(self, happened: bool, row: Row) -> None:  # noqa: FBT001 - the answer of the call beside it
        if not happened:
            raise WorldMismatch(
                f"The row {self._reader.text(row, 'sk')} changed while it was read.",
                advice="A worker of the group is running: stop all workers, then run this command again.",
            )


def _needs(row: Row, old: RuleName) -> bool:
    """Whether a row says something of a target, or a rule, other than one that was forgotten."""
    listed = [name for each in (_SERVES, DRAINED_FOR) for name in row.get(each, {}).get("SS", [])]
    others = any(_of_rule(name, old, None) is None for name in listed)
    return others or row["sk"]["S"].startswith(TARGET) or any(name.startswith(_BY_TARGET) for name in row)


def _key_of(row: Row) -> Mapping[str, Value]:
    return {name: row[name] for name in ("pk", "sk")}


def _targets_of(row: Row, old: RuleName, new: RuleName) -> Iterator[tuple[str, str]]:
    """Attributes of a rule's targets, with what they are called under its new name."""
    for name in row:
        for prefix in _BY_TARGET:
            renamed = _renamed(name, prefix, old, new)
            if renamed is not None:
                yield name, renamed


def _renamed(name: str, prefix: str, old: RuleName, new: RuleName) -> str | None:
    """A name that is made of a prefix and one of the rule's targets, with the new name; None when it is not."""
    renamed = _of_rule(name.removeprefix(prefix), old, new) if name.startswith(prefix) else None
    return None if renamed is None or renamed == new else f"{prefix}{renamed}"


def _of_rule(text_of: str, old: RuleName, new: RuleName | None) -> str | None:
    """A rule or one of its targets under a new name (the same when it has none); None when it is another rule's."""
    if text_of == old:
        return new or old
    target = parse_target(text_of)
    return target.of_rule(new or old).text if target is not None and target.rule == old else None

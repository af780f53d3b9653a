"""Stored progress, rule by rule: what the coordination table holds, handed to another name, or forgotten.

Invariant: nothing changes while a worker of the group is alive, and a change that was interrupted can be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replicator.adapters.aws.errors import CLIENT_ERRORS, member, translate
from replicator.adapters.dynamodb.coordination import (
    CHECKPOINT,
    REWIND,
    CoordinationTable,
    DynamoMembership,
    DynamoRegistry,
    Names,
    Operations,
)
from replicator.checks.facts import Fact, failed, ok, warning, wrong
from replicator.domain.errors import AccessRefused, ReplicatorError, TableMissing, Unreachable, WorldMismatch
from replicator.domain.identifiers import RuleName
from replicator.domain.shards.leases import KnownStream, StreamRef
from replicator.domain.targets import TargetId, parse_target

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from replicator.adapters.aws.clients import Place
    from replicator.domain.shards.leases import Pulse
    from replicator.settings import Settings

_TARGET = "target|"
_SHARD = "shard|"


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """One stream that was read, with its rows by sort key."""

    known: KnownStream
    rows: Mapping[str, Mapping[str, Any]]

    @property
    def stream(self) -> StreamRef:
        """Which stream it is."""
        return self.known.ref

    @property
    def targets(self) -> set[TargetId]:
        """Ids of the targets that have progress or a start here."""
        started = (key for key, row in self.rows.items() if key.startswith(_TARGET) and "started_at" in row)
        found = {parse_target(key.removeprefix(_TARGET)) for key in started}
        for row in self.rows.values():
            found |= checkpoints_of(row).keys()
        return {target for target in found if target is not None}

    @property
    def rules(self) -> set[str]:
        """Names of the rules that have progress here."""
        return {target.rule for target in self.targets}

    @property
    def shards(self) -> dict[str, Mapping[str, Any]]:
        """Rows by shard id."""
        return {key.removeprefix(_SHARD): row for key, row in self.rows.items() if key.startswith(_SHARD)}


def checkpoints_of(row: Mapping[str, Any]) -> dict[TargetId, str]:
    """Where targets stand in a shard's row, as it is stored; a name that is none is left to `check`."""
    stored = {
        parse_target(name.removeprefix(CHECKPOINT)): value.get("S", "")
        for name, value in row.items()
        if name.startswith(CHECKPOINT)
    }
    return {target: position for target, position in stored.items() if target is not None}


class Ledger:
    """The coordination rows of one group."""

    def __init__(self, settings: Settings, place: Place) -> None:
        self._client = place.dynamodb
        self._settings = settings
        self._table = settings.coordination.table
        self._names = Names(settings.group)
        self._where = f"coordination table {self._table} in {place.region_id}"
        self._rows = CoordinationTable(
            place.dynamodb, table=self._table, group=settings.group, region_id=place.region_id
        )
        self._registry = DynamoRegistry(self._rows)
        self.operations = Operations(self._rows)

    async def members(self) -> dict[str, int]:
        """The heartbeat counter of every worker that did not leave."""
        return {worker: pulse.beat for worker, pulse in (await self.pulses()).items()}

    async def pulses(self) -> dict[str, Pulse]:
        """The last pulse of every worker that did not leave."""
        return {str(worker): pulse for worker, pulse in (await DynamoMembership(self._rows).members()).items()}

    async def streams(self) -> list[StreamProgress]:
        """Every stream that the group ever read, oldest first."""
        found = []
        async for row in self._query(self._names.streams):
            known = self._rows.reader.known_stream(row)
            rows = {inner["sk"]["S"]: inner async for inner in self._query(self._names.stream(known.ref))}
            found.append(StreamProgress(known, rows))
        return sorted(found, key=lambda progress: progress.stream.generation)

    def problems(self, streams: Iterable[StreamProgress]) -> list[WorldMismatch]:
        """What is wrong with rows of these streams."""
        found = (self._rows.reader.problem(row) for progress in streams for row in progress.rows.values())
        return [problem for problem in found if problem is not None]

    async def living(self) -> list[str]:
        """Workers whose heartbeat moves within a lease time; returns at once when there are none at all."""
        before = await self.members()
        if not before:
            return []
        await asyncio.sleep(self._settings.coordination.lease.total_seconds())
        return [worker for worker, counter in (await self.members()).items() if before.get(worker) != counter]

    async def rename(self, old: str, new: str) -> int:
        """Hand progress over to another name; returns how many rows changed."""
        streams = [progress for progress in await self.streams() if old in progress.rules]
        for progress in streams:
            _refuse_two(progress, old, new)
        changed = 0
        for progress in streams:
            if old in progress.known.drained:
                await self._registry.remember_stream(progress.stream, {RuleName(new)})
            for key, row in progress.rows.items():
                changed += await self._rename_row(progress, key, row, old, new)
            await self._take_off(progress, old)
        return changed

    async def forget(self, old: str) -> int:
        """Delete the progress of a rule; returns how many rows changed."""
        changed = 0
        for progress in await self.streams():
            for key, row in progress.rows.items():
                targets = [name for name in row if _is_progress(name, old)]
                if targets:
                    removals = {f"#o{index}": name for index, name in enumerate(targets)}
                    await self._update(progress, key, f"REMOVE {', '.join(removals)}", removals, {})
                elif _belongs(key, _TARGET, old):
                    await self._delete(progress, key)
                else:
                    continue
                changed += 1
            await self._take_off(progress, old)
        return changed

    async def _take_off(self, progress: StreamProgress, rule: str) -> None:
        """Note no more that a rule is through with a stream."""
        if rule in progress.known.drained:
            await self._registry.forget_rule(progress.stream, RuleName(rule))

    async def _rename_row(self, progress: StreamProgress, key: str, row: Mapping[str, Any], old: str, new: str) -> int:
        if _belongs(key, _TARGET, old):
            started = {name: value for name, value in row.items() if name not in {"pk", "sk"}}
            names = {f"#a{index}": name for index, name in enumerate(started)}
            values = {f":a{index}": value for index, value in enumerate(started.values())}
            assignments = ", ".join(f"#a{index} = :a{index}" for index in range(len(started)))
            await self._update(progress, _renamed(key, _TARGET, new), f"SET {assignments}", names, values)
            await self._delete(progress, key)
            return 1
        moved = [name for name in row if _is_progress(name, old)]
        if not moved:
            return 0
        names = {f"#o{index}": name for index, name in enumerate(moved)}
        names |= {f"#n{index}": _renamed(name, f"{name.partition(':')[0]}:", new) for index, name in enumerate(moved)}
        values = {f":v{index}": row[name] for index, name in enumerate(moved)}
        sets = ", ".join(f"#n{index} = :v{index}" for index in range(len(moved)))
        removes = ", ".join(f"#o{index}" for index in range(len(moved)))
        await self._update(progress, key, f"SET {sets} REMOVE {removes}", names, values)
        return 1

    # -- calls -----------------------------------------------------------------------------------------------------

    async def _query(self, partition: str) -> AsyncIterator[Mapping[str, Any]]:
        request: dict[str, Any] = {
            "TableName": self._table,
            "ConsistentRead": True,
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": {":pk": {"S": partition}},
        }
        while True:
            answer = await self._call("Query", self._client.query, request)
            for row in member(answer, "Items", f"Query on the {self._where}"):
                yield row
            if not answer.get("LastEvaluatedKey"):
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def _update(
        self, progress: StreamProgress, key: str, update: str, names: dict[str, str], values: dict[str, Any]
    ) -> None:
        request: dict[str, Any] = {
            "TableName": self._table,
            "Key": self._key(progress, key),
            "UpdateExpression": update,
            "ExpressionAttributeNames": names,
        }
        if values:
            request["ExpressionAttributeValues"] = values
        await self._call("UpdateItem", self._client.update_item, request)

    async def _delete(self, progress: StreamProgress, key: str) -> None:
        request = {"TableName": self._table, "Key": self._key(progress, key)}
        await self._call("DeleteItem", self._client.delete_item, request)

    def _key(self, progress: StreamProgress, key: str) -> dict[str, Any]:
        return {"pk": {"S": self._names.stream(progress.stream)}, "sk": {"S": key}}

    async def _call(self, action: str, operation: Callable[..., Awaitable[Any]], request: dict[str, Any]) -> Any:
        try:
            return await operation(**request)
        except CLIENT_ERRORS as error:
            raise translate(error, f"{action} on the {self._where}") from error


def _belongs(name: str, prefix: str, rule: str) -> bool:
    return name.startswith(f"{prefix}{rule}/")


def _is_progress(name: str, rule: str) -> bool:
    """Whether an attribute of a shard's row is a position of the rule, or what it skips after a rewind."""
    return _belongs(name, CHECKPOINT, rule) or _belongs(name, REWIND, rule)


def _renamed(name: str, prefix: str, rule: str) -> str:
    return f"{prefix}{rule}/{name.partition('/')[2]}"


def _refuse_two(progress: StreamProgress, old: str, new: str) -> None:
    """Two positions of one target cannot become one."""
    for row in progress.rows.values():
        for name in row:
            if _belongs(name, CHECKPOINT, old) and _renamed(name, CHECKPOINT, new) in row:
                raise WorldMismatch(
                    f"Rule {new} has progress of its own on table {progress.stream.table} in {progress.stream.region}.",
                    advice=f"Keep it and run `replicator rules forget {old}`.",
                )


# -- facts for `check` ---------------------------------------------------------------------------------------------


async def progress_facts(settings: Settings, places: Mapping[str, Place]) -> list[Fact]:
    """Whether stored progress belongs to rules that are configured."""
    subject = f"progress of group {settings.group}"
    try:
        ledger = Ledger(settings, places[settings.coordination.region])
        streams = await ledger.streams()
    except (AccessRefused, TableMissing, Unreachable):
        return []  # the rows on the table itself and on its region tell it
    except ReplicatorError as error:
        return [failed(subject, "known rules", error)]
    configured = {rule.name for rule in settings.rules}
    facts = []
    for progress in streams:
        orphans = progress.rules - configured
        if orphans:
            facts.append(_orphan_fact(settings, progress, orphans))
    unreadable = [failed(subject, "rows readable", problem) for problem in ledger.problems(streams)]
    known = facts or [ok(subject, "known rules", f"{len(streams)} streams on record.")]
    return [*known, *(unreadable or [ok(subject, "rows readable")]), *await _standing_facts(ledger, subject)]


async def _standing_facts(ledger: Ledger, subject: str) -> list[Fact]:
    """What rests because an operator wants it so, or until one says something."""
    try:
        pauses, gaps = await ledger.operations.pauses(), await ledger.operations.gaps()
    except ReplicatorError as error:
        return [failed(subject, "rows readable", error)]
    paused = [
        warning(
            f"rule {pause.rule}",
            "not paused",
            f"It is paused. {pause.note}".strip(),
            f"Run `replicator resume {pause.rule}`.",
        )
        for pause in pauses
    ]
    lost = [stored for stored in gaps if stored.acknowledged_at is None]
    if not lost:
        return paused
    found = f"{len(lost)} losses that nobody has acknowledged, the first at {lost[0].gap.target_id}."
    return [*paused, warning(subject, "no open gaps", found, "Run `replicator gaps list`.")]


def _orphan_fact(settings: Settings, progress: StreamProgress, orphans: set[str]) -> Fact:
    stream, names = progress.stream, ", ".join(sorted(orphans))
    subject = f"progress on table {stream.table} in {stream.region}"
    here = {rule.name for rule in settings.rules if (stream.region, stream.table) in rule.sources}
    new = sorted(here - progress.rules)
    found = f"There is progress of {names}, which is not configured"
    remedy = f"Run `replicator rules rename {min(orphans)} NEW` or `replicator rules forget {min(orphans)}`."
    if new:
        found += f", while {', '.join(new)} has none on the same stream, so a start is refused"
        return wrong(subject, "known rules", f"{found}.", remedy)
    return warning(subject, "known rules", f"{found}.", remedy)

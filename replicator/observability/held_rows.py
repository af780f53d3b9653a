"""Everything that is held, as it is shown: what a look found, and what reading and writing run into meanwhile.

Invariant: a rule or target has one row at most, and only what the world has wrong makes one: what does not answer, or
refuses one record, is trouble, and holds nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from msgspec import Struct

from replicator.domain.errors import ReplicatorError, StreamUnusable
from replicator.domain.held import Cause, HeldId, Hold, cause_of
from replicator.domain.identifiers import TableName
from replicator.domain.rules import Rule, Target
from replicator.domain.targets import replica_id
from replicator.ports.services import ServiceId, ServiceKind

_OF_SOURCES = frozenset({ServiceKind.SOURCE, ServiceKind.DISCOVERY, ServiceKind.READING})
"""Services that every rule on a source needs."""


class HeldRow(Struct, frozen=True):
    """One rule or target that is held. `region`: where it would write, of a rule where it reads; "" when unknown."""

    held: HeldId
    region: str
    cause: Cause
    error: ReplicatorError
    since: float

    @property
    def sentence(self) -> str:
        """What is held and why, in one line."""
        name = self.held.rule if self.held.target is None else self.held.target.text
        on = f" on {self.held.table}" if self.held.table else ""
        return f"{name}{on} is held: {self.error.worker_sentence}"


class Held(Struct, frozen=True):
    """Something that a look found to be held, since when (monotonic)."""

    hold: Hold
    since: float


class Met(Struct, frozen=True):
    """Trouble that was met, since when (monotonic), with a service or with a target on one of a table's shards."""

    about: ServiceId | tuple[TableName, Target]
    error: ReplicatorError
    since: float


def rows_of(rules: Collection[Rule], told: Iterable[Held], met: Iterable[Met]) -> list[HeldRow]:
    """What is held now, rule by rule."""
    rows: dict[HeldId, HeldRow] = {}
    of_services = (row for each in met for row in _row(rules, each))
    for row in (*map(_told, told), *of_services):
        whole = HeldId(row.held.rule, row.held.table)
        if row.held not in rows and (row.held.target is None or whole not in rows):
            rows[row.held] = row
    return sorted(rows.values(), key=lambda row: (row.held.rule, row.held.table, str(row.held.target or "")))


def is_held(rule: Rule, rows: Collection[HeldRow]) -> bool:
    """Whether nothing of a rule can go on; of a mesh, nothing that is read in this region."""
    held = {row.held for row in rows}
    ids = [HeldId(rule.name, rule.table, target.target_id) for target in rule.targets]
    home = None if rule.mesh is None else replica_id(rule.name, rule.source, rule.table)
    return not held.isdisjoint({HeldId(rule.name, rule.table), HeldId(rule.name, rule.table, home)}) or all(
        each in held for each in ids
    )


def _told(each: Held) -> HeldRow:
    target = each.hold.held.target
    region = "" if target is None else target.region or ""
    return HeldRow(each.hold.held, region, each.hold.cause, each.hold.error, each.since)


def _row(rules: Iterable[Rule], met: Met) -> Iterator[HeldRow]:
    """What trouble holds: nothing, when it is not the world's."""
    cause, about = cause_of(met.error), met.about
    if cause is None:
        return
    if not isinstance(about, ServiceId):
        table, target = about
        yield HeldRow(HeldId(target.rule, table, target.target_id), target.region, cause, met.error, met.since)
        return
    for rule in rules:
        if (about.region, about.table) != (rule.source, rule.table):
            continue
        if about.kind in _OF_SOURCES or isinstance(met.error, StreamUnusable):
            home = None if rule.mesh is None else replica_id(rule.name, rule.source, rule.table)
            yield HeldRow(HeldId(rule.name, rule.table, home), rule.source, cause, met.error, met.since)
        elif about.target is not None and about.rule == rule.name:
            region = about.target.region or rule.source
            yield HeldRow(HeldId(rule.name, rule.table, about.target), region, cause, met.error, met.since)

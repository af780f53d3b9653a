"""One reading of a stream's rows, and what it means for rules. No calls: rows in, shards out.

Every target goes its own way from parents to children. Invariant: a shard is begun for a target only when every parent
is stored as finished for that target, or is known to be gone. A target that came late to a shard which left the stream
needs nothing of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from msgspec import Struct

from replicator.domain.identifiers import ShardId, WorkerId
from replicator.domain.progress import END, HORIZON
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.assignment import Load
from replicator.domain.shards.leases import LeaseRow, StreamState
from replicator.domain.shards.lineage import RETENTION_SECONDS, Graph, ancestors, childless, ready
from replicator.domain.shards.owed import START_TOLERANCE_SECONDS

NOTHING = StreamState({}, None, {}, at=0.0)
"""Before the rows were read for the first time."""


class Needs(Struct, frozen=True):
    """What one target needs of a stream's shards. `begun`: shards of which it has records."""

    finished: frozenset[ShardId]
    begun: frozenset[ShardId]


class Snapshot:
    """One reading of a stream's rows, for some rules."""

    def __init__(self, state: StreamState, rules: Sequence[Rule]) -> None:
        self.state = state
        self.rules = tuple(rules)
        self.rows = state.rows
        self.graph: Graph = {shard_id: row.shard for shard_id, row in state.rows.items()}

    @property
    def owners(self) -> set[WorkerId]:
        """Workers that own a shard or the discoverer's seat."""
        seat = self.state.seat
        owners = {row.owner for row in self.rows.values()} | {None if seat is None else seat.owner}
        return {owner for owner in owners if owner is not None}

    # -- one target ----------------------------------------------------------------------------------------------------

    def needs(self, target: Target) -> Needs:
        """What a target needs of each shard."""
        finished = frozenset(shard_id for shard_id, row in self.rows.items() if self._is_through(target, row))
        begun = frozenset(shard_id for shard_id, row in self.rows.items() if _is_begun(target, row))
        return Needs(finished, begun)

    def _is_through(self, target: Target, row: LeaseRow) -> bool:
        """Whether a target needs nothing more of a shard."""
        return _is_finished(target, row) or self._missed_nothing(target, row)

    def may_overtake(self, target: Target, shard_id: ShardId) -> bool:
        """Whether a parent may stand in the row that is unreadable; what was begun before may go on."""
        row = self.rows[shard_id]
        if self.state.unreadable is None or target.target_id in row.checkpoints:
            return False
        return any(parent not in self.rows for parent in row.shard.parents)

    def is_late(self, target: Target, shard_id: ShardId) -> bool:
        """Whether a target may find a shard gone without having missed it.

        Once the shard has vanished that is decided (`_missed_nothing`).
        """
        row = self.rows[shard_id]
        return not row.vanished and self._is_late(target, row)

    # -- one rule ------------------------------------------------------------------------------------------------------

    def finished(self, rule: Rule, row: LeaseRow) -> bool:
        """Whether a rule needs nothing more of a shard."""
        return all(self._is_through(target, row) for target in rule.targets)

    def read_out(self, rule: Rule) -> bool:
        """Whether every shard that is known was closed and read to its end for a rule."""
        return self.state.unreadable is None and all(
            (row.shard.closed or row.vanished) and self.finished(rule, row) for row in self.rows.values()
        )

    def _missed_nothing(self, target: Target, row: LeaseRow) -> bool:
        """Whether a shard left the stream before a late target could have been owed a record of it.

        A stream keeps a shard for a day behind its last record. One that was gone within a day of the target's start
        got its last record before that start.
        """
        if not row.vanished or not self._is_late(target, row):
            return False
        start = self.state.starts.get(target.target_id)
        return start is None or (
            row.vanished_at is not None and row.vanished_at <= start.started_at + RETENTION_SECONDS
        )

    def _is_late(self, target: Target, row: LeaseRow) -> bool:
        """Whether a target started when a shard was known to others, and read no shard that it comes from.

        A target that reads a parent is answerable for its children, however long it is there.
        """
        if target.target_id in row.checkpoints:
            return False
        start = self.state.starts.get(target.target_id)
        if start is None and not (row.checkpoints or self.state.starts):
            return False
        if start is not None and start.started_at <= row.found_at + START_TOLERANCE_SECONDS:
            return False
        return not any(target.target_id in self.rows[each].checkpoints for each in ancestors(self.graph, row.shard_id))

    # -- all rules -----------------------------------------------------------------------------------------------------

    def wanted(self, rules: Iterable[Rule]) -> dict[ShardId, list[Rule]]:
        """Shards that may be read now, for each rule with those of its targets that may read there; parents first."""
        wanted: dict[ShardId, list[Rule]] = {}
        known: dict[Needs, list[ShardId]] = {}
        for rule in rules:
            there: dict[ShardId, list[Target]] = {}
            for target in rule.targets:
                needs = self.needs(target)
                if needs not in known:  # most targets are equally far
                    known[needs] = ready(self.graph, needs.finished, needs.begun)
                for shard_id in known[needs]:
                    if not self.may_overtake(target, shard_id):
                        there.setdefault(shard_id, []).append(target)
            for shard_id, targets in there.items():
                wanted.setdefault(shard_id, []).append(rule.among(targets))
        order = sorted(wanted, key=lambda shard_id: (not self.graph[shard_id].closed, shard_id))
        return {shard_id: wanted[shard_id] for shard_id in order}

    def done(self, row: LeaseRow) -> bool:
        """Whether no rule needs anything more of a shard."""
        return all(self.finished(rule, row) for rule in self.rules)

    @property
    def open_shards(self) -> int:
        """How many shards still get records."""
        return sum(not (row.shard.closed or row.vanished) for row in self.rows.values())

    @property
    def ended(self) -> list[ShardId]:
        """Shards that no rule needs any more and that have no known child."""
        return childless(
            self.graph, [row.shard_id for row in self.rows.values() if not row.vanished and self.done(row)]
        )

    def may_get_children(self, row: LeaseRow) -> bool:
        """Whether a child of an ended shard may be listed late: while the stream lists it, and for a day after that."""
        return not row.vanished or (row.vanished_at is not None and self.state.at < row.vanished_at + RETENTION_SECONDS)

    def forgettable(self) -> list[LeaseRow]:
        """Rows of vanished shards that nothing needs: every target is through, and the children, if any, were begun.

        The last shard of a line stays while a child may come, and a child while its parent's row would miss it.

        A position of a rule that this worker does not run stays, until its shard is read or the rule is forgotten: it
        shows what that rule lost. What one of our rules was before, with another table or other members, needs nothing.
        """
        ours = {rule.name for rule in self.rules}
        waited_for = {
            parent
            for row in self.rows.values()
            if not row.checkpoints and not row.vanished
            for parent in row.shard.parents
        }
        expecting = {shard_id for shard_id, row in self.rows.items() if self.may_get_children(row)}
        last = expecting.intersection(childless(self.graph, self.rows))
        going = {
            row.shard_id: row
            for row in self.rows.values()
            if row.vanished
            and row.owner is None
            and row.shard_id not in waited_for | last
            and self.done(row)
            and all(place == END for target, place in row.checkpoints.items() if target.rule not in ours)
        }
        while True:
            staying = expecting - going.keys()
            kept = [shard_id for shard_id, row in going.items() if not staying.isdisjoint(row.shard.parents)]
            if not kept:
                return list(going.values())
            for shard_id in kept:
                del going[shard_id]

    def load(self, wanted: Collection[ShardId], *, awaited: int, mine: int) -> Load:
        """This stream's part of the group's work.

        `awaited`: how many shards have ended whose children are to come. `mine`: how many we read and keep.
        """
        here = [row for row in self.rows.values() if row.owner is not None or row.shard_id in wanted]
        held = Counter(row.owner for row in here if row.owner is not None)
        return Load(len(here) + awaited, held, mine)


def _is_finished(target: Target, row: LeaseRow) -> bool:
    """Whether a target is behind a shard's last record."""
    return row.checkpoints.get(target.target_id) == END


def _is_begun(target: Target, row: LeaseRow) -> bool:
    """Whether a target has got records of a shard.

    One that is at the horizon, as after a rewind, has not: it waits for the parents, which are read again, too.
    """
    place = row.checkpoints.get(target.target_id, HORIZON)
    return place == END or place.sequence is not None

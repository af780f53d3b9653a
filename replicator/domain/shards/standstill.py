"""Why a rule does not move on a stream: every shard that it still needs is being read, or has a reason here.

A pure function of one reading of the rows and of what the observer knows beside them, so a standstill shows whatever
keeps the worker that should move from saying so, and also where no worker reads anything. Invariant: of each shard
that a target needs, exactly one holds: it is read by a worker that lives, or it waits for something that `waits_of`
names; and a wait for parents ends at a shard of the other kinds.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct, field

from replicator.domain.identifiers import RegionId, RuleName, ShardId, WorkerId
from replicator.domain.progress import HORIZON
from replicator.domain.rules import Rule, Target, rests
from replicator.domain.shards.leases import LeaseRow
from replicator.domain.shards.lineage import childless, unfinished_parents
from replicator.domain.shards.snapshot import Snapshot
from replicator.domain.targets import TargetId, TargetKind

_NAMED = 3
"""So many shards are named in a sentence; the others are counted."""


class Why(enum.StrEnum):
    """What a rule waits for."""

    PAUSED = "paused"
    PARENTS = "parents"
    UNREADABLE_ROW = "unreadable row"
    OTHER_CONFIGURATION = "other configuration"
    LATE_TARGET = "late target"
    UNCLAIMED = "unclaimed"
    ENDING = "ending"
    MOTIONLESS = "motionless"
    NO_CHILD = "no child"
    NOT_STORED = "not stored"
    NO_SHARD = "no shard"


class Wait(Struct, frozen=True):
    """Why one shard is not read for a rule. `on`: the parents, the worker or the rules that it waits for.

    `instead`: what that worker reads the shard for, where it is the same mesh with other members.
    """

    why: Why
    on: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()


class Observed(Struct, frozen=True):
    """What a worker knows beside the rows.

    `reads`: what it reads itself, whose own watchdog reports it. `ending`: shards that it gives back, with the rules
    whose calls under way it waits for. `readable`: shards that were seen to be readable.
    `unstored`: shards that are listed and not stored yet, with the parents that hold them back; only the worker that
    lists the stream knows.
    """

    paused: Collection[RuleName] = ()
    resting: Collection[tuple[RuleName, RegionId]] = ()
    live: Collection[WorkerId] = ()
    reads: Collection[tuple[ShardId, TargetId]] = ()
    ending: Mapping[ShardId, tuple[RuleName, ...]] = field(default_factory=dict)
    readable: Collection[ShardId] = ()
    unstored: Mapping[ShardId, tuple[ShardId, ...]] = field(default_factory=dict)


class Standstill(Struct, frozen=True):
    """A rule that does not move on some shards of a stream; on the whole stream, if none is named."""

    rule: RuleName
    why: Why
    shards: tuple[ShardId, ...]
    reason: str
    remedy: str


class Patience(Struct, frozen=True):
    """For how long something may last before it is a standstill, in seconds.

    `children`: the end of a replaced stream has no children, and is left after a while.
    """

    stall: float
    children: float


def waits(snapshot: Snapshot, rule: Rule, observed: Observed) -> dict[ShardId, Wait]:
    """Why each shard that a rule needs is not read for some target of it; shards that are read for all are left out.

    Where targets wait for different things, a wait that is not for parents is the one to know of.
    """
    found: dict[ShardId, Wait] = {}
    for target in rule.targets:
        for shard_id, wait in waits_of(snapshot, target, observed).items():
            if shard_id not in found or found[shard_id].why is Why.PARENTS:
                found[shard_id] = wait
    return found


def waits_of(snapshot: Snapshot, target: Target, observed: Observed) -> dict[ShardId, Wait]:
    """Why each shard that a target needs is not read for it; shards that are being read are left out."""
    needs = snapshot.needs(target)
    parents = unfinished_parents(snapshot.graph, needs.finished, needs.begun)
    found: dict[ShardId, Wait] = {}
    for shard_id, row in snapshot.rows.items():
        if shard_id in needs.finished:
            continue
        if rests(target, observed.paused, observed.resting):
            found[shard_id] = Wait(Why.PAUSED)
        elif shard_id in parents:
            found[shard_id] = Wait(Why.PARENTS, parents[shard_id])
        elif shard_id in observed.ending:
            found[shard_id] = Wait(Why.ENDING, observed.ending[shard_id])
        elif (shard_id, target.target_id) not in observed.reads:
            wait = _wait(snapshot, target, row, observed)
            found.update({} if wait is None else {shard_id: wait})
    return found


def _wait(snapshot: Snapshot, target: Target, row: LeaseRow, observed: Observed) -> Wait | None:
    """Why a shard is not read although its parents are finished."""
    if snapshot.may_overtake(target, row.shard_id):
        return Wait(Why.UNREADABLE_ROW)
    if snapshot.is_late(target, row.shard_id) and row.shard_id not in observed.readable:
        return Wait(Why.LATE_TARGET)
    if row.owner is None or row.owner not in observed.live:
        return Wait(Why.UNCLAIMED)
    if target.target_id in row.serves:
        return None
    others = [each for each in row.serves if each.rule == target.rule and each.kind is TargetKind.MESH]
    return Wait(Why.OTHER_CONFIGURATION, (row.owner,), tuple(sorted(each.text for each in others)))


class Watch:
    """How long everything that a rule needs has stood still; remembers what it saw, and decides nothing else."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._since: dict[_Key, tuple[object, float]] = {}

    def look(self, snapshot: Snapshot, observed: Observed, now: float) -> list[Standstill]:
        """Standstills that last too long by now; `now` is in seconds of a clock that never jumps."""
        seen: dict[_Key, tuple[object, float]] = {}
        overdue: dict[tuple[RuleName, Wait], set[ShardId]] = {}
        for rule in snapshot.rules:
            for target_id, shard_id, wait, state in _signs(snapshot, rule, observed):
                key = rule.name, target_id, shard_id, wait
                before, since = self._since.get(key, (state, now))
                seen[key] = state, since if before == state else now
                patience = self._patience.children if wait.why is Why.NO_CHILD else self._patience.stall
                if now - seen[key][1] >= patience:
                    overdue.setdefault((rule.name, wait), set()).update(() if shard_id is None else (shard_id,))
        self._since = seen
        unreadable = snapshot.state.unreadable
        row = "" if unreadable is None else unreadable.sentence
        return [
            Standstill(rule, wait.why, tuple(sorted(shards)), *explain(wait, sorted(shards), row))
            for (rule, wait), shards in overdue.items()
        ]


_Key = tuple[RuleName, TargetId | None, ShardId | None, Wait]
"""What may be a standstill: of a rule's target, or of the rule as a whole."""

_Sign = tuple[TargetId | None, ShardId | None, Wait, object]
"""What may be a standstill, and what would have changed if it were none."""


def _signs(snapshot: Snapshot, rule: Rule, observed: Observed) -> Iterable[_Sign]:
    """Everything about a rule that may be a standstill."""
    if rule.name in observed.paused:
        return
    if not snapshot.rows and not observed.unstored:
        yield None, None, Wait(Why.NO_SHARD), ()
    for shard_id, parents in observed.unstored.items():
        yield None, shard_id, Wait(Why.NOT_STORED, parents), ()
    begotten = {parent for shard in snapshot.graph.values() for parent in shard.parents}
    for target in rule.targets:
        if rests(target, (), observed.resting):
            continue
        for sign in _signs_of(snapshot, target, begotten, observed):
            yield target.target_id, *sign


def _signs_of(
    snapshot: Snapshot, target: Target, begotten: Collection[ShardId], observed: Observed
) -> Iterable[tuple[ShardId, Wait, object]]:
    """What of a target may be a standstill. What waits for parents, waits for what is said of them."""
    needs = snapshot.needs(target)
    waiting = waits_of(snapshot, target, observed)
    for shard_id, wait in waiting.items():
        if wait.why is not Why.PARENTS:
            yield shard_id, wait, ()
    for shard_id, row in snapshot.rows.items():
        has_more = row.shard.closed or row.vanished or shard_id in begotten or _is_behind(target, row)
        if has_more and shard_id not in waiting and shard_id not in needs.finished:
            yield shard_id, Wait(Why.MOTIONLESS), row.checkpoints.get(target.target_id)
    for shard_id in childless(snapshot.graph, needs.finished):
        if snapshot.may_get_children(snapshot.rows[shard_id]):
            yield shard_id, Wait(Why.NO_CHILD), ()


def _is_behind(target: Target, row: LeaseRow) -> bool:
    """Whether another target has got records of an open shard that this one lacks."""
    most = max((place.order for place in row.checkpoints.values()), default=HORIZON.order)
    return row.checkpoints.get(target.target_id, HORIZON).order < most


# -- sentences ---------------------------------------------------------------------------------------------------------

_WORDS: Mapping[Why, tuple[str, str]] = {
    Why.PAUSED: ("The rule is paused.", "`replicator resume` lets it go on."),
    Why.PARENTS: (
        "{shards} cannot be read before the end of {on}.",
        "Nothing to do while the parents make progress.",
    ),
    Why.UNREADABLE_ROW: ("{shards} waits: a row that cannot be read may be the one of its parent.", "{row}"),
    Why.OTHER_CONFIGURATION: (
        "Worker {on} owns {shards} and does not read it for every target of this rule: its configuration is another.",
        "Give every worker of the group the same configuration; restart those with an older one.",
    ),
    Why.LATE_TARGET: (
        "A target that is new to {shards} waits: the stream lists it and does not let it be read.",
        "It continues when the shard can be read or is no longer listed; check the permissions on the stream.",
    ),
    Why.UNCLAIMED: (
        "No worker takes {shards}.",
        "See the logs of the workers for the reason, and the coordination table for throttling.",
    ),
    Why.ENDING: (
        "{shards} is being given back, which waits for calls of {on} that are under way and are not answered.",
        "Check the targets of {on} and the network, or restart this worker: another worker then takes the shard.",
    ),
    Why.MOTIONLESS: (
        "The position on {shards} does not move, although there is more to read: its end, or what others have got.",
        "The status of its owner shows what blocks the rule; restart that worker if nothing does.",
    ),
    Why.NO_CHILD: (
        "{shards} is read to its end; the stream lists no child of it and is not replaced.",
        "If the table's stream was disabled, enable it again; else its listing is late or wrong.",
    ),
    Why.NOT_STORED: (
        "{shards} is listed and waits: its parent {on} is neither listed nor proven gone.",
        "It continues when the parent is listed, is proven gone, or could be read for half a minute.",
    ),
    Why.NO_SHARD: ("No shard of the stream is known.", "Check that DescribeStream is allowed and lists shards."),
}

_STORING = (
    "{shards} is being released, and the coordination table does not accept its last checkpoints.",
    "Check the coordination table and the network, or restart this worker: another worker then takes the shard.",
)


def explain(wait: Wait, shards: Collection[ShardId], row: str = "") -> tuple[str, str]:
    """What happens, and what can be done about it. `row`: what is said of the row that cannot be read."""
    reason, remedy = _WORDS[wait.why] if wait.on or wait.why is not Why.ENDING else _STORING
    shown = _shown(shards, "shard ")
    if reason.startswith("{"):
        shown = shown[:1].upper() + shown[1:]
    if wait.instead:
        reason += " It reads it for {instead}: nothing there counts for other members."
    said = reason.format(shards=shown, on=_shown(wait.on), instead=_shown(wait.instead))
    return said, remedy.format(on=_shown(wait.on), row=row)


def _shown(names: Collection[str], what: str = "") -> str:
    listed = list(names)
    shown = ", ".join(f"{what}{name}" for name in listed[:_NAMED])
    return shown if len(listed) <= _NAMED else f"{shown} and {len(listed) - _NAMED} more"

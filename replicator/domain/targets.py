"""Kinds of targets, and the identity under which a target's progress is stored and shown.

Invariant: the text of an identity is made and parsed here and nowhere else, and two targets have one identity only when
a record that is done for the one is done for the other.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from hashlib import sha256

from msgspec import Struct

from replicator.domain.identifiers import RegionId, RuleName, TableName

_PARTS = 3
_DIGEST_DIGITS = 8
_MESH_OF_EARLIER = "mesh"


class TargetKind(enum.StrEnum):
    """What a target is. What drives each kind is in `engine/applying/kinds.py`."""

    REPLICA = "replica"
    """A table in a region, with the caches beside it."""
    SOURCE_CACHES = "source_caches"
    """The caches beside the source of a rule of mode `ordered`."""
    EVENTS = "events"
    """A sink of events: a queue, a topic, a stream or an address."""
    MESH = "mesh"
    """The regions of a rule together: a record is done when every one of them has answered."""
    EARLIER = "earlier"
    """A target as earlier versions stored it: a rule and a region, without the table or the members of the mesh."""


class TargetId(Struct, frozen=True, order=True):
    """Identity of a target: whose progress on a stream something is.

    `name` is `region:table` of a replica, `region:sink` of a sink of events, the region of caches beside a source, and
    the members of a mesh.
    """

    rule: RuleName
    kind: TargetKind
    name: str

    @property
    def text(self) -> str:
        """How it is stored and shown: `rule/kind/name`; `rule/name` as earlier versions stored it."""
        if self.kind is TargetKind.EARLIER:
            return f"{self.rule}/{self.name}"
        return f"{self.rule}/{self.kind}/{self.name}"

    def __str__(self) -> str:
        return self.text

    @property
    def region(self) -> RegionId | None:
        """The region that it is about; None of a mesh, which is read in each of its regions."""
        # Earlier versions wrote a mesh without its members.
        if self.kind is TargetKind.MESH or (self.kind is TargetKind.EARLIER and self.name == _MESH_OF_EARLIER):
            return None
        return RegionId(self.name.partition(":")[0])

    @property
    def label(self) -> str | None:
        """How metrics name it beside its rule; None of a mesh. A region has one replica, and may have many sinks."""
        return self.name if self.kind is TargetKind.EVENTS else self.region

    def of_rule(self, rule: RuleName) -> TargetId:
        """The same target under another name of its rule."""
        return TargetId(rule, self.kind, self.name)

    @property
    def earlier(self) -> TargetId:
        """The identity that earlier versions gave this target; they gave it to others of its kind, too."""
        return TargetId(self.rule, TargetKind.EARLIER, self.region or _MESH_OF_EARLIER)


def replica_id(rule: RuleName, region: RegionId, table: TableName) -> TargetId:
    """A replica: another table is another target."""
    return TargetId(rule, TargetKind.REPLICA, f"{region}:{table}")


def source_caches_id(rule: RuleName, region: RegionId) -> TargetId:
    """The caches beside a source; its table is that of the stream."""
    return TargetId(rule, TargetKind.SOURCE_CACHES, region)


def events_id(rule: RuleName, region: RegionId, sink: str) -> TargetId:
    """A sink of events: another name is another target."""
    return TargetId(rule, TargetKind.EVENTS, f"{region}:{sink}")


def mesh_id(rule: RuleName, members: Iterable[tuple[RegionId, TableName]]) -> TargetId:
    """A mesh: other members are another target, because what is done for these need not be done for those.

    Tables are part of the name when they differ; as a digest, since eight of them may be longer than a row's key.
    """
    tables = dict(members)
    name = "+".join(sorted(tables))
    if len(set(tables.values())) > 1:
        listed = "|".join(f"{region}:{table}" for region, table in sorted(tables.items()))
        name += f"#{sha256(listed.encode()).hexdigest()[:_DIGEST_DIGITS]}"
    return TargetId(rule, TargetKind.MESH, name)


def parse_target(text: str) -> TargetId | None:
    """An identity from its text, of this version or of an earlier one; None when the text is none."""
    parts = text.split("/", maxsplit=_PARTS - 1)
    if not all(parts):
        return None
    if len(parts) == _PARTS and parts[1] in _KINDS:
        return TargetId(RuleName(parts[0]), TargetKind(parts[1]), parts[2])
    if len(parts) == _PARTS - 1:
        return TargetId(RuleName(parts[0]), TargetKind.EARLIER, parts[1])
    return None


_KINDS = frozenset(TargetKind) - {TargetKind.EARLIER}

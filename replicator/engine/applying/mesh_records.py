"""One record of a mesh as its driver carries it out: settled at home, then delivered to one region after the other.

Invariant: what is kept of a record between two tries (`Begun`) is small and holds no image.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Protocol, TypeVar

from replicator.domain.identifiers import RegionId
from replicator.domain.image import same_content
from replicator.domain.modes.active_active import replicate as active_active
from replicator.domain.modes.active_active.classify import Origin, classify
from replicator.domain.modes.active_active.echoes import overwrites_unseen
from replicator.domain.modes.active_active.mesh import Mesh, Write
from replicator.domain.modes.active_active.replicate import Ending, Finished
from replicator.domain.modes.active_active.usual import is_usual
from replicator.domain.modes.ordered import Effect
from replicator.domain.modes.requests import RegionSteps, Steps
from replicator.domain.modes.versioned import replicate as versioned
from replicator.domain.modes.versioned.own_writes import OwnWrites
from replicator.domain.modes.versioned.ranks import rank_of
from replicator.domain.modes.versioned.replicate import Joined, VersionedMesh
from replicator.domain.records import ChangeRecord
from replicator.engine.applying.context import Begun

S = TypeVar("S")

_EFFECTS: Mapping[Ending, Effect] = {
    Ending.PUT: Effect.APPLIED,
    Ending.DELETED: Effect.DELETED,
    Ending.SUPERSEDED: Effect.STALE,
    Ending.BEATEN: Effect.STALE,
    Ending.GONE: Effect.STALE,
    Ending.VERIFIED: Effect.ECHO,
}


class MeshRecord(Protocol[S]):
    """What one record asks of the regions of its mesh."""

    @property
    def is_content_changed(self) -> bool:
        """Whether it changed more than the stamp."""

    @property
    def is_passed(self) -> bool:
        """Whether it asks no region for anything: a write of the daemon that nothing is to be said about."""

    @property
    def usual(self) -> Write | None:
        """The write, if it may go the short way of `usual.py`."""

    @property
    def replaced(self) -> tuple[str, ...]:
        """What the record replaced knowingly, as a row notes it (`OwedKey.replaced`)."""

    @property
    def left(self) -> str | None:
        """What other regions are brought for it, likewise (`OwedKey.left`)."""

    def overtakes(self, decided: str) -> bool:
        """Whether it shows a write of another region, above what was decided here, that comes to all from there."""

    def decided(self, settled: S) -> str:
        """What a row's version says beside the record's place: what was decided about it, if that may change."""

    def settle(self) -> Generator[Any, Any, S | Effect]:
        """Ask the home region: the effect if that is all, else what is to be delivered."""

    def deliver(self, region: RegionId, settled: S) -> Generator[Any, Any, Effect]:
        """Bring it to one other region."""

    def finish(self, begun: Begun) -> Effect:
        """What the record did to its mesh, once every region has answered."""


class ActiveRecord:
    """A record of mode `active-active`."""

    replaced = ()
    left = None

    @property
    def is_content_changed(self) -> bool:
        """By the hashes of both images."""
        old, new = self._write.old, self._write.new
        return (None if old is None else old.content) != (None if new is None else new.content)

    @property
    def is_passed(self) -> bool:
        """Whether the daemon wrote over an item, and knew of all that it replaced."""
        old, new = self._write.old, self._write.new
        if old is None or new is None or self.usual is not None:
            return False
        is_echo = classify(old, new, by_ttl=False) is Origin.ECHO_MODIFY
        return is_echo and not overwrites_unseen(old, new)

    def overtakes(self, decided: str) -> bool:
        """By its stamp, or by the mark of what it removed; one that was repaired since has a lesser version."""
        shown = self._write.new or self._write.old
        version = None if shown is None else shown.version
        return version is not None and version.region != self._mesh.home and version.text > decided

    def decided(self, settled: active_active.Settled) -> str:
        """Its version: a record that is evaluated again, because its item was gone, may be given a greater one."""
        return settled.owed_version

    def __init__(self, record: ChangeRecord, mesh: Mesh) -> None:
        self._mesh = mesh
        self._write = mesh.write(record)
        self.usual = self._write if is_usual(mesh, self._write) else None

    def settle(self) -> Steps[active_active.Settled | Effect]:
        """Give a local write its version at home, or verify a write of the daemon."""
        settled = yield from active_active.settle(self._mesh, self._write)
        return _EFFECTS[settled.ending] if isinstance(settled, Finished) else settled

    def deliver(self, region: RegionId, settled: active_active.Settled) -> Steps[Effect]:
        """Bring a settled write to one other region."""
        yield from active_active.deliver(self._mesh, region, self._write, settled)
        return _EFFECTS[settled.finished.ending]

    def finish(self, begun: Begun) -> Effect:
        """The effect of a put or of a delete."""
        return _EFFECTS[begun.settled.finished.ending]


class VersionedRecord:
    """A record of mode `versioned`; `own_writes` remembers where its image was, as of `now`."""

    usual = None

    @property
    def is_passed(self) -> bool:
        """Whether this process brought its image to every region, the home region too, over a lesser one there."""
        write, mesh = self._write, self._mesh
        if not self._known or write.old is None or write.new is None:
            return False
        rank = rank_of(mesh.version, write.new)
        is_everywhere = all((region, rank) in self._known for region in (mesh.home, *mesh.others))
        return is_everywhere and not versioned.regressed(mesh, write.old, write.new)

    def overtakes(self, decided: str) -> bool:
        """Never: every record is brought to all regions, whichever region's write it shows."""
        del decided
        return False

    def __init__(self, record: ChangeRecord, mesh: VersionedMesh, own_writes: OwnWrites, now: float) -> None:
        self._mesh = mesh
        self._record = record
        self._write = versioned.write_of(record)
        self._own_writes = own_writes
        self._now = now
        self._known = own_writes.known(record.key, now)

    @property
    def is_content_changed(self) -> bool:
        """By both images, whatever `_rep` they have."""
        old, new = self._record.old, self._record.new
        return not (old is new if old is None or new is None else same_content(old, new))

    @property
    def replaced(self) -> tuple[str, ...]:
        """The mark of the image that it replaced knowingly, if there was one."""
        return versioned.replaced_by(self._mesh, self._write)

    @property
    def left(self) -> str:
        """The mark of the image that it left, or that was put back for it."""
        return versioned.left_by(self._mesh, self._write)

    def decided(self, settled: versioned.Settled) -> str:
        """Nothing: its rank is its own."""
        del settled
        return ""

    def settle(self) -> RegionSteps[versioned.Settled | Effect]:
        """Ask the home region, where a delete, a write to be taken back and a create below a tombstone end first."""
        settled = yield from versioned.settle(self._mesh, self._write, self._known)
        return self._joined(settled) if isinstance(settled, Joined) else settled

    def deliver(self, region: RegionId, settled: versioned.Settled) -> RegionSteps[Effect]:
        """Let one other region hold the image, or a greater one."""
        del settled  # it depends on the record alone
        return (yield from versioned.deliver(self._mesh, region, self._write, self._known))

    def finish(self, begun: Begun) -> Effect:
        """The strongest effect of all regions; what a region is owed is not known to be there."""
        answered = {region: effect for region, effect in begun.answered.items() if effect is not Effect.OWED}
        return self._joined(begun.settled.joined(self._mesh, answered))

    def _joined(self, joined: Joined) -> Effect:
        self._own_writes.note(self._write.key, joined, self._now)
        return strongest(joined, ours=(self._mesh.home, joined.rank) in self._known)


def strongest(joined: Joined, *, ours: bool = False) -> Effect:
    """What a record did to its mesh, in one word. `ours`: this process itself had brought it to the home region."""
    for effect in (Effect.APPLIED, Effect.DELETED):
        if effect in joined.effects.values():
            return effect
    return Effect.ECHO if ours else Effect.STALE

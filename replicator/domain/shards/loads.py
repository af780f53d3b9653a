"""How many shards each worker reads, as the assignment sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable

from replicator.domain.identifiers import ShardId, WorkerId
from replicator.domain.shards.assignment import Load


class Loads:
    """The work of the whole group: the coordinators of a process share what they see and do."""

    def __init__(self) -> None:
        self._loads: dict[Hashable, Load] = {}
        self._moving: dict[Hashable, frozenset[ShardId]] = {}

    def note(self, source: Hashable, load: Load, moving: Collection[ShardId]) -> None:
        """What a coordinator sees of its stream, and which shards of it we hand over: until they are taken.

        A coordinator adds what it decides before it acts: all of a process see the same surplus.
        """
        self._loads[source] = load
        self._moving[source] = frozenset(moving)

    def moving(self, source: Hashable) -> frozenset[ShardId]:
        """Shards of one stream that we hand over."""
        return self._moving.get(source, frozenset())

    @property
    def moves(self) -> int:
        """How many shards we hand over, of all streams."""
        return sum(map(len, self._moving.values()))

    def leave(self, source: Hashable) -> None:
        """A coordinator looks at its stream no more."""
        self._loads.pop(source, None)
        self._moving.pop(source, None)

    @property
    def all(self) -> Load:
        """Over all streams."""
        loads = self._loads.values()
        held = sum((Counter(load.held) for load in loads), Counter[WorkerId]())
        return Load(sum(load.total for load in loads), held, sum(load.mine or 0 for load in loads))

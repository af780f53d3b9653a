"""A stream's shards with all they ever held, how its endpoint lists them, and a reader that follows the lineage.

The history is made from a seed: shards split, merge and roll; the oldest may be trimmed. The endpoint lies as real ones
do: a page leaves shards out, shows a parent as open that has a child, names a parent that cannot be, or, of a shard
that is being read, one that is none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from random import Random

from replicator.domain.identifiers import ShardId
from replicator.domain.shards import lineage
from replicator.domain.shards.lineage import Graph, Shard
from replicator.domain.values import replace

SLOTS = 8
"""Keys; a shard holds a range of them."""


@dataclass(frozen=True, slots=True)
class Part:
    """One shard as it truly is: its records are (slot, sequence number)."""

    shard: Shard
    slots: tuple[int, ...]
    records: tuple[tuple[int, int], ...]


class History:
    """All shards there ever were, oldest first, and which of them are trimmed."""

    def __init__(self, random: Random) -> None:
        self.parts: dict[ShardId, Part] = {}
        self._random = random
        self._sequence = 0
        half = SLOTS // 2
        leaves = [self._open((), tuple(range(half))), self._open((), tuple(range(half, SLOTS)))]
        for _ in range(random.randint(2, 9)):
            leaves = self._changed(leaves)
        cut = random.choice((0, 0, 1, 2, 4))
        closed = [shard_id for shard_id, part in self.parts.items() if part.shard.closed]
        self.trimmed = frozenset(closed[:cut])
        self.left = {shard_id: part for shard_id, part in self.parts.items() if shard_id not in self.trimmed}

    def _open(self, parents: tuple[ShardId, ...], slots: tuple[int, ...]) -> ShardId:
        shard_id = ShardId(f"shard-{len(self.parts):03}")
        records = tuple((self._random.choice(slots), self._next()) for _ in range(self._random.randint(0, 4)))
        self.parts[shard_id] = Part(Shard(shard_id, parents), slots, records)
        return shard_id

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _changed(self, leaves: list[ShardId]) -> list[ShardId]:
        """One leaf rolls or splits, or two merge."""
        one = self._random.choice(leaves)
        slots = self.parts[one].slots
        rest = [leaf for leaf in leaves if leaf != one]
        what = self._random.choice(("roll", "split", "merge"))
        if what == "merge" and rest:
            other = self._random.choice(rest)
            rest.remove(other)
            born = [self._open((one, other), (*slots, *self.parts[other].slots))]
            self._close(other)
        elif what == "split" and len(slots) > 1:
            born = [self._open((one,), slots[: len(slots) // 2]), self._open((one,), slots[len(slots) // 2 :])]
        else:
            born = [self._open((one,), slots)]
        self._close(one)
        return [*rest, *born]

    def _close(self, shard_id: ShardId) -> None:
        part = self.parts[shard_id]
        self.parts[shard_id] = replace(part, shard=replace(part.shard, closed=True))

    def page(self, begun: Collection[ShardId]) -> list[Shard]:
        """What one listing shows: some shards, twice, in any order, some of them wrong."""
        parts = self._random.choices(list(self.left.values()), k=self._random.randint(0, 2 * len(self.left)))
        return [self._told(part, begun) for part in parts]

    def listing(self) -> list[Shard]:
        """Every shard, still with lies about what is open."""
        parts = list(self.left.values())
        self._random.shuffle(parts)
        return [replace(part.shard, closed=part.shard.closed and self._is_leaf(part)) for part in parts]

    def _is_leaf(self, part: Part) -> bool:
        return all(part.shard.shard_id not in other.shard.parents for other in self.parts.values())

    def _told(self, part: Part, begun: Collection[ShardId]) -> Shard:
        shard = part.shard
        match self._random.randrange(8):
            case 0 | 1:
                return replace(shard, closed=False)
            case 2:
                return replace(shard, parents=(*shard.parents, shard.shard_id))
            case 3:
                return replace(shard, parents=(*shard.parents, *self._descendants(shard.shard_id)[:1]))
            case 4 if shard.shard_id in begun:
                elder = [shard_id for shard_id in self.left if shard_id < shard.shard_id]
                return replace(shard, parents=(*shard.parents, *self._random.sample(elder, min(1, len(elder)))))
        return shard

    def _descendants(self, shard_id: ShardId) -> list[ShardId]:
        """Listed shards that come from this one, in any order: as its parents they would close a circle."""
        found = {shard_id}
        for part in self.left.values():
            if found.intersection(part.shard.parents):
                found.add(part.shard.shard_id)
        listed = sorted(found - {shard_id})
        self._random.shuffle(listed)
        return listed


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules the reader follows; tests replace one to show what it is for."""

    merged: Callable[[Graph, Iterable[Shard]], dict[ShardId, Shard]] = lineage.merged
    ready: Callable[[Graph, Collection[ShardId], Collection[ShardId]], list[ShardId]] = lineage.ready
    unproven: Callable[[Graph, Collection[ShardId]], set[ShardId]] = lineage.unproven
    storable: Callable[[Graph, Collection[ShardId], Collection[ShardId]], list[Shard]] = lineage.storable
    childless: Callable[[Graph, Collection[ShardId]], list[ShardId]] = lineage.childless
    begins_at_latest: bool = False
    """Shards that are found later are begun at their latest record."""


PRODUCTION = Rules()


@dataclass(slots=True)
class Reader:
    """A discoverer and a worker in one: it stores what is safe, and reads what is ready, a record at a time."""

    history: History
    random: Random
    rules: Rules = PRODUCTION
    seen: dict[ShardId, Shard] = field(default_factory=dict)
    stored: dict[ShardId, Shard] = field(default_factory=dict)
    gone: set[ShardId] = field(default_factory=set)
    places: dict[ShardId, int] = field(default_factory=dict)
    finished: set[ShardId] = field(default_factory=set)
    read: list[tuple[int, int]] = field(default_factory=list)

    def look(self, shards: Iterable[Shard], patience: float) -> None:
        """Take a listing in, ask for parents it leaves open (each by that chance), and store what is safe."""
        self.seen = self.rules.merged(self.seen, shards)
        for parent in sorted(self.rules.unproven(self.seen, self.stored)):
            if self.random.random() < patience and parent in self.history.trimmed:
                self.gone.add(parent)
        self.stored = self.rules.merged(self.stored, [self.seen[shard_id] for shard_id in sorted(self.stored)])
        self.stored = self.rules.merged(self.stored, self.rules.storable(self.seen, self.stored, self.gone))

    def step(self) -> bool:
        """Read one record of some shard that is ready, or find its end; False when there is nothing to do."""
        ready = self.rules.ready(self.stored, self.finished, self.begun)
        choice = [shard_id for shard_id in ready if self._has_work(shard_id)]
        if not choice:
            return False
        shard_id = self.random.choice(choice)
        records, place = self.history.parts[shard_id].records, self._place(shard_id)
        if place < len(records):
            self.read.append(records[place])
            self.places[shard_id] = place + 1
        else:
            self.finished.add(shard_id)
        return True

    @property
    def begun(self) -> set[ShardId]:
        """Shards of which records were read."""
        return {shard_id for shard_id, place in self.places.items() if place}

    def _place(self, shard_id: ShardId) -> int:
        at_latest = self.rules.begins_at_latest and self.stored[shard_id].parents
        return self.places.setdefault(shard_id, len(self.history.parts[shard_id].records) if at_latest else 0)

    def _has_work(self, shard_id: ShardId) -> bool:
        part = self.history.parts[shard_id]
        return self._place(shard_id) < len(part.records) or (part.shard.closed and self.stored[shard_id].closed)

    def run(self) -> None:
        """Work while pages come in wrong, then to the end once listings are whole."""
        for _ in range(self.random.randint(0, 30)):
            if self.random.random() < 0.4:
                self.look(self.history.page(self.begun), 0.5)
            self.step()
        for _ in range(3):
            self.look(self.history.listing(), 1.0)
            while self.step():
                pass

    def wrong(self) -> str | None:
        """What the reader did wrong, if anything."""
        wanted = {record for part in self.history.left.values() for record in part.records}
        if len(set(self.read)) < len(self.read):
            return "a record was read twice"
        if set(self.read) != wanted:
            return "records were skipped"
        for slot in range(SLOTS):
            numbers = [number for key, number in self.read if key == slot]
            if numbers != sorted(numbers):
                return "a child was read before its parent's end"
        closed = {shard_id for shard_id, part in self.history.left.items() if part.shard.closed}
        if self.finished != closed:
            return "a shard was never finished"
        if self.rules.childless(self.stored, self.finished):
            return "children are sought that are known"
        return None


def told(seed: int, rules: Rules = PRODUCTION) -> str | None:
    """What goes wrong in the history of this seed."""
    random = Random(seed)
    reader = Reader(History(random), random, rules)
    reader.run()
    return reader.wrong()

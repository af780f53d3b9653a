"""The shard graph of a stream: what is known of it, what may be read now, and whose children are still to be found.

Listings come in pages, late, inconsistent and sometimes contradictory, so knowledge only grows: a link to a parent that
was seen once stays, and a shard that was closed once stays closed. Invariant: a shard is ready only when every parent
was applied to its end, or is known to be gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from replicator.domain.records import SequenceNumber, ShardId


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as the stream lists it.

    `parents`: none, one, or two after a merge. `closed`: it has an ending sequence number. `first`: its starting
    sequence number; None when the endpoint does not tell.
    """

    shard_id: ShardId
    parents: tuple[ShardId, ...] = ()
    closed: bool = False
    first: SequenceNumber | None = None


Graph = Mapping[ShardId, Shard]
"""What is known of a stream's shards, by id."""


def merged(known: Graph, seen: Iterable[Shard]) -> dict[ShardId, Shard]:
    """The graph with what was just seen; a shard that has a child is closed, whatever the listing says of it."""
    graph = dict(known)
    for shard in seen:
        old = graph.get(shard.shard_id)
        graph[shard.shard_id] = shard if old is None else _grown(old, shard)
    parents = {parent for shard in graph.values() for parent in shard.parents}
    for shard_id in parents & graph.keys():
        shard = graph[shard_id]
        if not shard.closed:
            graph[shard_id] = Shard(shard_id, shard.parents, closed=True, first=shard.first)
    return graph


def _grown(old: Shard, new: Shard) -> Shard:
    return Shard(
        old.shard_id,
        parents=tuple(dict.fromkeys((*old.parents, *new.parents))),
        closed=old.closed or new.closed,
        first=old.first or new.first,
    )


def ready(graph: Graph, finished: Collection[ShardId]) -> list[ShardId]:
    """Unfinished shards that may be read: every parent is finished, or is not in the graph. Parents come first.

    A parent that is not in the graph was proven gone before its child was taken into the graph (`unproven`).
    """
    waiting = [
        shard
        for shard in graph.values()
        if shard.shard_id not in finished
        and all(parent in finished for parent in shard.parents if parent in graph)
    ]
    return [shard.shard_id for shard in sorted(waiting, key=lambda shard: (not shard.closed, shard.shard_id))]


def unproven(graph: Graph) -> set[ShardId]:
    """Parents that are named but not in the graph: listed late, or gone; to be asked for before a child is taken in."""
    return {parent for shard in graph.values() for parent in shard.parents if parent not in graph}


def childless(graph: Graph, ended: Collection[ShardId]) -> list[ShardId]:
    """Shards of `ended` that have no known child yet: their children are listed late."""
    parents = {parent for shard in graph.values() for parent in shard.parents}
    return sorted(shard_id for shard_id in ended if shard_id not in parents)

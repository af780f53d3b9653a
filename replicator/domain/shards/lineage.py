"""The shard graph of a stream: what is known of it, what may be read now, and whose children are still to be found.

Listings come in pages, late, inconsistent and sometimes contradictory, so knowledge only grows: a link to a parent that
was seen once stays, and a shard that was closed once stays closed. Invariant: a shard is begun only when every parent
was applied to its end, or is known to be gone.

Links that run in a circle contradict each other, and following them all would block their shards for ever. Of such a
circle those links count that lead from a smaller id to a greater one: a stream's ids grow with time, and every worker
comes to the same answer. What is stored stays as it was seen, so a contradiction is judged anew with all that is known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from replicator.domain.identifiers import SequenceNumber, ShardId
from replicator.domain.values import replace

RETENTION_SECONDS = 24 * 3600.0
"""A stream keeps its records for so long at least, and a shard for so long behind its last record."""


class Shard(Struct, frozen=True):
    """A shard as the stream lists it.

    `parents`: none, one, or two after a merge. `closed`: it has an ending sequence number. `first`: its starting
    sequence number; None when the endpoint does not state it.
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
    for shard_id in _having_children(graph):
        if not graph[shard_id].closed:
            graph[shard_id] = replace(graph[shard_id], closed=True)
    return graph


def _grown(old: Shard, new: Shard) -> Shard:
    return Shard(
        old.shard_id,
        parents=tuple(dict.fromkeys((*old.parents, *new.parents))),
        closed=old.closed or new.closed,
        first=old.first or new.first,
    )


def ready(graph: Graph, finished: Collection[ShardId], begun: Collection[ShardId] = ()) -> list[ShardId]:
    """Unfinished shards that may be read: every parent is finished, or is not in the graph. Closed ones come first.

    A parent that is not in the graph was proven gone before its child was taken into the graph (`storable`). A shard
    that was `begun` goes on whatever is listed of its parents since: it was begun when they were finished, so what
    contradicts that is a mistake, and such a parent may stay open for ever.
    """
    waiting = unfinished_parents(graph, finished, begun)
    left = [shard for shard_id, shard in graph.items() if shard_id not in waiting and shard_id not in finished]
    return [shard.shard_id for shard in sorted(left, key=lambda shard: (not shard.closed, shard.shard_id))]


def unfinished_parents(
    graph: Graph, finished: Collection[ShardId], begun: Collection[ShardId] = ()
) -> dict[ShardId, tuple[ShardId, ...]]:
    """Unfinished shards that wait, with the parents that they wait for."""
    done, going = frozenset(finished), frozenset(begun)
    left = {
        shard_id: tuple(parent for parent in parents if parent not in done)
        for shard_id, parents in _links(graph).items()
        if shard_id not in done and shard_id not in going
    }
    return {shard_id: parents for shard_id, parents in left.items() if parents}


def unproven(graph: Graph, stored: Collection[ShardId] = ()) -> set[ShardId]:
    """Parents that are not in the graph: listed late, or gone; to be asked for before their child is taken in.

    Of shards that are `stored` this was asked before.
    """
    return {
        parent
        for shard in graph.values()
        if shard.shard_id not in stored
        for parent in shard.parents
        if parent not in graph
    }


def storable(graph: Graph, stored: Collection[ShardId], gone: Collection[ShardId]) -> list[Shard]:
    """Seen shards that may be stored, in this order: each parent is stored, proven gone, or is before its child.

    A child stored without its parent would be ready at once and overtake it, so a parent that waits makes its
    descendants wait.
    """
    links = _links(graph)
    safe = {*stored, *gone}
    unsafe = [shard for shard_id, shard in sorted(graph.items()) if shard_id not in safe]
    order: list[Shard] = []
    while True:
        waiting: list[Shard] = []
        for shard in unsafe:
            missing = (parent for parent in shard.parents if parent not in graph)
            if safe.issuperset(links[shard.shard_id]) and safe.issuperset(missing):
                order.append(shard)
                safe.add(shard.shard_id)
            else:
                waiting.append(shard)
        if len(waiting) == len(unsafe):
            return order
        unsafe = waiting


def childless(graph: Graph, ended: Collection[ShardId]) -> list[ShardId]:
    """Shards of `ended` that have no known child yet: their children are listed late."""
    return sorted(frozenset(ended) - _having_children(graph))


def ancestors(graph: Graph, shard_id: ShardId) -> set[ShardId]:
    """Shards of the graph that a shard comes from, over any number of generations."""
    seen: set[ShardId] = set()
    left = [shard_id]
    while left:
        for parent in graph[left.pop()].parents:
            if parent in graph and parent not in seen:
                seen.add(parent)
                left.append(parent)
    return seen


def _having_children(graph: Graph) -> set[ShardId]:
    return {parent for parents in _links(graph).values() for parent in parents}


def _links(graph: Graph) -> dict[ShardId, tuple[ShardId, ...]]:
    """Each shard's parents that are in the graph, without links that contradict others.

    Every circle has a link that does not lead to a greater id, so without those no circle is left.
    """
    return {
        shard_id: tuple(
            parent
            for parent in shard.parents
            if parent in graph and (parent < shard_id or not _descends(graph, parent, shard_id))
        )
        for shard_id, shard in graph.items()
    }


def _descends(graph: Graph, shard_id: ShardId, ancestor: ShardId) -> bool:
    """Whether a shard is the other one, or comes from it over any number of generations."""
    return ancestor == shard_id or ancestor in ancestors(graph, shard_id)

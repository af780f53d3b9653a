"""All regions of `active_world`, as they were met in one search: every place, and what every place answers.

Invariant: what is met twice has one number, so that a state is a tuple of small integers, and a request is carried out
once for every place.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator.domain.conflicts import LogConflict
from replicator.domain.identifiers import RegionId
from replicator.domain.modes.requests import Absent, At, DeleteMarked, GetItem, StampedPut, StampRequest
from replicator.domain.stamps import Version
from tests.simulation.active_places import DAEMON, Place, content_number, emitted
from tests.simulation.active_scenario import REGIONS, Scenario, Variant
from tests.simulation.active_tree import Tree

_SEQUENCES = 1 << 16


class Violation(Exception):
    """A guarantee does not hold."""


def pointer(version: Version) -> int:
    """A write by its place in a region's stream: a negative number."""
    return -1 - (REGIONS.index(RegionId(version.region)) * _SEQUENCES | version.sequence % 10**40)


class Regions:
    """Places and answers by number. `numbers`: the writes of each region's users."""

    def __init__(self, scenario: Scenario, variant: Variant, tree: Tree) -> None:
        self._scenario = scenario
        self._variant = variant
        self._tree = tree
        self._ids: dict[Place, int] = {}
        self._answered: dict[tuple[int, int], tuple[int, int]] = {}
        self._removals: dict[int, tuple[int, ...]] = {}
        self._losers: dict[int, int] = {}  # by identity: entries live as long as the tree
        self.places: list[Place] = []
        self.lengths: list[int] = []
        """How many records each place's stream holds."""
        firsts = [1 + sum(map(len, scenario.ops[:region])) for region in range(len(scenario.ops))]
        self.numbers = [range(first, first + len(mine)) for first, mine in zip(firsts, scenario.ops, strict=True)]

    def number(self, place: Place) -> int:
        """The number of a place."""
        number = self._ids.setdefault(place, len(self.places))
        if number == len(self.places):
            self.places.append(place)
            self.lengths.append(len(place.stream))
        return number

    def answer(self, place: int, node: int, request: int) -> tuple[int, int]:
        """What a place becomes, and the number of what it answers, when it is asked what a node asks."""
        answered = self._answered.get((place, request))
        if answered is None:
            answered = self._answered[place, request] = self._carried_out(place, node)
        return answered

    def _carried_out(self, number: int, node: int) -> tuple[int, int]:
        request, place = self._tree.request(node), self.places[number]
        assert isinstance(request, At)
        assert isinstance(request.request, GetItem | StampRequest)
        nonce = f"{len(place.stream):08d}" if self._variant.nonces else "--------"
        slot, response = self._variant.answer(place.slot, request.request, nonce)
        origin = 0
        if isinstance(request.request, DeleteMarked):
            origin = pointer(request.request.version)
        elif slot.item is not None:
            origin = content_number(slot.item)
        after = emitted(place, slot, DAEMON, origin)
        if after.stream != place.stream and self._undeletes(place, request):
            after = after._replace(undeleted=after.undeleted | 1 << origin)
        if len(after.stream) - after.users > self._scenario.bound:
            raise Violation(f"more than {self._scenario.bound} daemon writes in one region")
        return self.number(after), self._tree.response(response)

    def _undeletes(self, place: Place, request: At) -> bool:
        """Whether a put brings back what a user of its own region had deleted, where no daemon has deleted anything."""
        put = request.request
        if not isinstance(put, StampedPut) or not isinstance(put.when, Absent):
            return False
        if place.slot.row.tombstone is not None or place.gone is None:
            return False
        mine, write = self.numbers[REGIONS.index(request.region)], content_number(put.image)
        return write in mine and place.gone in mine and place.gone > write

    # -- which write it was ----------------------------------------------------------------------------------------

    def write_of(self, standing: Sequence[int], origin: int) -> int:
        """The number of a write that an origin stands for; what was there at the start is write 0.

        `standing`: the places of all regions, in order.
        """
        while origin < 0:
            region, sequence = divmod(-1 - origin, _SEQUENCES)
            origin = self.places[standing[region]].origins[sequence - 1] if sequence else 0
        return origin

    def loser(self, standing: Sequence[int], entry: LogConflict) -> int:
        """The number of the write that an entry of the conflict log names as lost."""
        origin = self._losers.get(id(entry))
        if origin is None:
            origin = self._losers[id(entry)] = _loser(entry)
        return origin if origin >= 0 else self.write_of(standing, origin)

    def removals(self, place: int) -> tuple[int, ...]:
        """The origins of all removals in a place, as its stream has them."""
        known = self._removals.get(place)
        if known is None:
            its = self.places[place]
            gone = (origin for record, origin in zip(its.stream, its.origins, strict=True) if record.new is None)
            known = self._removals[place] = tuple(gone)
        return known


def _loser(entry: LogConflict) -> int:
    """The lost write's number, or its place in a region's stream."""
    if entry.loser_version is None:
        assert entry.loser is not None
        return content_number(entry.loser)
    assert entry.loser_region is not None
    return -1 - (REGIONS.index(RegionId(entry.loser_region)) * _SEQUENCES | int(entry.loser_version[-40:]))

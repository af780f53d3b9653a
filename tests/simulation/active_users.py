"""The users of `active_world`: what each writes next, and what was really known when it was written.

Invariant: which write had seen which is kept where no worker can read it.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator.domain.image import Image, unreserved
from replicator.domain.stamps import StampKind, parse_stamp
from replicator.laboratory.memory.stamped import StampedSlot
from tests.simulation.active_places import Place, content_number, emitted, start_places, start_second, written
from tests.simulation.active_regions import Regions, pointer
from tests.simulation.active_scenario import Op, Scenario
from tests.simulation.active_truth import Truth

SNAPSHOTS = 1 << 16
"""What a user has done so far is a number: writes times this, plus which stamp was read for a put of a whole image."""


class Users:
    """All writes of all users of one scenario that were met so far."""

    def __init__(self, scenario: Scenario, regions: Regions) -> None:
        self._scenario = scenario
        self._regions = regions
        self._truth_ids: dict[tuple[tuple[int, Truth], ...], int] = {}
        self._snapshots: list[str | None] = []
        self._initial = [place.slot.item for place in start_places(scenario)]
        self._written: dict[tuple[int | None, ...], tuple[int, int, int]] = {}
        self.truths: list[dict[int, Truth]] = []
        self.start = self._truth({0: Truth(start_second(scenario), frozenset())})
        self.ends = tuple(len(mine) * SNAPSHOTS for mine in scenario.ops)
        """What each user has done when nothing is left to do."""

    def _truth(self, truth: dict[int, Truth]) -> int:
        key = tuple(sorted(truth.items()))
        number = self._truth_ids.setdefault(key, len(self.truths))
        if number == len(self.truths):
            self.truths.append(truth)
        return number

    def next_op(self, region: int, done: int) -> Op:
        """What a region's user does next."""
        return self._scenario.ops[region][done // SNAPSHOTS]

    def write(self, standing: Sequence[int], region: int, truth: int, done: int) -> tuple[int, int, int]:
        """A region's next write: its place, the truth, and what the user has done afterwards."""
        regions = self._regions
        place = regions.places[standing[region]]
        shown, mark = self.shown(standing, place), self._mark(standing, place.slot.item)
        removals = [regions.write_of(standing, origin) for origin in regions.removals(standing[region])]
        key = (region, standing[region], truth, done, shown, mark, *removals)
        written = self._written.get(key)
        if written is None:
            written = self._written[key] = self._write(standing, region, truth, done, (shown, mark, removals))
        return written

    def _write(
        self,
        standing: Sequence[int],
        region: int,
        truth: int,
        done: int,
        seen: tuple[int | None, int | None, Sequence[int]],
    ) -> tuple[int, int, int]:
        regions, (shown, mark, removals) = self._regions, seen
        place = regions.places[standing[region]]
        index, snapshot = divmod(done, SNAPSHOTS)
        op, number = self._scenario.ops[region][index], regions.numbers[region][index]
        old = place.slot.item
        if op.kind == "R" and not snapshot:
            stamp = None if old is None else old.stamp
            return standing[region], truth, index * SNAPSHOTS + self._snapshot(stamp)
        after = (index + 1) * SNAPSHOTS
        if old is None and op.kind in "DTN":
            return standing[region], truth, after
        new = self._item(op.kind, number, old, region, snapshot)
        origin, is_new = number, True
        if op.kind in "DT" and mark is not None:
            origin, is_new = mark, False  # it is deleted already: this is no new write
        elif op.kind in "NI":
            assert new is not None
            origin, is_new = content_number(new), False
        after_write = emitted(place, StampedSlot(new, place.slot.row), op.second, origin, by=op.kind)
        if is_new:
            truth = self._witnessed(truth, number, op, {shown, mark} - {None}, (*regions.numbers[region], *removals))
        return regions.number(after_write), truth, after

    def _snapshot(self, stamp: str | None) -> int:
        if stamp not in self._snapshots:
            self._snapshots.append(stamp)
        return self._snapshots.index(stamp) + 1

    def _item(self, kind: str, number: int, old: Image | None, region: int, snapshot: int) -> Image | None:
        match kind:
            case "P":
                return written(number, None)
            case "U":
                return written(number, None if old is None else old.stamp)
            case "R":
                return written(number, self._snapshots[snapshot - 1])
            case "N":
                return None if old is None else unreserved(old)
            case "I":
                return self._initial[region]
            case _:
                return None

    def _mark(self, standing: Sequence[int], item: Image | None) -> int | None:
        """The delete that marked an item."""
        stamp = None if item is None or item.stamp is None else parse_stamp(item.stamp)
        if stamp is None or stamp.kind is not StampKind.MARK:
            return None
        return self._regions.write_of(standing, pointer(stamp.version))

    def shown(self, standing: Sequence[int], place: Place) -> int | None:
        """The write that a region shows: the one of its item, or the delete that removed it."""
        if place.slot.item is not None:
            return content_number(place.slot.item)
        return None if place.gone is None else self._regions.write_of(standing, place.gone)

    def _witnessed(self, truth: int, number: int, op: Op, parents: set[int | None], before: tuple[int, ...]) -> int:
        """What is known of all writes after one more; `before`: its region's own writes, and removals there.

        The order of its region counts before its clock: a write is no earlier than what was written in its region
        before it, nor than a delete that had taken effect there, even if a zombie brought an older image back since.
        """
        known = self.truths[truth]
        over = [known[parent] for parent in parents if parent is not None]
        seen = frozenset[int]().union(*(before.seen for before in over), {p for p in parents if p is not None})
        earlier = [known[other].moment for other in before if other in known]
        moment = max([0 if op.kind == "T" else op.second, *earlier, *(before.moment for before in over)])
        return self._truth({**known, number: Truth(moment, seen)})

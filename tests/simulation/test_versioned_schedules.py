"""Mode `versioned` on schedules that were written down: V9 (models/traces), T23, and what a user's write costs."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import pytest

from replicator.domain.conflicts import LogConflict
from replicator.domain.identifiers import RegionId, SequenceNumber
from replicator.domain.image import Image
from replicator.domain.modes.requests import At, Done, GetItem, GetTombstone, RaiseTombstone, Remove, Replace, Response
from replicator.domain.modes.versioned import replicate as versioned
from replicator.domain.modes.versioned.own_writes import OwnWrites
from replicator.domain.modes.versioned.replicate import replicate_versioned
from replicator.domain.records import ChangeRecord, Event
from replicator.laboratory.memory import EMPTY, Slot, answer
from tests.simulation.versioned_machine import KEY, REGIONS, Machine, image, mesh_of
from tests.simulation.versioned_states import Scenario, State
from tests.simulation.versioned_world import Move, World

US, EU = 0, 1

# -- V9 ------------------------------------------------------------------------------------------------------------

WORKER_IN_US, WORKER_IN_EU = 0, 1


def scripted(world: World, moves: list[Move]) -> State:
    """Follow a script, then let every worker come to its end."""
    state = world.start()
    for move in moves:
        state = world.after(state, move)
    while not world.quiescent(state):
        state = world.after(state, next(move for move in world.moves(state) if move[0] == "step"))
    return state


V9_PUT_BETWEEN_LOOK_AND_PUT = (
    Scenario((("1",), ("1",)), "seeded", logged=True),
    [
        ("user", EU, 0),
        ("step", WORKER_IN_EU, 0),  # it looks at us
        ("user", US, 0),
        ("step", WORKER_IN_EU, 0),  # and puts over a write that it never saw
    ],
    1,
)
V9_DELETE_OF_ANOTHER_IMAGE = (
    Scenario((("U", "D"), ("U",)), "seeded", logged=True),
    [
        ("user", EU, 0),
        ("user", US, 0),
        ("step", WORKER_IN_US, 0),  # it looks at eu, and stops at a tie
        ("step", WORKER_IN_US, 0),
        ("user", US, 0),
        ("step", WORKER_IN_EU, 0),  # it looks at us: nothing is there
        ("step", WORKER_IN_US, 1),  # the tombstone of us
        ("step", WORKER_IN_EU, 0),
    ],
    3,
)
V9 = pytest.mark.parametrize(
    ("scenario", "moves", "loser"),
    [V9_PUT_BETWEEN_LOOK_AND_PUT, V9_DELETE_OF_ANOTHER_IMAGE],
    ids=["put between look and put", "delete of another image"],
)


@V9
def test_v9_losers_of_ties_are_logged(scenario: Scenario, moves: list[Move], loser: int) -> None:
    machine = Machine(2)
    world = World(scenario, machine)
    state = scripted(world, moves)
    world.check(state)
    lost = [machine.images[number] for number in state.lost]
    assert loser in [int(item.attributes["write"]["N"]) for item in lost if item is not None]


def _no_entry(*_: object) -> Iterator[None]:
    yield from ()


@V9
def test_v9_without_its_repair_a_loser_goes_unlogged(
    scenario: Scenario, moves: list[Move], loser: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("log_tie", "log_unseen", "log_removed"):
        monkeypatch.setattr(versioned, name, _no_entry)
    world = World(scenario, Machine(2))
    with pytest.raises(Exception, match="UNLOGGED"):
        world.check(scripted(world, moves))


# -- T23 and the cost of a write -----------------------------------------------------------------------------------


class Settled:
    """Some regions whose workers always come to the end before users write again; counts what workers ask."""

    def __init__(self, regions: int, *, remembers: bool) -> None:
        self.regions = REGIONS[:regions]
        self.slots: dict[RegionId, Slot] = dict.fromkeys(self.regions, EMPTY)
        self.logged: list[LogConflict] = []
        self.asked: Counter[tuple[RegionId, str]] = Counter()
        self._records: list[tuple[int, ChangeRecord]] = []
        self._memories = OwnWrites(100) if remembers else OwnWrites(0)
        self._numbers = itertools.count(1)

    def write(self, region: RegionId, item: Image | None) -> None:
        """A user's write, and everything that follows from it."""
        self.asked.clear()
        self._change(region, Slot(item, self.slots[region].tombstone))
        while self._records:
            self._process(*self._records.pop(0))

    def items(self) -> list[str | None]:
        """The number of the write that stands in each region."""
        held = [slot.item for slot in self.slots.values()]
        return [None if item is None else item.attributes["write"]["N"] for item in held]

    def _process(self, home: int, record: ChangeRecord) -> None:
        steps = replicate_versioned(record, mesh_of(self.regions, home), self._memories.known(KEY, 0.0))
        try:
            request = next(steps)
            while True:
                if isinstance(request, LogConflict):
                    self.logged.append(request)
                    request = steps.send(Done())
                else:
                    request = steps.send(self._answered(request))
        except StopIteration as end:
            self._memories.note(KEY, end.value, 0.0)

    def _answered(self, at: At) -> Response:
        after, response = answer(self.slots[at.region], at.request)
        if isinstance(at.request, GetItem | GetTombstone) or after != self.slots[at.region]:
            self.asked[at.region, type(at.request).__name__] += 1
        self._change(at.region, after)
        return response

    def _change(self, region: RegionId, slot: Slot) -> None:
        old, self.slots[region] = self.slots[region].item, slot
        if old != slot.item:
            event = Event.REMOVE if slot.item is None else Event.INSERT if old is None else Event.MODIFY
            number = SequenceNumber(str(next(self._numbers)))
            record = ChangeRecord(event, KEY, old, slot.item, number, 0.0)
            self._records.append((self.regions.index(region), record))

    def writes(self, region: RegionId) -> list[str]:
        """What workers wrote in a region because of the last write."""
        kinds = (Replace.__name__, Remove.__name__, RaiseTombstone.__name__)
        return [kind for kind in kinds for _ in range(self.asked[region, kind])]


def put(number: int, version: str | None) -> Image:
    return image(number, version, rising=True)


@pytest.mark.parametrize("remembers", [True, False], ids=["one process", "a process per region"])
@pytest.mark.parametrize("regions", [2, 3])
def test_a_write_costs_what_the_protocol_page_says(regions: int, remembers: bool) -> None:
    world = Settled(regions, remembers=remembers)
    origin, *replicas = world.regions
    for number, version in ((1, "1"), (2, "2")):  # an insert, then a change
        world.write(origin, put(number, version))
        assert world.writes(origin) == []
        assert [world.writes(region) for region in replicas] == [["Replace"]] * len(replicas)
        if remembers and number == 2:
            assert world.asked.total() == 2 * len(replicas), "a look and a put each, and nothing for the echo"
    world.write(origin, None)
    assert world.writes(origin) == ["RaiseTombstone"]
    assert [world.writes(region) for region in replicas] == [["Remove", "RaiseTombstone"]] * len(replicas)
    assert world.logged == []
    assert world.items() == [None] * regions


@pytest.mark.parametrize(
    ("writes", "standing", "kinds"),
    [
        ([("us", "2"), ("eu", "2")], "2", []),  # of equal versions, here the later write has the greater hash
        ([("us", "2"), ("eu", "1")], "1", ["version_regress"]),
        ([("us", "2"), ("us", "1"), ("eu", "3")], "3", ["version_regress"]),
        ([("us", "2"), ("eu", None)], "1", ["version_regress"]),
        ([("us", "2"), ("eu", "!new")], "1", ["version_regress"]),
        ([("us", None), ("eu", "!new"), ("us", "-5")], "3", []),
        ([("us", "2"), ("us", "D"), ("eu", "2")], None, ["stale_create"]),
        ([("us", "2"), ("us", "D"), ("eu", None)], None, ["stale_create"]),
        ([("us", "2"), ("us", "D"), ("eu", "2.5")], "3", []),
        ([("us", None), ("us", "D"), ("eu", None)], None, ["stale_create"]),
        ([("us", None), ("us", "D"), ("eu", "-9")], "3", []),
    ],
)
def test_t23_lowered_lost_equal_and_missing_versions_end_the_same_everywhere(
    writes: list[tuple[str, str | None]], standing: str | None, kinds: list[str]
) -> None:
    world = Settled(3, remembers=False)
    for number, (region, version) in enumerate(writes, start=1):
        world.write(RegionId(region), None if version == "D" else put(number, version))
    assert set(world.items()) == {standing}
    assert [entry.kind for entry in world.logged] == kinds

from __future__ import annotations

from replicator.domain.identifiers import RegionId
from replicator.domain.modes.ordered import Effect
from replicator.domain.modes.versioned.own_writes import KEEP_SECONDS, OwnWrites
from replicator.domain.modes.versioned.ranks import Rank
from replicator.domain.modes.versioned.replicate import Joined
from replicator.domain.records import ItemKey

US, EU = RegionId("us"), RegionId("eu")


def key(name: str) -> ItemKey:
    return ItemKey((("pk", "S", name),))


def joined(version: str, *regions: RegionId) -> Joined:
    return Joined(rank(version), {EU: Effect.APPLIED}, regions or (US, EU))


def rank(version: str) -> Rank:
    return Rank(version, deleted=False, content="c")


def test_what_was_joined_is_known_in_every_region_where_it_stood() -> None:
    memory = OwnWrites(2)
    memory.note(key("a"), joined("1"), 10.0)
    memory.note(key("a"), joined("2", US), 11.0)
    assert memory.known(key("a"), 12.0) == {(US, rank("1")), (EU, rank("1")), (US, rank("2"))}
    assert memory.known(key("b"), 12.0) == frozenset()


def test_what_is_old_is_forgotten_and_what_comes_again_is_young() -> None:
    memory = OwnWrites(2)
    memory.note(key("a"), joined("1"), 0.0)
    memory.note(key("a"), joined("2"), 0.0)
    memory.note(key("a"), joined("1", US), 10.0)
    assert memory.known(key("a"), KEEP_SECONDS + 5.0) == {(US, rank("1"))}


def test_the_keys_written_last_are_kept() -> None:
    memory = OwnWrites(2)
    for name in ("a", "b", "a", "c"):
        memory.note(key(name), joined("1"), 0.0)
    assert [bool(memory.known(key(name), 0.0)) for name in "abc"] == [True, False, True]


def test_a_key_that_changes_all_the_time_does_not_grow() -> None:
    memory = OwnWrites(1)
    for number in range(100):
        memory.note(key("a"), joined(f"{number:03}"), 0.0)
    known = memory.known(key("a"), 0.0)
    assert len(known) == 16
    assert (EU, rank("099")) in known
    assert (US, rank("092")) in known


def test_a_memory_without_room_remembers_nothing() -> None:
    memory = OwnWrites(0)
    memory.note(key("a"), joined("1"), 0.0)
    assert memory.known(key("a"), 0.0) == frozenset()

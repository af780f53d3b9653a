from __future__ import annotations

import pytest
from msgspec.structs import replace

from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image, stamped, unreserved
from replicator.domain.modes.active_active.classify import Origin
from replicator.domain.modes.active_active.mesh import ActivePolicy, Guard
from replicator.domain.modes.active_active.replicate import Ending, Finished
from replicator.domain.modes.requests import (
    Absent,
    At,
    DeleteMarked,
    GetItem,
    GetSideRow,
    LookAhead,
    MergeTombstone,
    MeshRequest,
    NoteRemoval,
    RaiseFloor,
    Restamp,
    SettleTombstone,
    StampedPut,
    StampIs,
    UnstampedOrBelow,
    Wait,
)
from replicator.domain.stamps import (
    NO_PARENT,
    SideRow,
    Stamp,
    StampKind,
    Tombstone,
    Version,
    content_of,
    held,
    parent_of,
    seed_version,
    write_sequence,
)
from replicator.engine.applying.mesh_records import ActiveRecord
from replicator.laboratory.memory.stamped import StampedSlot
from tests.unit.active_cluster import GENERATION, Cluster
from tests.unit.strategies import image

A, B = RegionId("aa"), RegionId("bb")
ONE, TWO, THREE = (image({"pk": {"S": "k"}, "n": {"N": number}}) for number in "123")
LOOKS = (GetItem, GetSideRow)
ITEM_WRITES = (StampedPut, Restamp, DeleteMarked)
ROW_WRITES = (MergeTombstone, SettleTombstone, RaiseFloor, NoteRemoval)


def version(second: int, region: str, number: int, counter: int = 0) -> Version:
    return Version(second * 1_000_000, counter, region, write_sequence(GENERATION, number))


def held_at(content: Image, at: Version, *, kind: StampKind = StampKind.VALUE, parent: str = NO_PARENT) -> Image:
    stamp = Stamp(at, kind, content_of(content), parent)
    return Image(stamped(content, stamp.sealed("nonce---")))


def seeded(count: int = 2, policy: ActivePolicy | None = None) -> Cluster:
    """Every region holds the same stamped item."""
    cluster = Cluster(count, policy or ActivePolicy(waits=0))
    for name in cluster.names:
        cluster.slots[name] = StampedSlot(held_at(ONE, version(0, "aa", 0)))
    return cluster


def asked(requests: list[MeshRequest]) -> list[tuple[str, type[object]]]:
    """What was asked where; what no region answers has no place."""
    return [
        (str(request.region), type(request.request)) if isinstance(request, At) else ("", type(request))
        for request in requests
    ]


def stamp_at(cluster: Cluster, region: str) -> Stamp:
    item = held(cluster.item(region), cluster.policy.attribute)
    assert item is not None
    assert item.stamp is not None
    return item.stamp


def contents(cluster: Cluster) -> list[Image | None]:
    items = [cluster.item(name) for name in cluster.names]
    return [None if item is None else unreserved(item, cluster.policy.attribute) for item in items]


# -- without conflict ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_put_is_stamped_at_home_and_then_written_to_every_other_region(count: int) -> None:
    cluster = seeded(count)
    cluster.write("aa", TWO, 7)
    requests = cluster.next_record("aa")
    others = [step for name in cluster.names[1:] for step in ((name, GetItem), (name, StampedPut))]
    assert asked(requests) == [("aa", GetItem), ("aa", GetSideRow), ("aa", Restamp), *others]
    assert stamp_at(cluster, "aa") == Stamp(
        version(7, "aa", 1), StampKind.VALUE, content_of(TWO), parent_of(version(0, "aa", 0))
    )
    assert all(stamp_at(cluster, name) == stamp_at(cluster, "aa") for name in cluster.names)
    assert cluster.finished == [Finished(Origin.LOCAL_PUT, Ending.PUT)]
    cluster.settle()
    assert contents(cluster) == [TWO] * count
    assert cluster.logged == []


def test_a_nonce_seals_every_write() -> None:
    cluster = seeded()
    cluster.write("aa", TWO, 7)
    cluster.settle()
    assert cluster.item("aa") != cluster.item("bb")


def test_a_new_item_asks_the_other_region_for_its_tombstone_before_and_behind_the_put() -> None:
    cluster = Cluster()
    cluster.write("aa", ONE, 7)
    assert asked(cluster.next_record("aa"))[3:] == [("bb", GetItem), ("bb", GetSideRow), ("bb", StampedPut)]
    assert asked(cluster.next_record("bb")) == [("bb", GetSideRow)]
    assert cluster.finished[-1] == Finished(Origin.ECHO_INSERT, Ending.VERIFIED)
    assert stamp_at(cluster, "bb").parent == NO_PARENT


def test_a_delete_writes_its_tombstone_at_home_then_raises_it_marks_and_deletes_elsewhere() -> None:
    cluster = seeded()
    cluster.write("aa", None, 7)
    requests = cluster.next_record("aa")
    assert asked(requests) == [
        ("aa", GetItem),
        ("aa", GetSideRow),
        ("aa", SettleTombstone),
        ("bb", MergeTombstone),
        ("bb", GetItem),
        ("bb", Restamp),
        ("bb", DeleteMarked),
    ]
    tombstone = Tombstone(version(7, "aa", 1), parent_of(version(0, "aa", 0)), content_of(ONE))
    assert cluster.slots[A].row == SideRow(tombstone, None, write_sequence(GENERATION, 1), version(7, "aa", 1))
    assert cluster.slots[B].row == SideRow(tombstone)
    cluster.settle()
    assert contents(cluster) == [None, None]
    assert cluster.slots[B].row == replace(
        SideRow(tombstone), removed_at=write_sequence(GENERATION, 2), removed=version(7, "aa", 1)
    )
    assert {outcome.ending for outcome in cluster.finished} == {Ending.DELETED, Ending.VERIFIED}
    assert cluster.logged == []


COSTS = {
    "a put over an item": (TWO, True, {"item": (1, 1), "row": (0, 0)}),
    "a put of a new item": (TWO, False, {"item": (1, 1), "row": (0, 0)}),
    "a delete": (None, True, {"item": (0, 2), "row": (1, 2)}),
}


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize(("new", "present", "costs"), COSTS.values(), ids=COSTS)
def test_daemon_writes_per_user_write_are_those_of_the_table(
    new: Image | None, present: bool, costs: dict[str, tuple[int, int]], count: int
) -> None:
    cluster = seeded(count) if present else Cluster(count)
    cluster.write("aa", new, 7)
    cluster.settle()
    for kinds, (home, other) in zip((ITEM_WRITES, ROW_WRITES), costs.values(), strict=True):
        assert list(cluster.writes(*kinds).values()) == [home, *[other] * (count - 1)]


def test_reads_per_user_write_are_those_of_the_table() -> None:
    update, insert, delete = seeded(), Cluster(), seeded()
    for cluster, new in ((update, TWO), (insert, TWO), (delete, None)):
        cluster.write("aa", new, 7)
        cluster.settle()
    counted = [[list(cluster.writes(kind).values()) for kind in LOOKS] for cluster in (update, insert, delete)]
    assert counted[0] == [[1, 1], [1, 0]]
    assert counted[1] == [[1, 1], [1, 2]]
    assert counted[2] == [[1, 1], [1, 0]]  # the raised tombstone shows what stood there, so no row is read elsewhere


def test_the_stamp_may_stand_in_another_attribute() -> None:
    cluster = Cluster(2, ActivePolicy(attribute="_sync", waits=0))
    users = image({**ONE.attributes, "_rep": {"S": "a user's own"}})
    cluster.write("aa", users, 7)
    cluster.settle()
    assert contents(cluster) == [users, users]
    assert stamp_at(cluster, "bb").version == version(7, "aa", 1)


# -- versions ------------------------------------------------------------------------------------------------------


def test_a_write_over_one_from_the_future_is_later_than_that() -> None:
    cluster = seeded()
    cluster.slots[A] = StampedSlot(held_at(ONE, version(9, "bb", 4)))
    cluster.write("aa", TWO, 7)
    cluster.next_record("aa")
    assert stamp_at(cluster, "aa").version == version(9, "aa", 1, counter=1)


def test_an_expiry_is_only_just_later_than_what_expired() -> None:
    cluster = seeded()
    cluster.write("bb", TWO, 3)
    cluster.write("aa", None, 7, ttl=True)
    cluster.settle()
    assert cluster.slots[A].row.deleted == version(0, "aa", 1)
    assert contents(cluster) == [TWO, TWO]
    assert ("put_delete", "later_time") in {(entry.kind, entry.reason) for entry in cluster.logged}
    assert Finished(Origin.LOCAL_EXPIRY, Ending.DELETED) in cluster.finished


def test_a_version_that_is_durable_already_is_used_again() -> None:
    cluster = seeded()
    first = cluster.write("aa", TWO, 7)
    assert first is not None
    cluster.run("aa", first)
    requests = cluster.run("aa", first)
    assert asked(requests) == [("aa", GetItem), ("aa", GetSideRow), ("bb", GetItem)]
    assert cluster.finished == [Finished(Origin.LOCAL_PUT, Ending.PUT)] * 2


def test_a_delete_that_is_durable_already_keeps_its_version() -> None:
    cluster = seeded()
    first = cluster.write("aa", None, 7)
    assert first is not None
    cluster.run("aa", first)
    row = cluster.slots[A].row
    requests = cluster.run("aa", first)
    assert cluster.slots[A].row == row
    assert asked(requests)[-2:] == [("bb", MergeTombstone), ("bb", GetItem)]


def test_a_write_of_the_same_second_after_a_replicated_delete_is_later_than_it() -> None:
    cluster = seeded()
    cluster.write("bb", None, 7)
    cluster.settle()
    cluster.write("aa", TWO, 7)
    cluster.settle()
    assert contents(cluster) == [TWO, TWO]
    assert stamp_at(cluster, "bb").version == version(7, "aa", 3, counter=1)
    assert stamp_at(cluster, "bb").parent == parent_of(version(7, "bb", 1))
    assert cluster.logged == []


def test_a_re_creation_knows_its_own_regions_delete_as_its_parent() -> None:
    cluster = seeded()
    cluster.write("aa", None, 7)
    cluster.write("aa", TWO, 7)
    cluster.settle()
    assert contents(cluster) == [TWO, TWO]
    assert stamp_at(cluster, "bb").parent == parent_of(version(7, "aa", 1))


# -- conflicts -----------------------------------------------------------------------------------------------------


def lost(cluster: Cluster) -> set[tuple[str, str | None]]:
    """Versions of winner and loser, as they identify entries; a write may be logged more than once."""
    return {(entry.winner_version, entry.loser_version) for entry in cluster.logged}


def test_of_two_puts_the_later_wins_and_the_other_is_logged() -> None:
    cluster = seeded()
    cluster.write("aa", TWO, 7)
    cluster.write("bb", THREE, 8)
    cluster.next_record("bb")
    cluster.settle()
    assert contents(cluster) == [THREE, THREE]
    assert (version(8, "bb", 1).text, None) in lost(cluster), "it was overwritten before it was stamped"
    cluster = seeded()
    cluster.write("aa", TWO, 7)
    cluster.next_record("aa")
    cluster.slots[B] = StampedSlot(held_at(ONE, version(0, "aa", 0)))
    cluster.write("bb", THREE, 8)
    cluster.next_record("bb")
    cluster.settle()
    assert contents(cluster) == [THREE, THREE]
    assert lost(cluster) == {(version(8, "bb", 2).text, version(7, "aa", 1).text)}
    entry = cluster.logged[0]
    assert (entry.kind, entry.reason, entry.outcome) == ("put_put", "later_time", "overwritten")
    assert (entry.winner, entry.loser) == (THREE, TWO)
    assert (entry.winner_region, entry.loser_region) == ("bb", "aa")
    assert (entry.winner_micros, entry.loser_micros) == (8_000_000, 7_000_000)
    assert (entry.winner_op, entry.loser_op) == ("put", "put")


def crossed(first: Version, second: Version) -> Cluster:
    """Region aa holds one write, durable but not yet sent; region bb's write is then brought there."""
    cluster = seeded()
    cluster.slots[A] = StampedSlot(held_at(TWO, first))
    cluster.slots[B] = StampedSlot(held_at(ONE, replace(second, region="aa", sequence=0)))
    record = cluster.write("bb", THREE, 7)
    assert record is not None
    cluster.run("bb", record)
    cluster.next_record("aa")
    return cluster


def test_in_one_second_the_region_decides() -> None:
    cluster = crossed(version(7, "aa", 1), version(7, "aa", 0))
    assert [entry.reason for entry in cluster.logged] == ["region_tie"]


def test_in_one_second_a_write_that_is_later_than_a_later_one_wins_causally() -> None:
    cluster = crossed(version(8, "aa", 1), version(8, "cc", 5, counter=3))
    assert [entry.reason for entry in cluster.logged] == ["causal"]


def test_an_unstamped_write_that_was_overwritten_is_logged_and_told_to_be_back() -> None:
    cluster = seeded()
    cluster.write("bb", THREE, 8)
    cluster.write("aa", TWO, 7)
    cluster.next_record("aa")
    assert contents(cluster) == [TWO, TWO]
    cluster.settle()
    assert contents(cluster) == [THREE, THREE]
    (entry,) = [entry for entry in cluster.logged if entry.kind == "unversioned"]
    assert (entry.loser, entry.loser_version, entry.outcome) == (THREE, None, "repaired")
    assert (entry.reason, entry.loser_region, entry.loser_micros) == ("version", "bb", None)


def test_a_newer_delete_beats_a_put_that_is_logged() -> None:
    cluster = seeded()
    cluster.write("aa", TWO, 7)
    cluster.write("bb", None, 8)
    cluster.settle()
    assert contents(cluster) == [None, None]
    assert {(entry.kind, entry.winner_op, entry.loser_op) for entry in cluster.logged} == {
        ("delete_put", "delete", "put")
    }


def test_a_put_that_beats_a_delete_is_written_and_the_delete_logged() -> None:
    cluster = seeded()
    cluster.write("aa", TWO, 8)
    cluster.write("bb", None, 7)
    cluster.settle()
    assert contents(cluster) == [TWO, TWO]
    assert {(entry.kind, entry.winner, entry.loser) for entry in cluster.logged} == {("put_delete", TWO, None)}


def test_an_update_between_mark_and_delete_survives_as_a_local_write() -> None:
    cluster = seeded()
    cluster.write("aa", None, 7)

    def update(world: Cluster, request: MeshRequest) -> None:
        if isinstance(request, At) and isinstance(request.request, DeleteMarked) and not world.streams[B][1:]:
            item = world.item("bb")
            assert item is not None
            world.write("bb", image({**item.attributes, "n": {"N": "2"}}), 7)

    cluster.meddle = update
    cluster.next_record("aa")
    cluster.settle()
    assert [(entry.kind, entry.loser, entry.outcome) for entry in cluster.logged] == [("unversioned", TWO, "repaired")]
    assert contents(cluster) == [TWO, TWO]


def test_a_put_over_a_mark_logs_the_delete_that_it_beats() -> None:
    cluster = seeded()
    cluster.slots[A] = StampedSlot(held_at(ONE, version(5, "aa", 9), kind=StampKind.MARK))
    bring(cluster, TWO, 8)
    assert [(entry.kind, entry.loser_version) for entry in cluster.logged] == [("put_delete", version(5, "aa", 9).text)]


def bring(cluster: Cluster, new: Image | None, second: int) -> list[MeshRequest]:
    """A write of region bb, brought to region aa and verified there."""
    record = cluster.write("bb", new, second)
    assert record is not None
    requests = cluster.run("bb", record)
    while len(cluster.streams[A]) > cluster.position("aa"):
        cluster.next_record("aa")
    return requests


def test_a_put_over_a_mark_that_a_user_changed_logs_both() -> None:
    cluster = seeded()
    mark = held_at(ONE, version(5, "aa", 9), kind=StampKind.MARK)
    cluster.slots[A] = StampedSlot(image({**mark.attributes, "n": {"N": "3"}}))
    bring(cluster, TWO, 8)
    assert [(entry.kind, entry.loser) for entry in cluster.logged] == [("unversioned", THREE), ("put_delete", None)]


def test_a_put_over_what_stood_in_another_region_before_its_stream_is_logged_as_a_seed() -> None:
    cluster = seeded()
    cluster.slots[A] = StampedSlot(held_at(THREE, seed_version(A)))
    cluster.slots[B] = StampedSlot(held_at(ONE, seed_version(B)))
    bring(cluster, TWO, 8)
    assert [(entry.kind, entry.winner, entry.loser) for entry in cluster.logged] == [("seed", TWO, THREE)]


def test_a_mark_over_a_mark_of_another_region_logs_the_older_delete() -> None:
    cluster = seeded()
    cluster.slots[A] = StampedSlot(held_at(ONE, version(5, "aa", 9), kind=StampKind.MARK))
    bring(cluster, None, 8)
    assert [(entry.kind, entry.winner_op, entry.loser_op) for entry in cluster.logged] == [
        ("delete_delete", "delete", "delete")
    ]


# -- another region ------------------------------------------------------------------------------------------------


def test_an_item_that_is_newer_is_left_alone() -> None:
    cluster = seeded()
    cluster.slots[A] = StampedSlot(held_at(THREE, version(9, "aa", 1)))
    requests = bring(cluster, TWO, 8)
    assert asked(requests)[-1] == ("aa", GetItem)
    assert cluster.item("aa") == held_at(THREE, version(9, "aa", 1))


def test_a_delete_stops_at_a_newer_tombstone() -> None:
    cluster = seeded()
    cluster.slots[A] = StampedSlot(None, SideRow(Tombstone(version(9, "aa", 1), NO_PARENT, content_of(ONE))))
    assert asked(bring(cluster, None, 8))[-1] == ("aa", MergeTombstone)


def test_a_delete_leaves_a_newer_item() -> None:
    cluster = seeded()
    cluster.slots[A] = StampedSlot(held_at(THREE, version(9, "aa", 1)))
    assert asked(bring(cluster, None, 8))[-2:] == [("aa", MergeTombstone), ("aa", GetItem)]
    assert cluster.item("aa") is not None


def test_a_put_is_not_written_under_a_tombstone_that_is_newer() -> None:
    cluster = seeded()
    cluster.slots[A] = StampedSlot(None, SideRow(Tombstone(version(9, "aa", 1), NO_PARENT, content_of(ONE))))
    assert asked(bring(cluster, TWO, 8))[-2:] == [("aa", GetItem), ("aa", GetSideRow)]
    assert cluster.item("aa") is None


def test_a_refused_put_looks_at_what_refused_it() -> None:
    cluster = seeded()

    def put(world: Cluster, request: MeshRequest) -> None:
        if isinstance(request, At) and request.region == A and isinstance(request.request, StampedPut):
            world.write("aa", THREE, 1)
            world.meddle = None

    cluster.meddle = put
    requests = bring(cluster, TWO, 8)
    whens = [r.request.when for r in requests if isinstance(r, At) and isinstance(r.request, StampedPut)]
    assert [type(when) for when in whens] == [StampIs, StampIs]
    assert whens[1] == StampIs(None)
    assert stamp_at(cluster, "aa").version == version(8, "bb", 1)


def test_an_item_that_is_not_stamped_yet_gets_a_bounded_time() -> None:
    cluster = seeded(policy=ActivePolicy(waits=2))
    cluster.slots[A] = StampedSlot(THREE)
    requests = bring(cluster, TWO, 8)
    assert asked(requests)[3:] == [
        ("aa", GetItem),
        ("", Wait),
        ("aa", GetItem),
        ("", Wait),
        ("aa", GetItem),
        ("aa", StampedPut),
    ]
    assert [request for request in requests if isinstance(request, Wait)] == [Wait(1), Wait(2)]


def test_an_item_that_is_stamped_meanwhile_is_waited_for_no_longer() -> None:
    cluster = seeded(policy=ActivePolicy(waits=5))
    cluster.slots[A] = StampedSlot(THREE)

    def stamp(world: Cluster, request: MeshRequest) -> None:
        if isinstance(request, Wait):
            world.slots[A] = StampedSlot(held_at(THREE, version(9, "aa", 1)))

    cluster.meddle = stamp
    assert asked(bring(cluster, TWO, 8))[3:] == [("aa", GetItem), ("", Wait), ("aa", GetItem)]


def test_a_change_of_an_item_that_is_missing_waits_for_the_tombstone_of_its_parent() -> None:
    cluster = seeded(policy=ActivePolicy(waits=3))
    cluster.slots[A] = StampedSlot()
    tombstone = Tombstone(version(0, "aa", 1), NO_PARENT, content_of(ONE))

    def delete(world: Cluster, request: MeshRequest) -> None:
        if request == Wait(2):
            world.slots[A] = StampedSlot(None, SideRow(tombstone))

    cluster.meddle = delete
    requests = bring(cluster, TWO, 8)
    assert asked(requests)[3:] == [
        ("aa", GetItem),
        ("aa", GetSideRow),
        ("", Wait),
        ("aa", GetSideRow),
        ("", Wait),
        ("aa", GetSideRow),
        ("aa", StampedPut),
    ]


def test_an_optimistic_put_needs_no_look_where_nothing_is_newer() -> None:
    cluster = seeded(policy=ActivePolicy(guard=Guard.OPTIMISTIC))
    (put,) = bring(cluster, TWO, 8)[3:]
    assert isinstance(put, At)
    assert isinstance(put.request, StampedPut)
    assert put.request.when == UnstampedOrBelow(version(8, "bb", 1))
    assert contents(cluster) == [TWO, TWO]


def test_an_optimistic_put_that_is_refused_goes_on_with_what_stands_there() -> None:
    cluster = seeded(policy=ActivePolicy(guard=Guard.OPTIMISTIC, waits=0))
    cluster.slots[A] = StampedSlot()
    requests = bring(cluster, TWO, 8)
    assert asked(requests)[3:] == [("aa", StampedPut), ("aa", GetSideRow), ("aa", StampedPut)]
    put = requests[-1]
    assert isinstance(put, At)
    assert isinstance(put.request, StampedPut)
    assert put.request.when == Absent()


def test_a_mark_that_is_refused_looks_again() -> None:
    cluster = seeded()

    def put(world: Cluster, request: MeshRequest) -> None:
        if isinstance(request, At) and isinstance(request.request, Restamp):
            world.write("aa", THREE, 1)
            world.meddle = None

    cluster.meddle = put
    requests = bring(cluster, None, 8)
    assert asked(requests)[3:] == [
        ("aa", MergeTombstone),
        ("aa", GetItem),
        ("aa", Restamp),
        ("aa", Restamp),
        ("aa", DeleteMarked),
    ]
    assert cluster.item("aa") is None


def test_a_mark_that_is_refused_by_nothing_is_done() -> None:
    cluster = seeded()

    def delete(world: Cluster, request: MeshRequest) -> None:
        if isinstance(request, At) and isinstance(request.request, Restamp):
            world.write("aa", None, 1)

    cluster.meddle = delete
    assert asked(bring(cluster, None, 8))[3:] == [("aa", MergeTombstone), ("aa", GetItem), ("aa", Restamp)]


def test_a_mark_that_stands_already_is_only_finished() -> None:
    cluster = seeded()
    record = cluster.write("bb", None, 8)
    assert record is not None
    delete = version(8, "bb", 1)
    cluster.slots[A] = StampedSlot(held_at(ONE, delete, kind=StampKind.MARK))
    assert asked(cluster.run("bb", record))[3:] == [("aa", MergeTombstone), ("aa", GetItem), ("aa", DeleteMarked)]
    assert cluster.item("aa") is None


# -- at home -------------------------------------------------------------------------------------------------------


def reused(policy: ActivePolicy | None = None) -> Cluster:
    """No item stands anywhere, and every region remembers a delete from long ago."""
    cluster = seeded(policy=policy)
    for name in cluster.names:
        cluster.slots[name] = StampedSlot(None, SideRow(Tombstone(version(1, "bb", 0), NO_PARENT, content_of(ONE))))
    return cluster


def test_a_put_whose_item_is_gone_without_a_tombstone_leaves_its_version_as_a_floor_and_looks_no_further() -> None:
    cluster = seeded()
    cluster.write("aa", TWO, 9)
    cluster.write("aa", None, 3)
    assert asked(cluster.next_record("aa")) == [("aa", GetItem), ("aa", GetSideRow), ("aa", RaiseFloor)]
    assert cluster.slots[A].row.floor == version(9, "aa", 1)
    assert cluster.finished[-1].ending is Ending.GONE
    cluster.settle()
    assert contents(cluster) == [None, None]
    assert cluster.slots[B].row.deleted == version(9, "aa", 2)


def test_a_put_whose_delete_was_not_read_yet_is_not_put_back_where_no_tombstone_stands() -> None:
    cluster = seeded()
    record = cluster.write("aa", TWO, 9)
    assert record is not None
    cluster.slots[A] = StampedSlot()  # no record shows who deleted it
    cluster.run("aa", record)
    assert cluster.item("aa") is None
    assert cluster.finished[-1].ending is Ending.GONE


def test_a_put_beside_an_old_tombstone_leaves_a_floor_when_the_next_removal_that_was_read_is_a_users() -> None:
    cluster = reused()
    cluster.write("aa", TWO, 9)
    cluster.write("aa", None, 3)
    assert asked(cluster.next_record("aa"))[2:] == [("", LookAhead), ("aa", RaiseFloor)]
    assert cluster.slots[A].row.floor == version(9, "aa", 1)
    cluster.settle()
    assert contents(cluster) == [None, None]
    assert cluster.slots[B].row.deleted == version(9, "aa", 2)


def test_a_put_beside_an_old_tombstone_is_put_back_when_no_removal_was_read() -> None:
    cluster = reused()
    record = cluster.write("aa", TWO, 9)
    assert record is not None
    cluster.slots[A] = cluster.slots[A]._replace(item=None)
    assert asked(cluster.run("aa", record))[2:] == [
        ("", LookAhead),
        ("aa", StampedPut),
        ("bb", GetItem),
        ("bb", GetSideRow),
        ("bb", StampedPut),
    ]
    assert contents(cluster) == [TWO, TWO]


def test_a_floor_that_is_there_already_is_used_and_not_written_again() -> None:
    cluster = seeded()
    record = cluster.write("aa", TWO, 9)
    cluster.write("aa", None, 3)
    assert record is not None
    cluster.run("aa", record)
    assert asked(cluster.run("aa", record)) == [("aa", GetItem), ("aa", GetSideRow)]


def test_a_floor_that_met_another_write_looks_again() -> None:
    cluster = seeded()
    record = cluster.write("aa", TWO, 9)
    cluster.write("aa", None, 3)
    assert record is not None

    def raise_tombstone(world: Cluster, request: MeshRequest) -> None:
        if isinstance(request, At) and isinstance(request.request, RaiseFloor):
            tombstone = Tombstone(version(1, "bb", 7), NO_PARENT, content_of(ONE))
            world.slots[A] = StampedSlot(None, replace(world.slots[A].row, tombstone=tombstone))
            world.meddle = None

    cluster.meddle = raise_tombstone
    assert asked(cluster.run("aa", record))[2:] == [
        ("aa", RaiseFloor),
        ("aa", GetItem),
        ("aa", GetSideRow),
        ("", LookAhead),
        ("aa", RaiseFloor),
    ]


@pytest.mark.parametrize("look_ahead", [True, False], ids=["looking ahead", "not looking ahead"])
def test_a_put_whose_item_the_daemon_removed_is_put_back(look_ahead: bool) -> None:
    cluster = seeded(policy=ActivePolicy(look_ahead=look_ahead, waits=0))
    cluster.write("aa", TWO, 9)
    cluster.write("bb", None, 3)
    cluster.next_record("bb")
    requests = cluster.next_record("aa")
    looked = [("", LookAhead)] if look_ahead else []
    assert asked(requests)[2:] == [*looked, ("aa", StampedPut), ("bb", GetItem), ("bb", GetSideRow), ("bb", StampedPut)]
    cluster.settle()
    assert contents(cluster) == [TWO, TWO]


def test_a_put_back_that_meets_an_item_looks_again() -> None:
    cluster = reused(policy=ActivePolicy(look_ahead=False, waits=0))
    record = cluster.write("aa", TWO, 9)
    assert record is not None
    cluster.slots[A] = cluster.slots[A]._replace(item=None)

    def put(world: Cluster, request: MeshRequest) -> None:
        if isinstance(request, At) and request.region == A and isinstance(request.request, StampedPut):
            world.write("aa", THREE, 9)
            world.meddle = None

    cluster.meddle = put
    assert asked(cluster.run("aa", record))[2:6] == [
        ("aa", StampedPut),
        ("aa", GetItem),
        ("aa", GetSideRow),
        ("aa", Restamp),
    ]


def test_a_put_that_was_beaten_while_its_item_is_gone_does_nothing() -> None:
    cluster = seeded()
    record = cluster.write("aa", TWO, 3)
    assert record is not None
    cluster.slots[A] = StampedSlot(None, SideRow(Tombstone(version(9, "bb", 1), NO_PARENT, content_of(ONE))))
    assert asked(cluster.run("aa", record)) == [("aa", GetItem), ("aa", GetSideRow)]
    assert cluster.finished[-1].ending is Ending.BEATEN


def beaten(standing: Image) -> tuple[Cluster, list[MeshRequest]]:
    """A put of region aa whose item has become `standing`, beside a newer tombstone."""
    cluster = seeded()
    record = cluster.write("aa", TWO, 3)
    assert record is not None
    row = SideRow(Tombstone(version(9, "bb", 1), NO_PARENT, content_of(ONE)))
    cluster.slots[A] = StampedSlot(standing, row)
    return cluster, cluster.run("aa", record)


def test_a_put_that_lost_to_a_newer_delete_is_removed() -> None:
    cluster, requests = beaten(TWO)
    assert asked(requests)[2:] == [("aa", GetItem), ("aa", Restamp), ("aa", DeleteMarked)]
    assert cluster.item("aa") is None
    assert cluster.finished[-1].ending is Ending.BEATEN


def test_a_later_local_write_beside_a_newer_delete_is_left_to_its_own_record() -> None:
    cluster, requests = beaten(THREE)
    assert asked(requests)[2:] == []
    assert cluster.finished[-1].ending is Ending.BEATEN


def test_an_item_newer_than_the_newer_delete_supersedes() -> None:
    cluster, requests = beaten(held_at(THREE, version(9, "cc", 1)))
    assert asked(requests)[2:] == []
    assert cluster.finished[-1].ending is Ending.SUPERSEDED


def test_a_removal_that_meets_something_newer_looks_again() -> None:
    cluster = seeded()
    record = cluster.write("aa", TWO, 3)
    assert record is not None
    row = SideRow(Tombstone(version(9, "bb", 1), NO_PARENT, content_of(ONE)))
    cluster.slots[A] = StampedSlot(TWO, row)

    def overtake(world: Cluster, request: MeshRequest) -> None:
        if len(world.asked) == 3:
            world.slots[A] = StampedSlot(held_at(TWO, version(9, "cc", 1)), row)

    cluster.meddle = overtake
    assert asked(cluster.run("aa", record)) == [
        ("aa", GetItem),
        ("aa", GetSideRow),
        ("aa", GetItem),
        ("aa", GetItem),
        ("aa", GetSideRow),
    ]
    assert cluster.finished[-1].ending is Ending.SUPERSEDED


def test_a_put_that_something_newer_has_replaced_is_superseded() -> None:
    cluster = seeded()
    cluster.write("aa", TWO, 3)
    cluster.slots[A] = StampedSlot(held_at(THREE, version(9, "bb", 1)))
    assert asked(cluster.next_record("aa")) == [("aa", GetItem), ("aa", GetSideRow)]
    assert cluster.finished[-1].ending is Ending.SUPERSEDED


def test_an_older_image_of_the_daemon_over_a_local_put_is_repaired() -> None:
    cluster = seeded()
    cluster.write("aa", TWO, 9)
    cluster.slots[A] = StampedSlot(held_at(THREE, version(3, "bb", 1)))
    assert asked(cluster.next_record("aa"))[2] == ("aa", StampedPut)
    assert contents(cluster) == [TWO, TWO]


def test_a_stamp_back_that_is_refused_looks_again() -> None:
    cluster = seeded()
    record = cluster.write("aa", TWO, 9)
    assert record is not None

    def put(world: Cluster, request: MeshRequest) -> None:
        if isinstance(request, At) and isinstance(request.request, Restamp):
            world.slots[A] = StampedSlot(held_at(THREE, version(3, "bb", 1)))
            world.meddle = None

    cluster.meddle = put
    assert asked(cluster.run("aa", record))[2:6] == [
        ("aa", Restamp),
        ("aa", GetItem),
        ("aa", GetSideRow),
        ("aa", StampedPut),
    ]


# -- a delete at home ----------------------------------------------------------------------------------------------


def test_a_delete_that_met_another_write_of_its_row_looks_again() -> None:
    cluster = seeded()
    record = cluster.write("aa", None, 9)
    assert record is not None

    def raise_tombstone(world: Cluster, request: MeshRequest) -> None:
        if isinstance(request, At) and isinstance(request.request, SettleTombstone):
            row = SideRow(Tombstone(version(1, "bb", 7), NO_PARENT, content_of(ONE)))
            world.slots[A] = StampedSlot(None, row)
            world.meddle = None

    cluster.meddle = raise_tombstone
    assert asked(cluster.run("aa", record))[2:6] == [
        ("aa", SettleTombstone),
        ("aa", GetItem),
        ("aa", GetSideRow),
        ("aa", SettleTombstone),
    ]


def deleted(slot: StampedSlot, second: int = 5) -> tuple[Cluster, list[MeshRequest]]:
    """A delete of region aa, behind which this stands."""
    cluster = seeded()
    record = cluster.write("aa", None, second)
    assert record is not None
    cluster.slots[A] = slot
    return cluster, cluster.run("aa", record)


NEWER_ROW = SideRow(Tombstone(version(9, "bb", 1), NO_PARENT, content_of(ONE)))


def test_a_delete_is_merged_into_a_newer_one() -> None:
    cluster, requests = deleted(StampedSlot(None, NEWER_ROW))
    assert asked(requests) == [("aa", GetItem), ("aa", GetSideRow)]
    assert cluster.finished[-1].ending is Ending.BEATEN
    assert cluster.logged == []


@pytest.mark.parametrize("row", [SideRow(), NEWER_ROW], ids=["alone", "merged"])
def test_a_delete_that_a_newer_put_beat_is_logged_merged_or_not(row: SideRow) -> None:
    cluster, _ = deleted(StampedSlot(held_at(TWO, version(9, "bb", 3)), row))
    assert [(entry.kind, entry.winner) for entry in cluster.logged] == [("put_delete", TWO)]


@pytest.mark.parametrize(
    "standing",
    [
        TWO,
        held_at(TWO, version(9, "aa", 7)),
        held_at(TWO, version(9, "bb", 3), kind=StampKind.MARK),
        held_at(TWO, version(9, "bb", 3), parent=parent_of(version(5, "aa", 1))),
    ],
    ids=["unstamped", "own", "marked", "knew of it"],
)
def test_a_delete_is_not_logged_beside_what_did_not_beat_it_unseen(standing: Image) -> None:
    cluster, _ = deleted(StampedSlot(standing))
    assert [entry.kind for entry in cluster.logged] == []


def test_a_delete_removes_what_an_older_put_of_the_daemon_brought_back() -> None:
    cluster, requests = deleted(StampedSlot(held_at(TWO, version(3, "bb", 3))))
    assert asked(requests)[2:6] == [
        ("aa", SettleTombstone),
        ("aa", GetItem),
        ("aa", Restamp),
        ("aa", DeleteMarked),
    ]
    assert cluster.item("aa") is None


def test_a_delete_keeps_what_is_known_of_a_later_removal() -> None:
    later = replace(SideRow(), removed_at=write_sequence(GENERATION, 40), removed=version(9, "bb", 1))
    cluster, requests = deleted(StampedSlot(None, later))
    settled = requests[2]
    assert isinstance(settled, At)
    assert isinstance(settled.request, SettleTombstone)
    assert settled.request.removed_at is None
    assert cluster.slots[A].row.removed == version(9, "bb", 1)
    assert cluster.slots[A].row.deleted == version(5, "aa", 1)


# -- verification --------------------------------------------------------------------------------------------------


def inserted(slot: StampedSlot, at: Version, parent: str = NO_PARENT) -> tuple[Cluster, list[MeshRequest]]:
    """The daemon put an item into region aa where none was; this is what stands there when its record is read."""
    cluster = Cluster()
    record = cluster.write("aa", held_at(TWO, at, parent=parent), 0)
    assert record is not None
    cluster.slots[A] = slot
    return cluster, cluster.run("aa", record)


PUT_AT = version(5, "bb", 1)


def row_of(at: Version) -> SideRow:
    return SideRow(Tombstone(at, NO_PARENT, content_of(ONE)))


def test_an_insert_beside_a_newer_tombstone_is_taken_back() -> None:
    cluster, requests = inserted(StampedSlot(held_at(TWO, PUT_AT), row_of(version(9, "aa", 3))), PUT_AT)
    assert asked(requests) == [("aa", GetSideRow), ("aa", GetItem), ("aa", Restamp), ("aa", DeleteMarked)]
    assert (cluster.item("aa"), cluster.logged) == (None, [])


def test_a_local_write_is_not_taken_back() -> None:
    _, requests = inserted(StampedSlot(THREE, row_of(version(9, "aa", 3))), PUT_AT)
    assert asked(requests) == [("aa", GetSideRow), ("aa", GetItem)]


@pytest.mark.parametrize(
    ("standing", "logged"),
    [
        (held_at(TWO, version(9, "bb", 3)), ["put_delete"]),
        (held_at(TWO, version(9, "bb", 3), parent=parent_of(version(9, "aa", 3))), []),
        (held_at(TWO, version(9, "aa", 4)), []),
        (held_at(TWO, version(9, "bb", 3), kind=StampKind.MARK), []),
    ],
    ids=["unseen", "knew of it", "own", "marked"],
)
def test_a_newer_put_that_is_met_instead_beats_the_delete(standing: Image, logged: list[str]) -> None:
    cluster, _ = inserted(StampedSlot(standing, row_of(version(9, "aa", 3))), PUT_AT)
    assert [entry.kind for entry in cluster.logged] == logged


@pytest.mark.parametrize(
    ("at", "parent", "logged"),
    [
        (version(3, "aa", 3), NO_PARENT, ["put_delete"]),
        (version(3, "aa", 3), parent_of(version(3, "aa", 3)), []),
        (version(3, "bb", 0), NO_PARENT, []),
    ],
    ids=["unseen", "knew of it", "same region"],
)
def test_an_insert_beside_an_older_tombstone_beats_that_delete(at: Version, parent: str, logged: list[str]) -> None:
    cluster, requests = inserted(StampedSlot(held_at(TWO, PUT_AT), row_of(at)), PUT_AT, parent)
    assert asked(requests)[0] == ("aa", GetSideRow)
    assert [entry.kind for entry in cluster.logged] == logged


def test_an_overwritten_local_write_that_is_gone_stays_overwritten() -> None:
    cluster = seeded()
    cluster.slots[A] = StampedSlot(THREE)
    record = cluster.write("aa", held_at(TWO, PUT_AT), 0)
    assert record is not None
    cluster.run("aa", record)
    assert [(entry.kind, entry.outcome) for entry in cluster.logged] == [("unversioned", "overwritten")]


def test_an_overwrite_of_a_parent_or_of_the_own_region_is_no_conflict() -> None:
    for old, new in (
        (version(3, "aa", 1), held_at(TWO, PUT_AT, parent=parent_of(version(3, "aa", 1)))),
        (version(3, "bb", 1), held_at(TWO, PUT_AT)),
    ):
        cluster = Cluster()
        cluster.slots[A] = StampedSlot(held_at(ONE, old))
        record = cluster.write("aa", new, 0)
        assert record is not None
        assert asked(cluster.run("aa", record)) == []


@pytest.mark.parametrize(
    ("shown", "decided", "overtakes"),
    [
        (version(8, "bb", 1), version(7, "aa", 1), True),
        (version(8, "bb", 1), version(8, "bb", 1), False),
        (version(8, "bb", 1), version(9, "aa", 1), False),  # it was repaired above what had come over it
        (version(9, "aa", 2), version(7, "aa", 1), False),  # the home region's own stamp
    ],
)
@pytest.mark.parametrize("removes", [False, True])
def test_what_was_refused_is_overtaken_by_what_another_region_wrote_above_it(
    removes: bool, shown: Version, decided: Version, overtakes: bool
) -> None:
    mark = held_at(ONE, shown, kind=StampKind.MARK)
    cluster = seeded()
    cluster.slots[A] = StampedSlot(mark if removes else ONE)
    record = cluster.write("aa", None if removes else held_at(TWO, shown), 9)
    assert record is not None
    assert ActiveRecord(record, cluster.mesh("aa")).overtakes(decided.text) is overtakes

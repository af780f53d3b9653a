from __future__ import annotations

import pytest

from replicator.domain.conflict_document import LONGEST_IMAGES, SCHEMA, document, shown_time
from replicator.domain.conflicts import ConflictEntry, ConflictKind, LogConflict, Operation, Reason, Resolution, Witness
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName
from replicator.domain.image import Image
from replicator.domain.records import item_key
from replicator.domain.values import replace
from tests.unit.strategies import image

KEY = item_key(b'{"pk":{"S":"k"}}')
WON = image({"pk": {"S": "k"}, "n": {"N": "2"}})
LOST = image({"pk": {"S": "k"}, "n": {"N": "1.0"}, "secret": {"M": {"inner": {"S": "x"}}}})
WITNESS = Witness(RegionId("us"), ShardId("shard-1"), SequenceNumber("17"))
CONFLICT = LogConflict(
    key=KEY,
    kind=ConflictKind.PUT_PUT,
    winner_version="2",
    winner=WON,
    loser=LOST,
    reason=Reason.LATER_TIME,
    loser_version="1",
    winner_region="us",
    loser_region="eu",
    winner_micros=1_790_000_000_123_456,
)


def entry(conflict: LogConflict = CONFLICT) -> ConflictEntry:
    return ConflictEntry(conflict, TableName("orders"), RuleName("orders"), "active-active", WITNESS, 1_790_000_001.0)


def test_a_document_holds_everything_in_names_of_its_own() -> None:
    assert document(entry()) == {
        "id": entry().id,
        "sv": SCHEMA,
        "rule": "orders",
        "mode": "active-active",
        "table": "orders",
        "key": {"pk": {"S": "k"}},
        "detected_at": "2026-09-21T14:13:21.000+00:00",
        "kind": "put_put",
        "reason": "later_time",
        "outcome": Resolution.OVERWRITTEN,
        "witness_region": "us",
        "witness_shard": "shard-1",
        "witness_seq": "17",
        "winner_version": "2",
        "winner_region": "us",
        "winner_time": "2026-09-21T14:13:20.123+00:00",
        "winner_op": Operation.PUT,
        "winner": WON.attributes,
        "loser_version": "1",
        "loser_region": "eu",
        "loser_time": None,
        "loser_op": "put",
        "loser": LOST.attributes,
    }


def test_times_sort_as_text() -> None:
    moments = [0.0, 1.5, 1_790_000_000.0, 1_790_000_000.001]
    assert [shown_time(moment) for moment in moments] == sorted(shown_time(moment) for moment in moments)


def test_an_entry_names_its_item_as_side_rows_do() -> None:
    assert entry().item == KEY.side_key("orders")


# -- identity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "same",
    [
        replace(CONFLICT, kind=ConflictKind.DELETE_PUT, reason=None, outcome=Resolution.REPAIRED),
        replace(CONFLICT, winner_region=None, loser_region="ap", winner_micros=None, winner=None, loser=None),
    ],
)
def test_the_same_two_writes_have_one_id_wherever_they_are_seen(same: LogConflict) -> None:
    seen_elsewhere = replace(entry(same), detected_at=0.0, witness=replace(WITNESS, region=RegionId("eu")), mode="m")
    assert seen_elsewhere.id == entry().id


def test_other_writes_have_other_ids() -> None:
    unversioned = replace(CONFLICT, loser_version=None)
    others = [
        entry(),
        replace(entry(), table=TableName("customers")),
        entry(replace(CONFLICT, key=item_key(b'{"pk":{"S":"l"}}'))),
        entry(replace(CONFLICT, winner_version="3")),
        entry(replace(CONFLICT, loser_version="0")),
        entry(unversioned),
        entry(replace(unversioned, loser=WON)),
        entry(replace(unversioned, loser=None)),
    ]
    assert len({other.id for other in others}) == len(others)


def test_a_loser_without_a_version_is_known_by_its_content() -> None:
    spelled = Image(b'{"secret":{"M":{"inner":{"S":"x"}}},"n":{"N":"1"},"pk":{"S":"k"}}')
    unversioned = replace(CONFLICT, loser_version=None)
    assert entry(unversioned).id == entry(replace(unversioned, loser=spelled)).id


# -- masks and bounds ----------------------------------------------------------------------------------------------


def test_named_attributes_are_masked_as_a_whole_and_keys_never() -> None:
    shown = document(entry(), frozenset({"secret", "pk", "n"}))
    assert shown["winner"] == {"pk": {"S": "k"}, "n": {"S": "***"}}
    assert shown["loser"] == {"pk": {"S": "k"}, "n": {"S": "***"}, "secret": {"S": "***"}}
    assert (shown["winner_masked"], shown["loser_masked"]) == (["n"], ["n", "secret"])
    assert "loser_truncated" not in shown
    assert LOST.attributes["n"] == {"N": "1.0"}, "the image itself stays as it is"


def long(size: int) -> Image:
    return image({"pk": {"S": "k"}, "long": {"S": "x" * size}, "short": {"S": "y"}})


@pytest.mark.parametrize(
    ("winner", "loser", "cut"),
    [
        (190_000, 190_000, set()),
        (200_000, 200_000, {"winner"}),
        (10, 389_800, set()),
        (300, 389_800, {"winner"}),
        (10, 400_000, {"loser"}),
        (400_000, 400_000, {"winner", "loser"}),
    ],
)
def test_images_that_are_too_long_together_are_cut_the_winner_first(winner: int, loser: int, cut: set[str]) -> None:
    images = {"winner": long(winner), "loser": long(loser)}
    shown = document(entry(replace(CONFLICT, winner=images["winner"], loser=images["loser"])))
    assert {name for name in images if shown.get(f"{name}_truncated")} == cut
    for name in cut:
        assert shown[name].keys() <= {"pk", "short"}
        assert shown[f"{name}_bytes"] == len(images[name].wire)
    for name in images.keys() - cut:
        assert shown[name] == images[name].attributes
    assert sum(len(Image(str(shown[name]).encode()).wire) for name in images) <= LONGEST_IMAGES


def test_nothing_is_left_of_an_image_for_which_there_is_no_room() -> None:
    assert document(entry(), bound=0)["winner"] == document(entry(), bound=0)["loser"] == {}
    without = document(entry(replace(CONFLICT, winner=None, winner_op=Operation.DELETE)))
    assert (without["winner"], without["winner_op"]) == (None, "delete")


def test_a_mask_may_make_an_image_fit() -> None:
    shown = document(entry(replace(CONFLICT, loser=long(400_000))), frozenset({"long"}))
    assert shown["loser"] == {"pk": {"S": "k"}, "long": {"S": "***"}, "short": {"S": "y"}}
    assert "loser_truncated" not in shown

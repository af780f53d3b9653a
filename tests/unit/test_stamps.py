from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from hashlib import sha256
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.domain import stamps
from replicator.domain.image import LARGEST_KEPT, Image, canonical, stamped
from replicator.domain.stamps import (
    NO_PARENT,
    NO_ROW,
    SideRow,
    Stamp,
    StampKind,
    Tombstone,
    Version,
    bumped,
    content_of,
    given_before,
    held,
    mark_prefix,
    parent_of,
    parse_stamp,
    parse_version,
    write_sequence,
)
from tests.unit.strategies import Typed, image, items
from tests.unit.test_image import few_items, respelled_item, same_item

GENERATION = 1_700_000_000_000
NONCE = "n0nce-_8"


def _mixed(limit: int) -> st.SearchStrategy[int]:
    """Small numbers often, so that equal fields and carries between widths are met."""
    return st.one_of(st.integers(0, 11), st.integers(0, limit))


versions = st.builds(
    Version, _mixed(10**16 - 1), _mixed(10**6 - 1), st.sampled_from(["aa", "ab", "zz"]), _mixed(10**53 - 1)
)
few_versions = st.builds(
    Version, st.integers(0, 2), st.integers(0, 2), st.sampled_from(["aa", "bb"]), st.integers(0, 2)
)

V = Version(1_700_000_000_000_000, 3, "eu", write_sequence(GENERATION, 17))
STAMP = Stamp(V, StampKind.VALUE, "0123456789abcde_", "0123456789-_")
ITEM = image({"pk": {"S": "k"}, "n": {"N": "1"}})


# -- versions ------------------------------------------------------------------------------------------------------


@given(versions, versions)
def test_versions_sort_as_text_and_as_bytes_like_their_parts(left: Version, right: Version) -> None:
    parts = [(v.micros, v.counter, v.region, v.sequence) for v in (left, right)]
    assert (left < right) == (parts[0] < parts[1])
    assert (left.text < right.text) == (left < right)
    assert (left.text.encode() < right.text.encode()) == (left < right)
    assert len(left.text) == len(right.text) == 80


@given(versions)
def test_a_version_is_read_back_from_its_text(version: Version) -> None:
    assert parse_version(version.text) == version


def test_a_version_is_written_as_the_protocol_says() -> None:
    assert V.text == "1700000000000000.000003.eu.1700000000000" + "17".zfill(40)


@pytest.mark.parametrize(
    "text", ["", V.text[:-1], V.text + "0", V.text + "\n", V.text.upper(), V.text.replace(".", "!"), "x" * 80]
)
def test_another_text_is_no_version(text: str) -> None:
    assert parse_version(text) is None


def test_writes_of_a_later_stream_come_after_all_of_an_earlier_one() -> None:
    assert write_sequence(1, 10**40 - 1) < write_sequence(2, 0)
    assert write_sequence(3, 4) == 3 * 10**40 + 4


@pytest.mark.parametrize(("generation", "number"), [(-1, 0), (0, -1), (10**13, 0), (0, 10**40)])
def test_a_place_that_does_not_fit_a_version_is_refused(generation: int, number: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        write_sequence(generation, number)


# -- bump ----------------------------------------------------------------------------------------------------------


def least_above(raw: Version, lower: list[Version | None]) -> Version:
    """What `bumped` promises, by trying all versions of the write; slow."""
    others = [f for f in lower if f is not None and (f.region, f.sequence) != (raw.region, raw.sequence)]
    tried = [replace(raw, micros=micros, counter=counter) for micros, counter in product(range(5), range(5))]
    return min(v for v in tried if v >= raw and all(v > floor for floor in others))


@given(few_versions, st.lists(st.one_of(st.none(), few_versions), max_size=4))
def test_a_bumped_version_is_the_least_of_its_write_above_every_floor(
    raw: Version, lower: list[Version | None]
) -> None:
    raw = replace(raw, counter=0)
    assert bumped(raw, lower) == least_above(raw, lower)


@given(few_versions, st.permutations([Version(1, 0, "aa", 1), Version(1, 1, "bb", 0), Version(0, 2, "bb", 2)]))
def test_the_order_of_floors_does_not_matter(raw: Version, lower: list[Version]) -> None:
    assert bumped(raw, lower) == bumped(raw, sorted(lower))


@given(few_versions, few_versions, st.lists(few_versions, max_size=3))
def test_a_replay_that_knows_more_never_exceeds_what_a_later_write_was_given(
    one: Version, two: Version, lower: list[Version]
) -> None:
    earlier = Version(one.micros, 0, "bb", 1)
    later = bumped(Version(two.micros, 0, "bb", 2), [bumped(earlier, []), *lower])
    known = [floor for floor in lower if given_before(floor, "bb", 1) or floor.region != "bb"]
    assert bumped(earlier, [floor for floor in known if floor < later]) < later


def test_a_full_counter_is_carried_into_the_time() -> None:
    floor = Version(5, 999_999, "zz", 1)
    assert bumped(Version(1, 0, "aa", 2), [floor]) == Version(6, 0, "aa", 2)


# -- content -------------------------------------------------------------------------------------------------------


@given(few_items, few_items)
def test_contents_have_equal_hashes_exactly_when_items_are_equal(
    left: dict[str, Typed], right: dict[str, Typed]
) -> None:
    assert (content_of(image(left)) == content_of(image(right))) == same_item(left, right)


@given(items, st.data())
def test_a_content_hash_depends_neither_on_the_spelling_nor_on_the_stamp(
    item: dict[str, Typed], data: st.DataObject
) -> None:
    other = Image(stamped(image(respelled_item(item, data)), STAMP.sealed(NONCE)))
    assert content_of(other) == content_of(image(item))
    assert len(content_of(other)) == 16


def test_the_stamp_may_stand_in_another_attribute() -> None:
    mine = Image(stamped(ITEM, STAMP.sealed(NONCE), "_sync"))
    assert mine.attributes["_sync"] == {"S": STAMP.sealed(NONCE)}
    assert content_of(mine, "_sync") == content_of(ITEM)
    assert content_of(mine) != content_of(ITEM)
    users = image({**ITEM.attributes, "_rep": {"S": "a user's own"}})
    assert content_of(users, "_sync") != content_of(ITEM, "_sync")


def test_hashes_are_the_first_characters_of_a_url_safe_sha256() -> None:
    assert content_of(ITEM) == urlsafe_b64encode(sha256(canonical(ITEM)).digest())[:16].decode()
    assert parent_of(V) == urlsafe_b64encode(sha256(V.text.encode()).digest())[:12].decode()


def test_content_too_large_to_be_kept_is_hashed_as_other_content_is() -> None:
    long = {"S": "x" * LARGEST_KEPT}
    large = image({"pk": {"S": "k"}, "long": long, "n": {"N": "1"}})
    assert content_of(large) == urlsafe_b64encode(sha256(canonical(large)).digest())[:16].decode()
    respelled = image({"n": {"N": "1.0"}, "pk": {"S": "k"}, "long": long})
    assert content_of(Image(stamped(respelled, STAMP.sealed(NONCE), "_sync")), "_sync") == content_of(large)
    assert content_of(image({"pk": {"S": "k"}, "long": long, "n": {"N": "2"}})) != content_of(large)
    looked_at = held(large)
    assert looked_at is not None
    assert looked_at.content == content_of(large)


def test_hashes_of_contents_are_kept_within_bounds_and_stay_those_of_their_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stamps, "_AT_LEAST_KNOWN", 3)
    known = stamps._Known()
    items = [Image(b'{"pk":{"N":"%d"}}' % number) for number in range(10)]
    alone = [stamps._Known().of(item, "_rep") for item in items]
    assert len(set(alone)) == len(items)
    for _ in range(2):
        assert [known.of(item, "_rep") for item in items] == alone
        assert len(known._young) + len(known._old) <= 6


# -- stamps --------------------------------------------------------------------------------------------------------


@given(versions, st.sampled_from(StampKind), st.sampled_from([NO_PARENT, "0123456789-_"]))
def test_a_stamp_is_read_back_without_its_nonce(version: Version, kind: StampKind, parent: str) -> None:
    stamp = Stamp(version, kind, "0123456789abcde_", parent)
    assert parse_stamp(stamp.sealed(NONCE)) == stamp


@given(versions, versions)
def test_a_stamp_sorts_below_exactly_the_versions_above_its_own(left: Version, right: Version) -> None:
    text = Stamp(left, StampKind.VALUE, "x" * 16, NO_PARENT).sealed(NONCE)
    assert (text < right.text) == (left < right)


def test_a_stamp_is_written_as_the_protocol_says() -> None:
    assert STAMP.sealed(NONCE) == f"{V.text}!P!0123456789abcde_!0123456789-_!{NONCE}"
    mark = replace(STAMP, kind=StampKind.MARK)
    assert mark.sealed(NONCE).startswith(mark_prefix(V))
    assert not STAMP.sealed(NONCE).startswith(mark_prefix(V))


@pytest.mark.parametrize(
    "text",
    [
        "",
        V.text,
        STAMP.sealed(NONCE)[:-1],
        STAMP.sealed(NONCE) + "x",
        STAMP.sealed("n?nce678"),
        STAMP.sealed(NONCE).replace("!P!", "!X!"),
        STAMP.sealed(NONCE).replace(".eu.", ".e1."),
        "7" * 56,
    ],
)
def test_another_text_is_no_stamp(text: str) -> None:
    assert parse_stamp(text) is None


# -- items ---------------------------------------------------------------------------------------------------------


def test_an_item_is_intact_when_it_is_as_it_was_stamped() -> None:
    stamp = Stamp(V, StampKind.VALUE, content_of(ITEM), NO_PARENT)
    item = held(Image(stamped(ITEM, stamp.sealed(NONCE))))
    assert item is not None
    assert (item.intact, item.version, item.kind) == (True, V, StampKind.VALUE)
    assert item.seen == json.dumps({"S": stamp.sealed(NONCE)}, separators=(",", ":")).encode()
    other = held(Image(stamped(ITEM, replace(stamp, content="x" * 16).sealed(NONCE))))
    assert other is not None
    assert (other.intact, other.version) == (False, V)


def test_what_was_looked_at_before_changes_nothing_of_what_is_seen() -> None:
    version = Version(1, 0, "eu", 7)
    filling = {"filling": {"S": "x" * 300}}
    contents = [{"pk": {"S": "a"}, "n": {"N": number}, **filling} for number in ("1", "1.0", "2")]
    stamped_by = [
        Stamp(version, kind, content_of(image(contents[0])), NO_PARENT).sealed(nonce)
        for kind, nonce in ((StampKind.VALUE, "AAAAAAAA"), (StampKind.VALUE, "BBBBBBBB"), (StampKind.MARK, "AAAAAAAA"))
    ]
    seen: list[Typed] = [*({"S": text} for text in stamped_by), {"S": "what a user wrote"}, {"N": "1"}]
    looks = [
        image(item)
        for content in contents
        for item in (
            content,
            *({**content, "_rep": each} for each in seen),
            *({"_rep": each, **content} for each in seen),
        )
    ]
    alone = [held(look) for look in looks]
    assert all(len(look.wire) > 256 for look in looks), "nothing is kept of what is larger than small items"
    for (look, expected), before in product(zip(looks, alone, strict=True), alone):
        assert held(look, like=before) == expected


def test_an_item_without_a_stamp_is_not_intact_and_has_no_version() -> None:
    item = held(ITEM)
    assert item is not None
    assert (item.seen, item.stamp, item.version, item.kind, item.intact) == (None, None, None, None, False)
    assert held(None) is None


@pytest.mark.parametrize("value", [{"S": "mine"}, {"N": "1"}, {"NULL": True}, {"SS": [STAMP.sealed(NONCE)]}])
def test_an_attribute_that_is_no_stamp_is_seen_but_says_nothing(value: Typed) -> None:
    item = held(image({**ITEM.attributes, "_rep": value}))
    assert item is not None
    assert item.seen is not None
    assert json.loads(item.seen) == value
    assert (item.stamp, item.intact) == (None, False)


# -- side rows -----------------------------------------------------------------------------------------------------


def test_a_write_saw_a_removal_that_took_effect_before_it() -> None:
    row = SideRow(removed_at=5, removed=V)
    assert [row.removed_before(sequence) for sequence in (4, 5, 6)] == [None, None, V]
    assert NO_ROW.removed_before(6) is None
    assert NO_ROW.deleted is None
    assert SideRow(Tombstone(V, NO_PARENT, "")).deleted == V


def test_versions_given_before_are_those_of_earlier_writes_of_the_region() -> None:
    version = Version(9, 0, "aa", 5)
    assert [given_before(version, "aa", sequence) for sequence in (5, 6)] == [None, version]
    assert given_before(version, "bb", 6) is None
    assert given_before(None, "aa", 6) is None

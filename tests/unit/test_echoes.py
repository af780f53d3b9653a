"""Records of the daemon's own writes that are recognised in one look, beside the general way through classification."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicator.domain.identifiers import RegionId, SequenceNumber
from replicator.domain.image import Image, parted, restamped
from replicator.domain.modes.active_active.classify import Origin, classify
from replicator.domain.modes.active_active.echoes import is_own_stamp
from replicator.domain.modes.active_active.mesh import ActivePolicy, Mesh
from replicator.domain.modes.ordered import Effect
from replicator.domain.modes.versioned.own_writes import OwnWrites
from replicator.domain.modes.versioned.ranks import VersionAttribute, VersionType, rank_of
from replicator.domain.modes.versioned.replicate import Joined, VersionedMesh
from replicator.domain.records import ChangeRecord, Event, item_key
from replicator.domain.stamps import NO_PARENT, Stamp, StampKind, Version, content_of, held
from replicator.engine.applying.context import Begun, Tally
from replicator.engine.applying.mesh_records import ActiveRecord, VersionedRecord
from tests.unit.strategies import Typed, image

STAMPS = ("_rep", "my\\/é")
KEY = b'{"pk":{"S":"k"}}'

Item = dict[str, Typed]

CONTENTS: list[Item] = [
    {"pk": {"S": "k"}, "n": {"N": "1"}},
    {"pk": {"S": "k"}, "n": {"N": "1.0"}},
    {"n": {"N": "1"}, "pk": {"S": "k"}},
    {"pk": {"S": "k"}, "n": {"N": "2"}},
    {"pk": {"S": "k"}, "a_rep": {"S": "\\x"}},
    {"pk": {"S": "k"}, "m": {"M": {"_rep": {"S": "x"}, STAMPS[1]: {"S": "x"}}}},
    {"pk": {"S": "k"}, "aws:rep:updatetime": {"N": "1"}},
]
VERSIONS = [Version(seconds, 0, region, 1) for seconds in (1, 2) for region in ("aa", "bb")]


@st.composite
def stamps(draw: st.DrawFn, item: Item) -> Typed | None:
    """None, something that is no stamp, or a stamp that fits an item or not."""
    if not draw(st.integers(0, 7)):
        return draw(st.sampled_from([None, {"S": "1!P"}, {"N": "1"}, {"S": ""}]))
    content = content_of(image(draw(st.sampled_from([item, item, CONTENTS[3]]))))
    kind, version = draw(st.sampled_from(StampKind)), draw(st.sampled_from(VERSIONS))
    return {"S": Stamp(version, kind, content, NO_PARENT).sealed("nonce---")}


@st.composite
def stored(draw: st.DrawFn, item: Item, name: str) -> Image:
    """An item with or without a stamp, which mostly stands at the end."""
    given_stamp = draw(stamps(item))
    if given_stamp is None:
        return image(item)
    first = draw(st.integers(0, 5)) == 0
    whole = {name: given_stamp, **item} if first else {**item, name: given_stamp}
    return Image(json.dumps(whole, separators=(",", ":"), ensure_ascii=draw(st.booleans())).encode())


@st.composite
def writes(draw: st.DrawFn) -> tuple[str, ChangeRecord]:
    """A change of an item, mostly of its stamp alone."""
    name = draw(st.sampled_from(STAMPS))
    before = draw(st.sampled_from(CONTENTS))
    after = before if draw(st.integers(0, 3)) else draw(st.sampled_from(CONTENTS))
    return name, changed(draw(stored(before, name)), draw(stored(after, name)))


def changed(old: Image, new: Image) -> ChangeRecord:
    return ChangeRecord(Event.MODIFY, item_key(KEY), old, new, SequenceNumber("1"), 0.0)


def marked(item: Item, version: Version, kind: StampKind = StampKind.VALUE, of: Item | None = None) -> Image:
    content = content_of(image(item if of is None else of))
    return image({**item, "_rep": {"S": Stamp(version, kind, content, NO_PARENT).sealed("nonce---")}})


FIRST, LAST = VERSIONS[0], VERSIONS[-1]
ITEM, OTHER = CONTENTS[0], CONTENTS[3]


@given(writes())
@example(("_rep", changed(marked(ITEM, LAST), marked(ITEM, FIRST))))
@example(("_rep", changed(marked(ITEM, FIRST), marked(ITEM, FIRST))))
@example(("_rep", changed(marked(ITEM, FIRST), marked(ITEM, LAST, of=OTHER))))
@example(("_rep", changed(marked(ITEM, FIRST), marked(ITEM, LAST, StampKind.MARK))))
@example(("_rep", changed(marked(ITEM, FIRST, StampKind.MARK), marked(ITEM, LAST))))
@example(("_rep", changed(image({"_rep": {"S": "x"}, **ITEM}), marked({"_rep": {"S": "x"}, **ITEM}, LAST))))
def test_what_is_told_at_a_glance_asks_for_nothing(written: tuple[str, ChangeRecord]) -> None:
    name, record = written
    assert record.new is not None
    mesh = Mesh(RegionId("aa"), (RegionId("bb"),), 1, ActivePolicy(attribute=name))
    if is_own_stamp(record, name):
        old, new = held(record.old, name), held(record.new, name)
        assert old is not None
        assert new is not None
        assert classify(old, new, by_ttl=False) is Origin.ECHO_MODIFY
        assert old.content == new.content
        assert ActiveRecord(record, mesh).is_passed
    taken = ActiveRecord(record, mesh)
    if taken.is_passed:
        with pytest.raises(StopIteration) as end:
            next(taken.settle())
        assert end.value.value is Effect.ECHO


TWICE = image({"_rep": {"S": "x"}, **ITEM})
RESERVED = CONTENTS[-1]


@given(writes())
@example(("_rep", changed(marked(ITEM, FIRST), marked(OTHER, LAST))))
@example(("_rep", changed(marked(RESERVED, FIRST), marked(RESERVED, LAST))))
@example(("_rep", changed(image(RESERVED), marked(RESERVED, LAST))))
@example(("_rep", changed(TWICE, Image(TWICE.wire[:-1] + b',"_rep":{"S":"y"}}'))))
def test_two_images_that_differ_by_stamps_alone_are_parted_as_each_by_itself(
    written: tuple[str, ChangeRecord],
) -> None:
    name, record = written
    assert record.old is not None
    assert record.new is not None
    alike = restamped(record.old, record.new, name)
    if alike is not None:
        bare, seen, given_stamp = alike
        assert parted(record.old, name) == (Image(bare), seen)
        assert parted(record.new, name) == (Image(bare), given_stamp)


@pytest.mark.parametrize("before", [image(ITEM), marked(OTHER, FIRST), marked(ITEM, FIRST, of=OTHER)])
def test_a_stamp_behind_a_users_write_is_told_at_a_glance(before: Image) -> None:
    content, _ = parted(before)
    stamp = Stamp(LAST, StampKind.VALUE, content_of(content), NO_PARENT)
    record = changed(before, image({**content.attributes, "_rep": {"S": stamp.sealed("nonce---")}}))
    assert is_own_stamp(record, "_rep")


# -- mode versioned ----------------------------------------------------------------------------------------------------

HERE, THERE = RegionId("aa"), RegionId("bb")
VERSIONED = VersionedMesh(HERE, (THERE,), VersionAttribute("n", VersionType.NUMBER))
RANKED = [image({**item, "n": {"N": number}}) for item in (ITEM, CONTENTS[4]) for number in ("1", "2")]
REGIONS = st.lists(st.sampled_from([HERE, THERE]), unique=True)


@given(st.sampled_from(RANKED), st.sampled_from(RANKED), st.sampled_from(RANKED), REGIONS)
@example(RANKED[0], RANKED[1], RANKED[1], [HERE, THERE])
@example(RANKED[1], RANKED[0], RANKED[0], [HERE, THERE])
@example(RANKED[0], RANKED[1], RANKED[1], [THERE])
@example(RANKED[0], RANKED[1], RANKED[1], [HERE])
def test_an_own_write_that_every_region_holds_asks_for_nothing(
    old: Image, new: Image, brought: Image, regions: list[RegionId]
) -> None:
    own_writes, record = OwnWrites(8), changed(old, new)
    rank = rank_of(VERSIONED.version, brought)
    own_writes.note(record.key, Joined(rank, {}, tuple(regions)), 0.0)
    taken = VersionedRecord(record, VERSIONED, own_writes, 1.0)
    rises = rank_of(VERSIONED.version, old) <= rank_of(VERSIONED.version, new)
    assert taken.is_passed == (rises and new == brought and len(regions) == 2)
    if taken.is_passed:
        with pytest.raises(StopIteration) as settled:
            next(taken.settle())
        with pytest.raises(StopIteration) as delivered:
            next(taken.deliver(THERE, settled.value.value))
        assert taken.finish(Begun(settled.value.value, Tally(), {THERE: delivered.value.value})) is Effect.ECHO

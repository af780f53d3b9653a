"""Which puts of a mesh are usual, and what is asked for them: the requests of the steps of the mode, or none."""

from __future__ import annotations

import pytest

from replicator.domain.identifiers import RegionId, SequenceNumber
from replicator.domain.image import Image
from replicator.domain.modes.active_active.mesh import ActivePolicy, Guard, Mesh, Write
from replicator.domain.modes.active_active.replicate import Settled, deliver, settle
from replicator.domain.modes.active_active.usual import is_usual, put_elsewhere, stamped_at_home
from replicator.domain.modes.requests import At, Done, Found, FoundRow
from replicator.domain.records import ChangeRecord, Event, item_key
from replicator.domain.stamps import NO_PARENT, NO_ROW, SideRow, Stamp, StampKind, Version, content_of
from replicator.domain.values import replace

HOME, OTHER = RegionId("us"), RegionId("eu")
MESH = Mesh(HOME, (OTHER,), 0, ActivePolicy())
OPTIMISTIC = replace(MESH, policy=ActivePolicy(guard=Guard.OPTIMISTIC))
KEY = item_key(b'{"pk":{"S":"k"}}')
BEFORE, AFTER = b'{"pk":{"S":"k"},"n":{"N":"1"}', b'{"pk":{"S":"k"},"n":{"N":"2"}'
EARLIER, LATER = Version(1_000_000, 0, "eu", 3), Version(9_000_000, 0, "eu", 4)
OURS = Version(1_000_000, 0, "us", 7)


def item(content: bytes, version: Version | None = None, of: bytes = BEFORE) -> Image:
    if version is None:
        return Image(content + b"}")
    text = Stamp(version, StampKind.VALUE, content_of(Image(of + b"}")), NO_PARENT).sealed("nonce---")
    return Image(b'%b,"_rep":{"S":"%b"}}' % (content, text.encode()))


def write(old: Image | None, new: Image | None) -> Write:
    event = Event.REMOVE if new is None else Event.INSERT if old is None else Event.MODIFY
    return MESH.write(ChangeRecord(event, KEY, old, new, SequenceNumber("7"), 5.0))


UPDATE = write(item(BEFORE, EARLIER), item(AFTER, EARLIER))
USUAL = [UPDATE, write(item(BEFORE, EARLIER), item(AFTER)), write(None, item(AFTER)), write(item(BEFORE), item(AFTER))]


@pytest.mark.parametrize("put", USUAL)
def test_what_keeps_or_wipes_the_stamp_is_usual_and_asked_as_by_the_steps_of_the_mode(put: Write) -> None:
    assert is_usual(MESH, put)
    assert not is_usual(OPTIMISTIC, put)
    assert put.new is not None
    request = stamped_at_home(put, put.new.image, NO_ROW)
    assert request is not None
    steps = settle(MESH, put)
    next(steps)
    steps.send(Found(put.new.image))
    assert steps.send(FoundRow(NO_ROW)) == At(HOME, request)
    with pytest.raises(StopIteration) as end:
        steps.send(Done())
    assert end.value.value.version == request.stamp


@pytest.mark.parametrize("local", USUAL[:2])
def test_it_is_put_over_what_it_found_as_by_the_steps_of_the_mode(local: Write) -> None:
    assert local.old is not None
    assert local.new is not None
    request = stamped_at_home(local, local.new.image, NO_ROW)
    assert request is not None
    put = put_elsewhere(local, request.stamp, local.old.image)
    assert put is not None
    settled = settle(MESH, local)
    next(settled)
    for answer in (Found(local.new.image), FoundRow(NO_ROW)):
        settled.send(answer)
    with pytest.raises(StopIteration) as end:
        settled.send(Done())
    assert isinstance(end.value.value, Settled)
    steps = deliver(MESH, OTHER, local, end.value.value)
    next(steps)
    assert steps.send(Found(local.old.image)) == At(OTHER, put)


@pytest.mark.parametrize(
    "other",
    [
        write(item(BEFORE, EARLIER), None),
        write(item(BEFORE, EARLIER), item(AFTER, LATER, of=AFTER)),
        write(None, item(AFTER, LATER, of=AFTER)),
    ],
)
def test_a_delete_and_what_sets_a_stamp_are_not_usual(other: Write) -> None:
    assert not is_usual(MESH, other)


@pytest.mark.parametrize(
    ("put", "there", "row"),
    [
        (UPDATE, None, NO_ROW),
        (UPDATE, item(AFTER, LATER), NO_ROW),
        (UPDATE, item(BEFORE, EARLIER), NO_ROW),
        (UPDATE, item(AFTER, EARLIER), SideRow(floor=EARLIER)),
        (write(item(BEFORE, LATER), item(AFTER, LATER)), item(AFTER, LATER), NO_ROW),
        (write(item(BEFORE, LATER), item(AFTER)), item(AFTER), NO_ROW),
        (write(item(BEFORE, OURS), item(AFTER, OURS)), item(AFTER, OURS), NO_ROW),
    ],
    ids=["gone", "stamped meanwhile", "other content", "a row", "below its stamp", "below what it wiped", "its own"],
)
def test_what_is_not_as_usual_at_home_is_for_the_steps_of_the_mode(
    put: Write, there: Image | None, row: SideRow
) -> None:
    assert stamped_at_home(put, there, row) is None


@pytest.mark.parametrize(
    ("put", "there"),
    [
        (UPDATE, None),
        (UPDATE, item(BEFORE, LATER)),
        (write(None, item(AFTER)), item(BEFORE)),
        (write(item(BEFORE), item(AFTER)), item(BEFORE)),
        (write(item(BEFORE, EARLIER, of=AFTER), item(AFTER, EARLIER)), item(BEFORE, EARLIER, of=AFTER)),
        (write(item(BEFORE, LATER), item(AFTER, LATER)), item(BEFORE, LATER)),
    ],
    ids=["gone", "stamped by another", "an insert", "without a stamp", "a local write is ahead", "newer there"],
)
def test_what_is_not_as_usual_elsewhere_is_for_the_steps_of_the_mode(put: Write, there: Image | None) -> None:
    assert put.new is not None
    stamp = Stamp(Version(5_000_000, 0, "us", 7), StampKind.VALUE, put.new.content, NO_PARENT)
    assert put_elsewhere(put, stamp, there) is None

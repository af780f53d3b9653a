"""The table of docs/protocol.md, Classification, row by row."""

from __future__ import annotations

import pytest

from replicator.domain.image import Image, stamped
from replicator.domain.modes.active_active.classify import Origin, classify
from replicator.domain.stamps import NO_PARENT, Held, Stamp, StampKind, Version, content_of, held
from tests.unit.strategies import Typed, image

LOW, HIGH = Version(1, 0, "aa", 1), Version(2, 0, "bb", 1)
OLD, NEW = (image({"pk": {"S": "k"}, "n": {"N": number}}) for number in "12")


def item(
    content: Image, version: Version | None = None, *, of: Image | None = None, kind: StampKind = StampKind.VALUE
) -> Held:
    """An item; with a version, stamped for its own content or for that of another image."""
    if version is not None:
        stamp = Stamp(version, kind, content_of(content if of is None else of), NO_PARENT)
        content = Image(stamped(content, stamp.sealed("nonce---")))
    found = held(content)
    assert found is not None
    return found


def foreign(content: Image, value: Typed) -> Held:
    """An item with an attribute that is no stamp."""
    found = held(image({**content.attributes, "_rep": value}))
    assert found is not None
    return found


MARKED = item(OLD, LOW, kind=StampKind.MARK)

ROWS: dict[str, tuple[Held | None, Held | None, Origin]] = {
    "a removal of a marked item": (MARKED, None, Origin.ECHO_REMOVE),
    "a removal of a marked item that a user changed": (
        item(NEW, LOW, of=OLD, kind=StampKind.MARK),
        None,
        Origin.ECHO_REMOVE,
    ),
    "a removal of a stamped item": (item(OLD, LOW), None, Origin.LOCAL_DELETE),
    "a removal of an unstamped item": (item(OLD), None, Origin.LOCAL_DELETE),
    "a user's insert": (None, item(NEW), Origin.LOCAL_PUT),
    "a user's put": (item(OLD, LOW), item(NEW), Origin.LOCAL_PUT),
    "a user's put that only wipes the stamp": (item(OLD, LOW), item(OLD), Origin.LOCAL_PUT),
    "a user's update, which keeps the stamp": (item(OLD, LOW), item(NEW, LOW, of=OLD), Origin.LOCAL_PUT),
    "an older image put back": (item(NEW, HIGH), item(OLD, LOW), Origin.LOCAL_PUT),
    "a mark on an item": (item(OLD, LOW), item(OLD, HIGH, kind=StampKind.MARK), Origin.ECHO_MODIFY),
    "a mark on an unstamped item": (item(OLD), item(OLD, HIGH, kind=StampKind.MARK), Origin.ECHO_MODIFY),
    "a marked image put where none was": (None, item(OLD, HIGH, kind=StampKind.MARK), Origin.LOCAL_PUT),
    "a marked image put over another": (item(NEW, LOW), item(OLD, HIGH, kind=StampKind.MARK), Origin.LOCAL_PUT),
    "a stamp-back": (item(OLD), item(OLD, HIGH), Origin.ECHO_MODIFY),
    "a stamp-back for an earlier write, on a later one": (item(NEW), item(NEW, HIGH, of=OLD), Origin.ECHO_MODIFY),
    "a stamp-back that met an image put back with its stamp": (
        item(OLD, LOW),
        item(OLD, HIGH, of=NEW),
        Origin.LOCAL_PUT,
    ),
    "a stamp that rises over the same content": (item(OLD, LOW), item(OLD, HIGH), Origin.ECHO_MODIFY),
    "a put of the daemon": (item(OLD, LOW), item(NEW, HIGH), Origin.ECHO_MODIFY),
    "a put of the daemon over an unstamped item": (item(OLD), item(NEW, HIGH), Origin.ECHO_MODIFY),
    "a put of the daemon where none was": (None, item(NEW, HIGH), Origin.ECHO_INSERT),
    "a newer stamp with another's hash, on changed content": (
        item(OLD, LOW),
        item(NEW, HIGH, of=OLD),
        Origin.LOCAL_PUT,
    ),
    "an insert with another's hash": (None, item(NEW, HIGH, of=OLD), Origin.LOCAL_PUT),
    "a put of the daemon over what is no stamp": (foreign(OLD, {"N": "1"}), item(NEW, HIGH), Origin.ECHO_MODIFY),
    "a user's put with what is no stamp": (item(OLD, LOW), foreign(NEW, {"S": "mine"}), Origin.LOCAL_PUT),
}


@pytest.mark.parametrize(("old", "new", "origin"), ROWS.values(), ids=ROWS)
def test_every_row_of_the_table(old: Held | None, new: Held | None, origin: Origin) -> None:
    assert classify(old, new, by_ttl=False) is origin


def test_an_expiry_is_told_from_a_delete_unless_the_item_was_marked() -> None:
    assert classify(item(OLD, LOW), None, by_ttl=True) is Origin.LOCAL_EXPIRY
    assert classify(MARKED, None, by_ttl=True) is Origin.ECHO_REMOVE

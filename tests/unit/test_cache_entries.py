"""Cache entries beside items: which are stale, which are current, and of which nothing can be said."""

from __future__ import annotations

import json

import pytest

from replicator.domain.copying.entries import EntryState, entry_state, item_version
from replicator.domain.image import Image
from replicator.domain.stamps import Stamp, StampKind, Version
from replicator.domain.versions import UNSTAMPED, ordered_version

V1, V2, V3 = (ordered_version(0, 1_700_000_000_000, number) for number in (1, 2, 3))
ACTIVE = Version(1_700_000_000_000_000, 0, "us", 7)


def item(stamp: str | None, attribute: str = "_rep") -> Image:
    return Image(json.dumps({"pk": {"S": "a"}, **({} if stamp is None else {attribute: {"S": stamp}})}).encode())


@pytest.mark.parametrize(
    ("head", "state"),
    [
        (b"", EntryState.NONE),
        (b"L:token", EntryState.NONE),
        (f"L:token|V:{V1}|{{".encode(), EntryState.STALE),
        (f"L:token|V:{V2}|{{".encode(), EntryState.CURRENT),
        (f"V:{V1}|{{".encode(), EntryState.STALE),
        (f"V:{V2}|{{".encode(), EntryState.CURRENT),
        (f"V:{V3}|{{".encode(), EntryState.CURRENT),
        (f"T:{V1}".encode(), EntryState.STALE),
        (f"T:{V2}".encode(), EntryState.CURRENT),
        (f"T:{V2}9".encode(), EntryState.OPAQUE),
        (f"V:{V1}9|{{".encode(), EntryState.OPAQUE),
        (b'{"json":1}', EntryState.OPAQUE),
        (b"V:", EntryState.OPAQUE),
    ],
)
def test_an_entry_is_judged_by_its_version_alone(head: bytes, state: EntryState) -> None:
    assert entry_state(head, V2) is state


def test_an_entry_of_an_unstamped_item_is_never_stale() -> None:
    version = item_version(item(None))
    assert version == UNSTAMPED
    assert entry_state(f"V:{UNSTAMPED}|{{".encode(), version) is EntryState.CURRENT


def test_an_item_of_an_active_mesh_has_the_version_in_its_stamp() -> None:
    stamp = Stamp(ACTIVE, StampKind.VALUE, "c" * 16, "-").sealed("n" * 8)
    version = item_version(item(stamp, "_mine"), "_mine")
    assert version == ACTIVE.text
    assert entry_state(f"V:{ACTIVE.text}|{{".encode(), version) is EntryState.CURRENT


@pytest.mark.parametrize("typed", [{"S": "none of ours"}, {"N": "1"}])
def test_nothing_is_said_beside_an_item_whose_stamp_is_none_of_ours(typed: dict[str, str]) -> None:
    image = Image(json.dumps({"pk": {"S": "a"}, "_rep": typed}).encode())
    assert item_version(image) is None
    assert entry_state(f"V:{V1}|{{".encode(), None) is EntryState.OPAQUE

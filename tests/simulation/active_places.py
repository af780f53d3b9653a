"""One region of `active_world`: what stands under its key, and the stream of everything that was written there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from replicator.domain.image import Image, stamped
from replicator.domain.modes.requests import Remover
from replicator.domain.records import ChangeRecord, change_record, item_key
from replicator.domain.stamps import (
    NO_PARENT,
    SideRow,
    Stamp,
    StampKind,
    Tombstone,
    Version,
    content_of,
    parse_stamp,
)
from replicator.laboratory.memory.stamped import StampedSlot
from tests.simulation.active_scenario import LETTERS, REGIONS, Scenario

KEY = item_key(b'{"pk":{"S":"k"}}')
AHEAD_SECONDS = 2
DAEMON = 99.0
"""When the daemon writes, by a clock of its own that nothing depends on."""


class Place(NamedTuple):
    """One region. `origins`: which write each record of the stream stands for; `gone`: which one removed the item.

    A write is its number, or, when the daemon carried a delete out, where that delete stands (`pointer`).
    `undeleted`: writes of this region, a bit each, that a daemon put back although only a user had deleted anything.
    """

    slot: StampedSlot
    stream: tuple[ChangeRecord, ...]
    origins: tuple[int, ...]
    users: int
    gone: int | None
    undeleted: int = 0


@lru_cache(maxsize=1 << 16)
def content_number(image: Image) -> int:
    """Which write an item's content is of."""
    return int(image.attributes["w"]["N"])


def written(number: int, stamp: str | None) -> Image:
    plain = Image(json.dumps({"pk": {"S": "k"}, "w": {"N": str(number)}}, separators=(",", ":")).encode())
    return plain if stamp is None else Image(stamped(plain, stamp))


def ahead(stream: Sequence[ChangeRecord], after: int) -> Remover:
    """Who first removed the item behind a record."""
    for record in stream[after % 10**40 :]:
        if record.new is None:
            assert record.old is not None
            stamp = None if record.old.stamp is None else parse_stamp(record.old.stamp)
            return Remover.DAEMON if stamp is not None and stamp.kind is StampKind.MARK else Remover.USER
    return Remover.UNKNOWN


def _event(old: Image | None, new: Image | None) -> str:
    if new is None:
        return "REMOVE"
    return "INSERT" if old is None else "MODIFY"


def emitted(place: Place, slot: StampedSlot, second: float, origin: int, *, by: str = "") -> Place:
    """The place after a physical write; a write that changes nothing leaves no record."""
    old, new = place.slot.item, slot.item
    if old == new:
        return place._replace(slot=slot)
    record = change_record(
        event=_event(old, new),
        key=KEY.wire,
        old=None if old is None else old.wire,
        new=None if new is None else new.wire,
        sequence=str(len(place.stream) + 1),
        created_at=second,
        by_ttl=by == "T",
    )
    return Place(
        slot=slot,
        stream=(*place.stream, record),
        origins=(*place.origins, origin),
        users=place.users + bool(by),
        gone=origin if new is None else None,
        undeleted=place.undeleted,
    )


def start_second(scenario: Scenario) -> int:
    """When what is there at the start counts as written; -1 when nothing is."""
    if scenario.start is None:
        return -1
    return 0 if scenario.start[0] in {"seed", "buried"} else AHEAD_SECONDS


def start_places(scenario: Scenario) -> list[Place]:
    """Every region at the start."""
    count = len(scenario.ops)
    if scenario.start is None:
        return [Place(StampedSlot(), (), (), 0, None)] * count
    kind, owner = scenario.start
    version, content = Version(start_second(scenario) * 1_000_000, 0, REGIONS[owner], 0), content_of(written(0, None))
    if kind in {"tombstone", "buried"}:
        row = SideRow(Tombstone(version, NO_PARENT, content), None, 0, version)
        return [Place(StampedSlot(None, row), (), (), 0, 0)] * count
    stamp = Stamp(version, StampKind.VALUE, content, NO_PARENT)
    items = [written(0, stamp.sealed(f"start--{letter}")) for letter in LETTERS[:count]]
    return [Place(StampedSlot(item), (), (), 0, None) for item in items]

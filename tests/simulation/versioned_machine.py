"""The production mode `versioned` as a table of steps: what a worker asks, by the record it took and its answers.

A node of the table is built once, by replaying the generator, and shared by all scenarios.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from replicator.domain.conflicts import LogConflict
from replicator.domain.identifiers import RegionId, SequenceNumber
from replicator.domain.image import Image, content_hash
from replicator.domain.modes.requests import At, Done, Found, GetTombstone, RaiseTombstone, Request, Response
from replicator.domain.modes.versioned.ranks import Rank, VersionAttribute
from replicator.domain.modes.versioned.replicate import Joined, VersionedMesh, replicate_versioned
from replicator.domain.records import ChangeRecord, Event, item_key
from replicator.laboratory.memory import Slot, answer
from tests.simulation.active_owed import NoAnswer, Silence
from tests.simulation.versioned_owed import PRODUCTION, Owing, Row, RowRequest, Steps

KEY = item_key(b'{"pk":{"S":"k"}}')
VERSION = VersionAttribute("ver")
REGIONS = tuple(map(RegionId, ("us", "eu", "ap")))
LONGEST_STREAM = 40
"""Records in one region; a run with more is an echo loop."""

Answer = Callable[[Slot, Request], tuple[Slot, Response]]
NOTHING = -1


# -- what users write ----------------------------------------------------------------------------------------------


@cache
def image(number: int, version: str | None, *, rising: bool) -> Image:
    """The item after write `number`; among equal versions its hash is greater (or less) than those written before."""
    wanted = f"{number if rising else 15 - number:x}"
    typed = {} if version is None else {"ver": {"S": version[1:]} if version.startswith("!") else {"N": version}}
    padding = 0
    while True:
        attributes = {"pk": {"S": "k"}, "write": {"N": str(number)}, "padding": {"N": str(padding)}, **typed}
        made = Image(json.dumps(attributes, separators=(",", ":")).encode())
        if content_hash(made).startswith(wanted):
            return made
        padding += 1


def written(op: str, number: int, before: Image | None, *, rising: bool) -> Image | None:
    """The item after a user's write: a version puts it, `!text` puts a mistyped one, X none; U raises it, D deletes."""
    match op:
        case "D":
            return None
        case "X":
            return image(number, None, rising=rising)
        case "U":
            held = {} if before is None else before.attributes.get("ver", {})
            return image(number, str(int(held.get("N", "0")) + 1), rising=rising)
        case _:
            return image(number, op, rising=rising)


def without_tombstones(slot: Slot, request: Request) -> tuple[Slot, Response]:
    """Remember no deletes."""
    match request:
        case RaiseTombstone():
            return slot, Done()
        case GetTombstone():
            return slot, Found()
        case _:
            return answer(slot, request)


# -- the production mode as a table of steps -----------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    begin: Callable[[], Steps]
    answers: tuple[Response | Silence | Row | bool, ...]
    request: At | LogConflict | RowRequest | None
    ended: Joined | None
    following: dict[Response | Silence | Row | bool, int] = field(default_factory=dict)


class Machine:
    """Everything that workers can ever ask, as numbers; shared by scenarios over the same regions."""

    def __init__(self, regions: int, world: Answer = answer, owing: Owing = PRODUCTION) -> None:
        self.regions = REGIONS[:regions]
        self._world = world
        self.owing = owing
        self.images: list[Image | None] = []
        self._image_numbers: dict[Image | None, int] = {}
        self._slots: list[Slot] = []
        self._slot_numbers: dict[tuple[int, str | None], int] = {}
        self.slot_images: list[int] = []
        self.records: list[tuple[int, int, int]] = []
        self._record_numbers: dict[tuple[int, int, int], int] = {}
        self.nodes: list[_Node] = []
        self._roots: dict[tuple[int, frozenset[tuple[RegionId, Rank]], bool], int] = {}
        self._drains: dict[tuple[int, RegionId, Any], int] = {}
        self._steps: dict[tuple[int, int], tuple[int, int]] = {}
        self.nothing = self.image_number(None)

    def image_number(self, item: Image | None) -> int:
        if item not in self._image_numbers:
            self._image_numbers[item] = len(self.images)
            self.images.append(item)
        return self._image_numbers[item]

    def slot(self, item: int, tombstone: str | None) -> int:
        if (item, tombstone) not in self._slot_numbers:
            self._slot_numbers[item, tombstone] = len(self._slots)
            self._slots.append(Slot(self.images[item], tombstone))
            self.slot_images.append(item)
        return self._slot_numbers[item, tombstone]

    def with_item(self, slot: int, item: int) -> int:
        return self.slot(item, self._slots[slot].tombstone)

    def record(self, region: int, old: int, new: int) -> int:
        if (region, old, new) not in self._record_numbers:
            self._record_numbers[region, old, new] = len(self.records)
            self.records.append((region, old, new))
        return self._record_numbers[region, old, new]

    def without_tombstone(self, slot: int) -> int:
        return self.slot(self.slot_images[slot], None)

    def tombstone(self, slot: int) -> str | None:
        return self._slots[slot].tombstone

    def root(self, record: int, known: frozenset[tuple[RegionId, Rank]], *, owing: bool = False) -> int:
        if (record, known, owing) not in self._roots:
            region, old, new = self.records[record]
            change, mesh = change_of(self.images[old], self.images[new]), mesh_of(self.regions, region)
            mode = self.owing.record if owing else replicate_versioned
            self._roots[record, known, owing] = self._node(lambda: mode(change, mesh, known), ())
        return self._roots[record, known, owing]

    def drain(self, home: int, other: RegionId, kept: Any) -> int:
        if (home, other, kept) not in self._drains:
            mesh = mesh_of(self.regions, home)
            self._drains[home, other, kept] = self._node(lambda: self.owing.drain(mesh, other, KEY, kept), ())
        return self._drains[home, other, kept]

    def step(self, slot: int, node: int) -> tuple[int, int]:
        """Answer a node's request in a region: the slot afterwards, and the node that the answer leads to."""
        if (slot, node) not in self._steps:
            request = self.nodes[node].request
            assert isinstance(request, At)
            after, response = self._world(self._slots[slot], request.request)
            number = self.slot(self.image_number(after.item), after.tombstone)
            self._steps[slot, node] = (number, self.follow(node, response))
        return self._steps[slot, node]

    def follow(self, node: int, response: Response | Silence | Row | bool) -> int:
        held = self.nodes[node]
        if response not in held.following:
            held.following[response] = self._node(held.begin, (*held.answers, response))
        return held.following[response]

    def _node(self, begin: Callable[[], Steps], answers: tuple[Response | Silence | Row | bool, ...]) -> int:
        steps = begin()
        request, ended = None, None
        try:
            request = next(steps)
            for response in answers:
                request = steps.throw(NoAnswer()) if isinstance(response, Silence) else steps.send(response)
        except StopIteration as end:
            request, ended = None, end.value
        self.nodes.append(_Node(begin, answers, request, ended))
        return len(self.nodes) - 1


def mesh_of(regions: tuple[RegionId, ...], home: int) -> VersionedMesh:
    return VersionedMesh(regions[home], regions[:home] + regions[home + 1 :], VERSION)


def change_of(old: Image | None, new: Image | None) -> ChangeRecord:
    event = Event.REMOVE if new is None else Event.INSERT if old is None else Event.MODIFY
    return ChangeRecord(event, KEY, old, new, SequenceNumber("1"), 0.0)

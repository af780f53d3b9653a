"""The verdict on a mesh: every item in every region, the legitimacy of the winner, the caches and the conflict log.

Invariant: nothing that the daemon says is taken for granted; items are compared by content, without the stamp.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from replicator.demo.compare import LEAST_CACHE_ENTRIES, Difference, Items, items_of, place, values_of
from replicator.demo.items import Keyspace
from replicator.demo.mesh.keys import MeshKey, content_of, contested
from replicator.demo.reader import CacheReader
from replicator.demo.world import CONFLICT_TABLE, World
from replicator.domain.copying.entries import as_read
from replicator.domain.errors import MalformedRecord
from replicator.domain.image import Image
from replicator.domain.stamps import Held, StampKind, held
from replicator.domain.versions import STAMP

LEAST_KEYS: Final = 300
LEAST_CONFLICTS: Final = 1
_SCAN_PAGE = 500


@dataclass(frozen=True, slots=True)
class Conflict:
    """An entry of the conflict log, as far as people see it here."""

    table: str
    key: str
    kind: str
    reason: str
    outcome: str
    winner: str
    loser: str
    loser_content: str | None
    """Hash of the image that lost."""

    detected_at: str

    def __str__(self) -> str:
        """For people."""
        what = f"{self.winner} beats {self.loser} ({self.outcome})"
        return f"{self.detected_at}  {self.kind}, {self.reason}: {what}  {self.key}"


@dataclass(slots=True)
class MeshFindings:
    """What was compared, and what differed."""

    items: Counter[str] = field(default_factory=Counter)
    """Items compared, by `region/table`."""

    keys: int = 0
    """Keys whose winner was judged."""

    contested: int = 0
    """Of these, written in more than one region."""

    absent: int = 0
    """Of these, deleted everywhere."""

    entries: dict[str, Counter[str]] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)
    """The oldest first."""

    lost: int = 0
    """Images of users that the daemon overwrote or deleted for the sake of another region's write."""

    lost_maximal: int = 0
    """Of these, the last of their region: each of them must be in the conflict log."""

    lost_unlogged: int = 0
    """Of the others, not in the log: their own region had written the key again."""

    differences: list[Difference] = field(default_factory=list)

    @property
    def live_entries(self) -> int:
        """Cache entries that answer a reader."""
        return sum(counts["values"] for counts in self.entries.values())

    @property
    def enough(self) -> bool:
        """Whether so much was compared that `identical` means something."""
        return (
            self.live_entries >= LEAST_CACHE_ENTRIES
            and self.keys >= LEAST_KEYS
            and len(self.conflicts) >= LEAST_CONFLICTS
            and all(self.items.values())
        )

    @property
    def identical(self) -> bool:
        """Whether nothing differed."""
        return not self.differences


async def alike(world: World) -> bool:
    """Whether all regions hold the same items, with the same stamps: then no write is left to be carried on."""
    for table in world.tables:
        regions = {region: await items_of(world, table, region) for region in table.names}
        for shown in set().union(*regions.values()):
            there = {region: held(items.get(shown)) for region, items in regions.items()}
            if any(_between(shown, there, world.layout.mode)):
                return False
    return True


async def compare_mesh(world: World, keyspace: Keyspace[MeshKey], readers: Iterable[CacheReader]) -> MeshFindings:
    """Compare everything, once, as it is."""
    findings = MeshFindings(contested=contested(keyspace.keys))
    findings.conflicts = sorted(await _conflicts(world), key=lambda conflict: conflict.detected_at)
    logged = {conflict.loser_content for conflict in findings.conflicts}
    for table in world.tables:
        regions = {region: await items_of(world, table, region) for region in table.names}
        names = {region: place(table, region) for region in regions}
        findings.items.update({names[region]: len(items) for region, items in regions.items()})
        keys = {key.shown: key for key in keyspace.of(table)}
        for shown in sorted(keys.keys() | set().union(*regions.values())):
            there = {names[region]: held(items.get(shown)) for region, items in regions.items()}
            findings.differences += _between(shown, there, world.layout.mode)
            first = next(iter(there.values()))
            if shown in keys:
                findings.differences += _winner(keys[shown], first, world.layout.mode, logged, findings)
            elif first is not None:
                findings.differences.append(Difference(next(iter(there)), shown, "was never written"))
        for reader in readers:
            if reader.table == table:
                counts = findings.entries[reader.cache.name] = Counter()
                findings.differences += await _cache(reader, keys, regions[reader.cache.region], counts)
    return findings


# -- items ---------------------------------------------------------------------------------------------------------


def _between(shown: str, there: Mapping[str, Held | None], mode: str) -> Iterator[Difference]:
    """Differences of regions from the first one."""
    (home, first), *others = there.items()
    for where, other in others:
        if (first is None) != (other is None):
            yield Difference(where, shown, f"is missing, but is in {home}" if first else f"is not in {home}")
        elif first is not None and other is not None and first.content != other.content:
            yield Difference(where, shown, f"differs from {home} ({_attributes(first.image, other.image)})")
    if mode == "active-active":
        yield from _stamps(shown, there)
    else:
        yield from (Difference(where, shown, "carries a stamp") for where, item in there.items() if item and item.seen)


def _stamps(shown: str, there: Mapping[str, Held | None]) -> Iterator[Difference]:
    present = {where: item for where, item in there.items() if item is not None}
    for where, item in present.items():
        if not item.intact:
            yield Difference(where, shown, "has a stamp that is not its own")
        elif item.kind is StampKind.MARK:
            yield Difference(where, shown, "is still marked for deletion")
    if len({item.version for item in present.values()}) > 1:
        yield Difference(", ".join(present), shown, "carries different versions")


def _attributes(one: Image, other: Image) -> str:
    """Names of the attributes that differ; values stay out of logs."""
    mine, theirs = one.attributes, other.attributes
    names = (mine.keys() | theirs.keys()) - {STAMP}
    return ", ".join(sorted(name for name in names if mine.get(name) != theirs.get(name)))


def _winner(
    key: MeshKey, item: Held | None, mode: str, logged: set[str | None], findings: MeshFindings
) -> Iterator[Difference]:
    """Whether what is there is what may be there, and whether what was lost for it is in the log."""
    content = None if item is None else content_of(item.image)
    survivors = key.survivors(mode)
    findings.keys += bool(survivors)
    findings.absent += item is None and bool(survivors)
    if content not in {write.content for write in survivors} and (survivors or content is not None):
        yield Difference("all regions", key.shown, _illegitimate(key, content))
    for write, maximal in key.losses(content):
        findings.lost += 1
        findings.lost_maximal += maximal
        if write.content in logged:
            continue
        if maximal:
            yield Difference("the conflict log", key.shown, f"knows nothing of the lost write of {write.region}")
        else:
            findings.lost_unlogged += 1


def _illegitimate(key: MeshKey, content: str | None) -> str:
    if content is None:
        return "is absent, but the winner is no delete"
    if all(write.content != content for write in key.history):
        return "is what no user wrote"
    return "is not the write that had to win" if key.shared else "is not the last write of its only region"


# -- caches and conflicts --------------------------------------------------------------------------------------------


async def _cache(
    reader: CacheReader, states: Mapping[str, MeshKey], items: Items, counts: Counter[str]
) -> list[Difference]:
    known = {reader.key(state): state for state in states.values()}
    found: list[Difference] = []
    keys = [key async for key in reader.client.scan_iter(count=_SCAN_PAGE)]
    for start in range(0, len(keys), _SCAN_PAGE):
        some = keys[start : start + _SCAN_PAGE]
        for key, entry in zip(some, await values_of(reader, some), strict=True):
            name = key.decode(errors="replace")
            if entry is None:  # a lease ran out since the scan
                continue
            if name not in known:
                found.append(Difference(reader.cache.name, name, "is an entry of no known item"))
                continue
            kind, wrong = _entry(entry, items.get(known[name].shown))
            counts[kind] += 1
            if wrong:
                found.append(Difference(reader.cache.name, name, wrong))
    return found


def _entry(entry: bytes, image: Image | None) -> tuple[str, str | None]:
    """What an entry is, and what is wrong with it: its version may be older than a stamp, its content may not."""
    entry = as_read(entry)
    if entry.startswith(b"L:"):
        return "leases", None
    if not entry.startswith(b"V:"):
        return "foreign", "is no entry that a reader makes"
    if image is None:
        return "values", "holds an item that its region no longer has"
    try:
        same = content_of(Image(entry.partition(b"|")[2])) == content_of(image)
    except MalformedRecord:
        return "values", "is not an item's JSON"
    return "values", None if same else "holds another content than its region"


async def _conflicts(world: World) -> list[Conflict]:
    home = world.regions[next(iter(world.regions))]
    return [_conflict(row.attributes) async for row in home.scan(CONFLICT_TABLE)]


def _conflict(row: Mapping[str, Mapping[str, Any]]) -> Conflict:
    def text(name: str) -> str:
        return str(row.get(name, {}).get("S", "-"))

    key: dict[str, dict[str, str]] = msgspec.json.decode(text("key"))
    loser = row.get("loser_image")
    return Conflict(
        table=text("table"),
        key=", ".join(f"{name}={value}" for name, typed in key.items() for value in typed.values()),
        kind=text("kind"),
        reason=text("reason"),
        outcome=text("outcome"),
        winner=_side(text, "winner"),
        loser=_side(text, "loser"),
        loser_content=None if loser is None else content_of(Image(loser["S"].encode())),
        detected_at=text("detected_at"),
    )


def _side(text: Any, side: str) -> str:
    return f"{text(f'{side}_op')} of {text(f'{side}_region')}"

"""The verdict: every table and every cache entry, item by item, against the writers' own record of what they wrote.

Invariant: nothing that the daemon says is taken for granted here; items are compared by canonical content (numbers by
value, sets without order), versions byte for byte. `docs/protocol.md` says what must hold when no write is in flight.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from replicator.demo.items import COUNTER, Keyspace, KeyState, shown
from replicator.demo.layout import SOURCE, DemoTable
from replicator.demo.reader import CacheReader
from replicator.demo.world import SIDE_TABLE, World
from replicator.domain.copying.entries import as_read
from replicator.domain.errors import MalformedRecord
from replicator.domain.image import Image, canonical
from replicator.domain.records import item_key
from replicator.domain.versions import STAMP, UNSTAMPED

LEAST_CACHE_ENTRIES: Final = 1_000
_POLL_SECONDS = 0.25
_SCAN_PAGE = 500


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be."""

    where: str
    key: str
    what: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.where}: {self.key}: {self.what}"


@dataclass(slots=True)
class Findings:
    """What was compared, and what differed."""

    items: Counter[str] = field(default_factory=Counter)
    """Items compared, by `region/table`."""

    deleted: int = 0
    """Keys that were deleted and must be absent, at every replica."""

    tombstones: int = 0
    entries: dict[str, Counter[str]] = field(default_factory=dict)
    """Live cache entries compared, by cache: `values` and `deletion markers`; `leases` are not live."""

    differences: list[Difference] = field(default_factory=list)

    @property
    def live_entries(self) -> int:
        """Cache entries that answer a reader."""
        return sum(counts["values"] + counts["deletion_markers"] for counts in self.entries.values())

    @property
    def enough(self) -> bool:
        """Whether so much was compared that `identical` means something."""
        return self.live_entries >= LEAST_CACHE_ENTRIES and all(self.items.values())

    @property
    def identical(self) -> bool:
        """Whether nothing differed."""
        return not self.differences


Items = dict[str, Image]
"""The items of one table, by the key as shown."""


async def compare(world: World, keyspace: Keyspace[KeyState], readers: Iterable[CacheReader]) -> Findings:
    """Compare everything, once, as it is."""
    findings = Findings()
    replicas: dict[tuple[str, str], Items] = {}
    for table in world.tables:
        states = {state.shown: state for state in keyspace.of(table)}
        source = await items_of(world, table, SOURCE)
        findings.items[place(table, SOURCE)] = len(source)
        findings.differences += _against_truth(table, states, source)
        for region in table.replicas:
            replica = replicas[region, table.rule] = await items_of(world, table, region)
            findings.items[place(table, region)] = len(replica)
            findings.deleted += sum(state.deleted and state.item is None for state in states.values())
            findings.differences += _against_source(table, region, states, source, replica)
    tombstones = {region: await _tombstones(world, region) for region in world.regions if region != SOURCE}
    findings.tombstones = sum(len(versions) for versions in tombstones.values())
    for table in world.tables:
        for region in table.replicas:
            items = replicas[region, table.rule]
            findings.differences += _against_tombstones(table, region, keyspace, items, tombstones[region])
    for reader in readers:
        region = reader.cache.region
        counts = findings.entries[reader.cache.name] = Counter()
        items, tombstone = replicas[region, reader.table.rule], tombstones[region]
        findings.differences += await _cache(reader, keyspace, items, tombstone, counts)
    return findings


async def caught_up(world: World, keyspace: Keyspace[KeyState]) -> bool:
    """Whether every replica shows the last write of every key; items of other keys are not looked at."""
    for table in world.tables:
        for region in table.replicas:
            there = await items_of(world, table, region)
            shown_as = {key: image.attributes.get(COUNTER, {}).get("N") for key, image in there.items()}
            for state in keyspace.of(table):
                if shown_as.get(state.shown) != (None if state.item is None else str(state.counter)):
                    return False
    return True


async def wait_until_caught_up(world: World, keyspace: Keyspace[KeyState], seconds: float) -> bool:
    """Wait for `caught_up`; False when it was not so in time."""
    try:
        async with asyncio.timeout(seconds):
            while not await caught_up(world, keyspace):  # noqa: ASYNC110 - what is waited for is another process's work
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        return False
    return True


async def wait_until_settled(
    world: World, keyspace: Keyspace[KeyState], readers: tuple[CacheReader, ...], seconds: float
) -> Findings:
    """Compare until nothing differs or the time is over: cache actions follow the replica's write."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        findings = await compare(world, keyspace, readers)
        if findings.identical or loop.time() > end:
            return findings
        await asyncio.sleep(_POLL_SECONDS)


# -- tables --------------------------------------------------------------------------------------------------------


async def items_of(world: World, table: DemoTable, region: str) -> Items:
    """The items of a table in a region."""
    scan = world.regions[region].scan(table.names[region])
    return {shown(table, image.attributes): image async for image in scan}


def place(table: DemoTable, region: str) -> str:
    """A table in a region, for people."""
    return f"{region}/{table.names[region]}"


def _against_truth(table: DemoTable, states: dict[str, KeyState], source: Items) -> Iterator[Difference]:
    where = place(table, SOURCE)
    for key, state in states.items():
        image = source.get(key)
        if (state.item is None) != (image is None):
            yield Difference(where, key, "is there, but was deleted" if image else "is missing, but was written")
        elif image and state.item and canonical(image) != canonical(Image(msgspec.json.encode(state.item))):
            yield Difference(where, key, "is not what was written last")
    yield from (Difference(where, key, "was never written") for key in source.keys() - states.keys())


def _against_source(
    table: DemoTable, region: str, states: dict[str, KeyState], source: Items, replica: Items
) -> Iterator[Difference]:
    where = place(table, region)
    for key in sorted(source.keys() | replica.keys()):
        wanted, there = source.get(key), replica.get(key)
        if there is None:
            yield Difference(where, key, "is missing")
        elif wanted is None:
            deleted = key in states and states[key].deleted
            yield Difference(where, key, "was deleted at the source and is here" if deleted else "is not at the source")
        elif canonical(wanted) != canonical(there):
            yield Difference(where, key, f"differs from the source ({_attributes(wanted, there)})")
        if there is not None and there.stamp is None:
            yield Difference(where, key, "carries no version")


def _attributes(one: Image, other: Image) -> str:
    """Names of the attributes that differ; values stay out of logs."""
    mine, theirs = one.attributes, other.attributes
    names = (mine.keys() | theirs.keys()) - {STAMP}
    return ", ".join(sorted(name for name in names if mine.get(name) != theirs.get(name)))


async def _tombstones(world: World, region: str) -> dict[str, str]:
    found = {}
    async for row in world.regions[region].scan(SIDE_TABLE):
        attributes = row.attributes
        if "v" in attributes:
            found[str(attributes["k"]["S"])] = str(attributes["v"]["S"])
    return found


def _against_tombstones(
    table: DemoTable, region: str, keyspace: Keyspace[KeyState], replica: Items, tombstones: dict[str, str]
) -> Iterator[Difference]:
    where = place(table, region)
    for state in keyspace.of(table):
        tombstone = tombstones.get(_side_key(table, region, state))
        image = replica.get(state.shown)
        if tombstone is not None and image is not None and (image.stamp or UNSTAMPED) <= tombstone:
            yield Difference(where, state.shown, "was resurrected: its tombstone is not older than it")
        elif tombstone is None and image is None and state.deleted:
            yield Difference(where, state.shown, "was deleted without a tombstone")


def _side_key(table: DemoTable, region: str, state: KeyState) -> str:
    return item_key(msgspec.json.encode(state.key)).side_key(table.names[region])


# -- caches --------------------------------------------------------------------------------------------------------


async def _cache(
    reader: CacheReader, keyspace: Keyspace[KeyState], replica: Items, tombstones: dict[str, str], counts: Counter[str]
) -> list[Difference]:
    states = {reader.key(state): state for state in keyspace.of(reader.table)}
    found: list[Difference] = []
    keys = [key async for key in reader.client.scan_iter(count=_SCAN_PAGE)]
    for start in range(0, len(keys), _SCAN_PAGE):
        some = keys[start : start + _SCAN_PAGE]
        for key, entry in zip(some, await values_of(reader, some), strict=True):
            name = key.decode(errors="replace")
            state = states.get(name)
            if entry is None:  # a lease ran out since the scan
                continue
            if state is None:
                found.append(Difference(reader.cache.name, name, "is an entry of no known item"))
                continue
            tombstone = tombstones.get(_side_key(reader.table, reader.cache.region, state))
            kind, wrong = _entry(entry, replica.get(state.shown), tombstone)
            counts[kind] += 1
            if wrong:
                found.append(Difference(reader.cache.name, name, wrong))
    return found


async def values_of(reader: CacheReader, keys: list[bytes]) -> list[bytes | None]:
    """The entries of some keys."""
    return [value if isinstance(value, bytes) else None for value in await reader.client.mget(keys)]


def _entry(entry: bytes, image: Image | None, tombstone: str | None) -> tuple[str, str | None]:
    """What a cache entry is, and what is wrong with it."""
    entry = as_read(entry)
    match entry[:2]:
        case b"V:":
            return "values", _wrong_value(entry[2:], image)
        case b"T:":
            return "deletion_markers", _wrong_marker(entry[2:], image, tombstone)
        case b"L:":
            return "leases", None
        case _:
            return "foreign", "is no entry of the cache protocol"


def _wrong_value(versioned: bytes, image: Image | None) -> str | None:
    version, _, payload = versioned.partition(b"|")
    if image is None:
        return "holds an item that the replica no longer has"
    if version.decode(errors="replace") != (image.stamp or UNSTAMPED):
        return "is stale: its version is not the replica's"
    try:
        same = canonical(Image(payload)) == canonical(image) and STAMP not in Image(payload).attributes
    except MalformedRecord:
        return "is not an item's JSON"
    return None if same else "holds another content than the replica, under the same version"


def _wrong_marker(version: bytes, image: Image | None, tombstone: str | None) -> str | None:
    if image is not None:
        return "says absent, but the replica holds the item"
    if version.decode(errors="replace") != tombstone:
        return "is a deletion marker of another version than the tombstone"
    return None

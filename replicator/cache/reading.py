"""How one read goes: pure steps, the same for asyncio and threads.

`reading` is a generator: it yields what it wants done, is sent the answer, and returns a `Reading`. It knows no client
and no clock. Invariant: it loads after it looked, and fills only under the lease that this look gave.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final

from replicator.cache.codecs import Codec

_FIRST_PAUSE_SECONDS: Final = 0.005
_LONGEST_PAUSE_SECONDS: Final = 0.1


class Source(enum.StrEnum):
    """Where the value of a read came from."""

    HIT = "hit"
    ABSENT = "absent"  # the cache knows that there is none
    FILLED = "filled"  # the table; the entry is stored
    RENEWED = "renewed"  # the table, before the entry ran out; the entry is stored
    OVERTAKEN = "overtaken"  # the table; a newer write came between, so nothing is stored
    UNKEPT = "unkept"  # the table; the value is none of those that are stored
    MISSING = "missing"  # the table has none, and that is not remembered
    WAITED = "waited"  # the table, because another reader took longer than `wait` to fill
    FOREIGN = "foreign"  # the table, because the entry is none of ours
    DOWN = "down"  # the table, because the cache does not answer or refuses


class Sight(enum.StrEnum):
    """What a reader found at a key."""

    HIT = "hit"
    RENEW = "renew"
    ABSENT = "absent"
    LEASE = "lease"
    WAIT = "wait"
    FOREIGN = "foreign"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Reading:
    """A value (None: there is none) and where it came from."""

    value: Any
    source: Source


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a loader may return instead of a plain value: the payload of an entry and the version of the item.

    Without a version the daemon's `refresh` drops the entry instead of comparing.
    """

    payload: bytes
    version: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """Look at the key, and take its lease if nothing is there: answered with `Seen`."""

    key: str
    token: str
    lease_ms: int
    early_ms: int
    tags: tuple[str, ...] = ()
    """Keys of the tags of an entry that has any; those live `early_ms`, for such an entry is not renewed early."""
    hashed: bool = False
    """Whether the entry is a hash, which is not renewed early either."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands at a key; `entry` of hits and of entries to renew, `lease` of what is to be filled.

    With a lease of an entry under tags, `entry` is what it begins with: their epochs at this moment.
    """

    sight: Sight
    entry: bytes = b""
    lease: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """Read the table: answered with `Loaded`, a value or None, or an exception is thrown in."""


@dataclass(frozen=True, slots=True)
class Fill:
    """Store the entry if the lease still stands: answered with whether it does, None when the cache does not say.

    An empty entry returns the lease.
    """

    key: str
    lease: str
    entry: bytes
    life_ms: int
    hashed: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Let time pass."""

    seconds: float


Request = Look | Load | Fill | Pause
Steps = Generator[Request, Any, Reading]


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """One read: its key, its random token, and the times that hold for it; `negative_ms` 0 remembers no absence."""

    key: str
    token: str
    codec: Codec
    life_ms: int
    negative_ms: int
    lease_ms: int
    early_ms: int
    wait_seconds: float
    when: Callable[[Any], bool] | None = None
    """Which values may be stored; None: all."""
    tags: tuple[str, ...] = ()
    """Keys of the tags under which the entry is."""


def reading(plan: ReadPlan) -> Steps:
    """Read through the cache."""
    waited, pause = 0.0, _FIRST_PAUSE_SECONDS
    while True:
        seen: Seen = yield Look(plan.key, plan.token, plan.lease_ms, plan.early_ms, plan.tags, plan.codec.hashed)
        match seen.sight:
            case Sight.ABSENT:
                return Reading(None, Source.ABSENT)
            case Sight.HIT | Sight.RENEW:
                return (yield from _held(plan, seen))
            case Sight.LEASE:
                return (yield from _filling(plan, seen))
            case Sight.WAIT if waited < plan.wait_seconds:
                yield Pause(pause)
                waited, pause = waited + pause, min(2 * pause, _LONGEST_PAUSE_SECONDS)
            case Sight.WAIT:
                return (yield from _table(plan, Source.WAITED))
            case Sight.FOREIGN:
                return (yield from _table(plan, Source.FOREIGN))
            case Sight.DOWN:
                return (yield from _table(plan, Source.DOWN))


def _held(plan: ReadPlan, seen: Seen) -> Steps:
    """Use an entry, or renew it; a table that fails then leaves the entry as good as it is."""
    try:
        value = plan.codec.decode(seen.entry.partition(b"|")[2])
    except ValueError:
        return (yield from _table(plan, Source.FOREIGN))
    if seen.sight is Sight.HIT:
        return Reading(value, Source.HIT)
    try:
        loaded = yield Load()
    except Exception:  # noqa: BLE001 - a loader is the caller's: whatever it raises, the entry is still good
        return Reading(value, Source.HIT)
    return (yield from _stored(plan, seen, _unpacked(plan, loaded), Source.RENEWED))


def _filling(plan: ReadPlan, seen: Seen) -> Steps:
    """Load under a lease and store; what fails returns the lease, so that others need not wait for its end."""
    try:
        unpacked = _unpacked(plan, (yield Load()))
    except Exception:
        yield Fill(plan.key, seen.lease, b"", 0, plan.codec.hashed)
        raise
    return (yield from _stored(plan, seen, unpacked, Source.FILLED))


def _stored(plan: ReadPlan, seen: Seen, unpacked: tuple[Any, bytes | None, str], source: Source) -> Steps:
    value, payload, version = unpacked
    if payload is not None and plan.when is not None and not plan.when(value):
        entry, life_ms, source = b"", 0, Source.UNKEPT
    elif payload is not None:
        head = seen.entry if plan.tags else b"V:%b|" % version.encode()
        entry, life_ms = head + payload, plan.life_ms
    elif plan.negative_ms and not plan.tags:
        # Absence has no version: whatever `refresh` brings next, older or newer, drops this marker.
        entry, life_ms = b"T:", plan.negative_ms
    else:
        entry, life_ms, source = b"", 0, Source.MISSING
    kept: bool | None = yield Fill(plan.key, seen.lease, entry, life_ms, plan.codec.hashed)
    if entry and not kept:
        source = Source.DOWN if kept is None else Source.OVERTAKEN
    return Reading(value, source)


def _table(plan: ReadPlan, source: Source) -> Steps:
    """Read the table and store nothing."""
    value, _, _ = _unpacked(plan, (yield Load()))
    return Reading(value, source)


def _unpacked(plan: ReadPlan, loaded: Any) -> tuple[Any, bytes | None, str]:
    """Value, payload and version of what was loaded."""
    if loaded is None:
        return None, None, ""
    if not isinstance(loaded, Loaded):
        loaded = Loaded(plan.codec.encode(loaded))
    return plan.codec.decode(loaded.payload), loaded.payload, loaded.version

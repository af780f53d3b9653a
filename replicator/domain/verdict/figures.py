"""Everything that a verdict is made of, as figures: of a group as `status` sees it, or of one worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from replicator.domain.targets import TargetId, TargetKind, parse_target


class Trouble(Struct, frozen=True):
    """Why something does not go on, for how long, and by which key."""

    reason: str
    advice: str
    key: str | None = None
    seconds: float | None = None


class TargetFigure(Struct, frozen=True):
    """A target at a shard. `place`: where it brings changes, for people. None: not known, or no trouble."""

    rule: str
    place: str
    shard: str | None
    lag: float | None
    left: float | None
    blocked: Trouble | None = None
    stalled: Trouble | None = None

    @property
    def name(self) -> str:
        """The target for people."""
        return f"{self.rule}/{self.place}"


class Held(Struct, frozen=True):
    """A rule, or with `place` one of its targets, whose world is wrong. `region`: of the table that is, or ""."""

    rule: str
    place: str | None
    region: str
    cause: str
    trouble: Trouble


class Unread(Struct, frozen=True):
    """Shards of a rule that no worker reads, or that do not move, and why."""

    rule: str
    shards: Sequence[str]
    trouble: Trouble


class Rest(Struct, frozen=True):
    """A pause of a rule, or with `region` of what it writes there."""

    rule: str
    region: str | None
    seconds: float | None
    note: str = ""


class Loss(Struct, frozen=True):
    """An open gap. `gap`: its id. `job`: what repairs it, or, if that is `over`, was to."""

    gap: str
    rule: str
    place: str
    job: str | None = None
    over: bool = False


class Refused(Struct, frozen=True):
    """What a target refused and is kept."""

    rule: str
    place: str
    keys: int
    records: int
    seconds: float | None


class Away(Struct, frozen=True):
    """A region of a mesh that is away; it must be rebuilt when it missed too much."""

    rule: str
    region: str
    seconds: float
    why: str
    keys: int
    rebuild: bool = False


class AwayCache(Struct, frozen=True):
    """A cache that is away for workers, or `partly`: refuses some entries. `keys`: those that it is owed."""

    cache: str
    region: str
    seconds: float
    why: str
    keys: int
    owes_flush: bool = False
    partly: bool = False


class LateCanary(Struct, frozen=True):
    """A canary that has not arrived for several periods, or is not written. `cache`: beside the region's table."""

    rule: str
    source: str
    region: str
    cache: str
    seconds: float
    unwritten: bool
    why: str

    @property
    def name(self) -> str:
        """The target for people."""
        return f"{self.rule}/{self.region}"


class Throttle(Struct, frozen=True):
    """A table that throttles most of what a rule sends."""

    rule: str
    region: str
    table: str
    allowed: int


class Figures(Struct, frozen=True):
    """Everything that a verdict is made of. `workers`: how many are known to live; None when that is not known."""

    group: str
    rules: int
    workers: int | None = None
    coordination: Trouble | None = None
    targets: Sequence[TargetFigure] = ()
    held: Sequence[Held] = ()
    unread: Sequence[Unread] = ()
    rests: Sequence[Rest] = ()
    losses: Sequence[Loss] = ()
    refused: Sequence[Refused] = ()
    away: Sequence[Away] = ()
    caches: Sequence[AwayCache] = ()
    throttled: Sequence[Throttle] = ()
    canaries: Sequence[LateCanary] = ()
    not_run: Sequence[str] = ()
    mixed: Sequence[str] = ()
    """Rules that workers are configured differently for."""
    unanswered: Mapping[str, str] = field(default_factory=dict)
    unreadable: Sequence[str] = ()
    services: Mapping[str, Trouble] = field(default_factory=dict)
    differences: Mapping[str, int] = field(default_factory=dict)
    clocks: Mapping[str, float] = field(default_factory=dict)
    """How far clocks of workers are behind those of the servers, by worker; below 0: ahead of them."""
    configuration: Trouble | None = None
    """Why a changed configuration is not in force."""


# -- from documents ----------------------------------------------------------------------------------------------------


def place_of(target: TargetId, source: str | None, table: str | None) -> str:
    """Where a target brings changes of a table, for people; of a mesh, from where, when that is known.

    A replica is its region, and its table where that has another name than the source's.
    """
    if target.kind is TargetKind.SOURCE_CACHES:
        return f"caches in {target.name}"
    if target.kind is TargetKind.EVENTS:
        return f"events to {target.name.partition(':')[2]}"
    if target.region is None:
        return "all regions" if source is None else f"all from {source}"
    region, _, name = target.name.partition(":")
    return region if name in {"", table} else target.name


def trouble_of(said: Mapping[str, Any]) -> Trouble:
    """Why something does not go on, as a worker's /status says it."""
    return Trouble(said["reason"], said.get("advice", said.get("remedy", "")), said.get("key"), said.get("seconds"))


def held_figure(row: Mapping[str, Any], rule: str) -> Held:
    """What is held, as a worker's /status says it."""
    target = None if row["target"] is None else parse_target(row["target"])
    place = None if target is None else place_of(target, None, row["table"])
    region = "" if target is None else target.region or ""
    return Held(rule, place, str(region), row["cause"], trouble_of(row))


def late_canary(row: Mapping[str, Any]) -> LateCanary:
    """A canary that is late, as a worker's /status says it."""
    seconds, unwritten = row["age_seconds"], row["unwritten"]
    return LateCanary(row["rule"], row["source"], row["region"], row["cache"], seconds, unwritten, row["why"])

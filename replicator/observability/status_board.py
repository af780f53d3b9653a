"""The status board: the position and state of every target on every shard of this worker.

Owns what /healthz, /readyz (`readiness`) and /metrics (`gauges`) are answered from; `status_document` draws it as
/status. Invariant: everything is keyed by region, stream and shard together, since two regions may show the same ARN;
and what is reported per page touches one shard only, so a thousand shards cost no more per page than one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from replicator.domain.canary import Arrivals, CanaryPlace
from replicator.domain.errors import ReplicatorError
from replicator.domain.held import Hold
from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.jobs import Job, JobProgress
from replicator.domain.owed_keys import OwedFor, OwedTo
from replicator.domain.progress import HORIZON, Position, latest
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.applied_through import lag_seconds, retention_left_seconds
from replicator.domain.shards.leases import Lease, StreamRef
from replicator.domain.shards.standstill import Standstill
from replicator.domain.shards.unread import LOST
from replicator.domain.targets import TargetId
from replicator.observability.held_rows import Held, HeldRow, Met, rows_of
from replicator.observability.target_states import (
    UNKNOWN,
    Choice,
    End,
    Figure,
    ShardState,
    Spot,
    TargetState,
    Trouble,
    Waiting,
    spot_of,
    word_of,
)
from replicator.ports.clock import Clock
from replicator.ports.events import CacheHorizons, CacheState, Overview, OwedRows, PacedTable, Place, RegionState
from replicator.ports.services import ServiceId, ServiceKind

_HEALTHY_SECONDS = 90.0
"""The coordinator attempts something at least this often, whatever the world does."""

_OFF_SECONDS = 5.0
"""A clock that is off by less is as right as a Date in whole seconds, and what an answer takes, can show."""

_SEEN_SECONDS = 15.0
"""Behind so long a shard that was given back was seen by the worker that reports what none reads."""


class Board:
    """Everything /status, /readyz and /healthz know.

    It is longer than a class should be because it is one memory: what an event changes and what is derived from it are
    kept apart from states (`target_states`), reasons (`readiness`) and figures (`gauges`), and not from each other.
    """

    def __init__(self, group: str, rules: Iterable[Rule], clock: Clock) -> None:  # noqa: PLR0915 - one memory
        self.group = group
        self.rules = tuple(rules)
        self.choices: tuple[Choice, ...] = ()
        self.worker: WorkerId | None = None
        self.shards: dict[Spot, ShardState] = {}
        self.kept: dict[StreamRef, float] = {}
        """How long streams keep records that have a time of their own."""
        self.services: dict[ServiceId, Trouble] = {}
        self.jobs: dict[str, JobProgress] = {}
        self.sweeps: tuple[Job, ...] = ()
        """The last full comparisons of rules that are compared again and again."""
        """Jobs that are not over, by id."""
        self.cycled: dict[tuple[str, str], int] = {}
        self.totals: dict[tuple[RegionId, TableName, TargetId], Counter[str]] = {}
        self.waiting: dict[StreamRef, tuple[Waiting, ...]] = {}
        """Standstills of each stream, beside those of shards that are ours."""
        self.owed: dict[tuple[RegionId, OwedTo], OwedRows] = {}
        """What targets are owed, by the source's region and whom."""
        self.paced: dict[tuple[RuleName, RegionId, TableName], PacedTable] = {}
        """Tables that rules write, by rule and region."""
        self.paused: Mapping[RuleName, float] = {}
        """Rules that an operator has paused, configured here or not, and since when (seconds since 1970)."""
        self.regions: dict[tuple[RuleName, RegionId], tuple[RegionState, float]] = {}
        """How other regions of meshes stand, and since when (monotonic)."""
        self.caches: dict[tuple[str, RegionId], tuple[CacheState, float]] = {}
        self.canaries: dict[CanaryPlace, Arrivals] = {}
        """How canaries arrive that this worker writes."""
        self.late_canaries: set[CanaryPlace] = set()
        """Those of which the log says so."""
        self.horizons: dict[tuple[str, RegionId], CacheHorizons] = {}
        """How caches stand and what they are owed, and since when they stand so (monotonic)."""
        self.resting: tuple[Rule, ...] = ()
        """Rules that are not among `rules` because they are held, once per source that they would read."""
        self.held: tuple[Held, ...] = ()
        self.open_gaps: dict[TargetId, int] = {}
        """Losses of the whole group that are neither accepted nor repaired, by target."""
        """What does not run because its world is wrong, as it was found by looking."""
        self.lost: dict[Spot, ShardState] = {}
        """Shards whose lease was lost with the session: their lag counts on until it is known who answers for them."""
        self.left: dict[Spot, ShardState] = {}
        """Shards given back a moment ago: if the coordination table fails now, no other worker may have seen that."""
        self.left_at: dict[Spot, float] = {}
        """When each shard of those was left (monotonic)."""
        self.clock_behind = 0.0
        """How far this machine's clock is behind those of the servers, where it is off; below 0: ahead of them."""
        self.configuration: Trouble | None = None
        """Why a changed configuration is not in force."""
        self.meanings: Mapping[str, str] = {}
        """A digest of every rule as it is configured here, by its name."""
        self.overview: Overview | None = None
        """What no worker reads, while this one looks after it; as it was found last."""
        self.informed = False
        """Whether it was ever known who reads what."""
        self.beat_at = clock.monotonic()
        """When the coordination table last took a heartbeat of ours; at first when this process began."""
        self.draining = False
        self.stock_clients: dict[str, str] = {}
        """Regions whose hot calls the AWS client sends though the lean transport was asked for, and why."""
        self.fatal_signs: list[Callable[[], str | None]] = []
        """Each returns why only a restart can help, or None."""
        self.clock = clock
        self._left: set[tuple[RegionId, TableName]] = set()
        self._attempt_at = clock.monotonic()

    def reads(self, rules: Iterable[Rule], choices: Iterable[Choice]) -> None:
        """The tables that rules read from now on; of others nothing is reported any more."""
        before = {(rule.source, rule.table) for rule in self.rules}
        self.rules, self.choices = tuple(rules), tuple(choices)
        read = {(rule.source, rule.table) for rule in self.rules}
        self._left = (self._left | before) - read
        for service in [each for each in self.services if (each.region, each.table) in self._left]:
            del self.services[service]
        self.cycled = {where: shards for where, shards in self.cycled.items() if where in read}
        self.totals = {key: counts for key, counts in self.totals.items() if key[:2] in read}
        self.owed = {key: rows for key, rows in self.owed.items() if (key[0], key[1].table) in read}
        written = {(rule.name, target.region, target.table) for rule in self.rules for target in rule.targets}
        self.paced = {key: table for key, table in self.paced.items() if key in written}

    def refuses_configuration(self, error: ReplicatorError | None) -> None:
        """A changed configuration is not taken up, and why; None: what the file says is in force."""
        since = self.clock.monotonic() if self.configuration is None else self.configuration.since
        self.configuration = None if error is None else Trouble(error, None, since)

    def compared(self, behind: float | None) -> None:
        """An answer bore its server's time, in whole seconds; what is about right is right."""
        if behind is not None:
            self.clock_behind = behind if abs(behind) >= _OFF_SECONDS else 0.0

    @property
    def wall(self) -> float:
        """The servers' time now, as far as it is known: that of records and positions."""
        return self.clock.now() + self.clock_behind

    def sent_by_stock(self, region: str, why: str) -> bool:
        """The AWS client sends a region's hot calls; returns whether that was not known."""
        known, self.stock_clients[region] = self.stock_clients.get(region), why
        return known != why

    # -- what happened ---------------------------------------------------------------------------------------------

    def shard(self, stream: StreamRef, shard_id: ShardId) -> ShardState:
        """The state of a shard; made at first sight."""
        spot = spot_of(stream, shard_id)
        found = self.shards.get(spot)
        if found is None:
            found = self.shards[spot] = ShardState(stream, shard_id, self.clock.monotonic())
        return found

    def state(self, place: Place) -> TargetState:
        """The state of a target on a shard; made at first sight."""
        targets = self.shard(place.stream, place.shard_id).targets
        found = targets.get(place.target.target_id)
        if found is None:
            now = self.clock.monotonic()
            found = targets[place.target.target_id] = TargetState(place, progress_at=now, seen_at=now)
        return found

    def total(self, place: Place) -> Counter[str]:
        """What a target did on a stream since this process began, over all shards."""
        return self.totals.setdefault((place.stream.region, place.stream.table, place.target.target_id), Counter())

    def missed_by(self, rule: Rule, region: RegionId) -> OwedRows | None:
        """What another region of a mesh missed of the keys of a rule's table while it was away."""
        return self.owed.get((rule.source, OwedTo(rule.table, rule.as_replica(region), OwedFor.AWAY)))

    def refused_by(self, rule: Rule) -> list[OwedRows]:
        """What targets of a rule refused of the keys of its table; in a mesh, what each other region did."""
        ids = [target.target_id for target in rule.targets]
        ids += [rule.as_replica(region) for region in (rule.mesh.others if rule.mesh else ())]
        found = (self.owed.get((rule.source, OwedTo(rule.table, target_id))) for target_id in ids)
        return [rows for rows in found if rows is not None]

    def claimed(self, lease: Lease) -> None:
        """A shard is ours."""
        self.shard(lease.stream, lease.shard_id).lease = lease
        for former in (self.lost, self.left, self.left_at):
            former.pop(spot_of(lease.stream, lease.shard_id), None)

    def started(self, lease: Lease, target: Target) -> None:
        """A shard is read for a target from now on; it is in sight even if nothing ever comes."""
        self.state(Place(lease.stream, lease.shard_id, target))

    def withdrawn(self, lease: Lease, target_id: TargetId, end: End) -> None:
        """A shard is no longer read for a target here."""
        spot = spot_of(lease.stream, lease.shard_id)
        shard = self.shards.get(spot)
        if shard is None:
            return
        shard.stalls.pop(target_id, None)
        gap, state = shard.gaps.pop(target_id, None), shard.targets.pop(target_id, None)
        if end is not End.FINISHED and state is not None:
            state.level = False  # what is not heard of is not caught up, from the first moment
            kept = self.lost if end is End.LOST else self.left
            former = kept.setdefault(spot, ShardState(shard.stream, shard.shard_id, shard.read_at))
            former.targets[target_id] = state
            former.gaps.update({} if gap is None else {target_id: gap})
            self.left_at[spot] = self.clock.monotonic()
        if shard.lease is None and not shard.targets:
            del self.shards[spot_of(lease.stream, lease.shard_id)]

    def ended(self, lease: Lease) -> None:
        """A shard is no longer ours."""
        self.shards.pop(spot_of(lease.stream, lease.shard_id), None)

    def overseen(self, overview: Overview | None) -> None:
        """It is known who answers for what is not read: this worker (`overview`), or another one."""
        self.overview, self.lost, self.informed = overview, {}, True
        now = self.clock.monotonic()
        self.left = {spot: shard for spot, shard in self.left.items() if now - self.left_at[spot] < _SEEN_SECONDS}
        self.left_at = {spot: at for spot, at in self.left_at.items() if spot in self.left}

    def end_services(self, stream: StreamRef, shard_id: ShardId) -> list[ServiceId]:
        """Services of a shard have no trouble any more; returns those that had."""
        ended = [service for service in self.services if service.is_of_shard(stream, shard_id)]
        for service in ended:
            del self.services[service]
        return ended

    def attempted(self, stream: StreamRef | None, shards: int) -> None:
        """The coordinator did something."""
        self._attempt_at = self.clock.monotonic()
        if stream is not None:
            self.cycled[stream.region, stream.table] = shards

    def read(self, stream: StreamRef, shard_id: ShardId) -> ShardState:
        """A shard was read."""
        shard = self.shard(stream, shard_id)
        shard.read_at = self.clock.monotonic()
        return shard

    def caught_up(self, shard: ShardState, position: Position, level_at: float) -> None:
        """Nothing stood behind a position at this time, so targets there are up to date."""
        for state in shard.targets.values():
            there = position == HORIZON or state.position in {None, position}  # the horizon: nothing is left at all
            if there and state.pending_since is None:
                state.level, state.heard, state.progress_at = True, True, shard.read_at
                state.through = latest(state.through, level_at)

    def behind(self, shard: ShardState, position: Position) -> None:
        """Records stand behind a position: targets there are not up to date."""
        for state in shard.targets.values():
            if state.position in {None, position}:
                state.level = False

    def stands(self, stream: StreamRef, found: Sequence[Standstill]) -> list[Waiting]:
        """All standstills of a stream from now on; returns those that are over."""
        before = {(each.standstill.rule, each.standstill.why): each for each in self.waiting.pop(stream, ())}
        now = self.clock.monotonic()
        kept = []
        for each in found:
            known = before.get((each.rule, each.why))
            kept.append(Waiting(stream, each, now if known is None else known.since))
        if kept:
            self.waiting[stream] = tuple(kept)
        keys = {(each.rule, each.why) for each in found}
        return [each for key, each in before.items() if key not in keys]

    def holds(self, found: Sequence[Hold]) -> None:
        """These are held from now on, and nothing else."""
        since = {each.hold.held: each.since for each in self.held}
        now = self.clock.monotonic()
        self.held = tuple(Held(hold, since.get(hold.held, now)) for hold in found)

    # -- its state -------------------------------------------------------------------------------------------------

    @property
    def unreachable_seconds(self) -> float:
        """For how long the coordination table has taken no heartbeat of ours, if it refuses them; 0 else."""
        is_failing = ServiceId(ServiceKind.HEARTBEAT) in self.services
        return self.clock.monotonic() - self.beat_at if is_failing else 0.0

    @property
    def owned(self) -> int:
        """How many shards are ours."""
        return sum(shard.lease is not None for shard in self.shards.values())

    def targets(self) -> Iterator[tuple[ShardState, TargetState]]:
        """Every target on every shard."""
        for shard in self.shards.values():
            for state in shard.targets.values():
                yield shard, state

    def lag(self, shard: ShardState, state: TargetState) -> float | None:
        """How far a target is behind, in seconds."""
        now = self.clock.monotonic()
        return state.lag(self.wall, now - shard.read_at, now - state.seen_at)

    def retention_left(self, shard: ShardState, state: TargetState) -> float | None:
        """Seconds until the stream drops a record that was not applied; 0 when it did, None while nothing is known."""
        if state.place.target.target_id in shard.gaps:
            return 0.0
        return retention_left_seconds(self.lag(shard, state), self.kept.get(shard.stream))

    def figures(self) -> Iterator[Figure]:
        """Every target at every shard that this worker reports: what it reads, what it lost, what it looks after."""
        now, wall = self.clock.monotonic(), self.wall
        for shard, state in self.targets():
            yield self._figure(shard, state)
        given_up = self.left if self.unreachable_seconds else {}
        for shard in (*self.lost.values(), *given_up.values()):
            for state in shard.targets.values():
                yield self._figure(shard, state, is_lost=True)
        for each in () if self.overview is None else self.overview.standing:
            lag = lag_seconds(each.through, wall)
            left = retention_left_seconds(lag, self.kept.get(each.stream))
            yield Figure(each.target, each.stream, each.shard_id, each.state, lag, left, now - each.since)
        if self.unreachable_seconds and not (self.informed or self.shards):
            # A worker that began while the table does not answer knows nothing of any target, and says so.
            for rule in self.rules:
                for target in rule.targets:
                    stream = StreamRef(rule.source, rule.table, "", 0)
                    yield Figure(target, stream, None, UNKNOWN, None, None, self.unreachable_seconds)

    def _figure(self, shard: ShardState, state: TargetState, *, is_lost: bool = False) -> Figure:
        lag, target = self.lag(shard, state), state.place.target
        left = 0.0 if target.target_id in shard.gaps else retention_left_seconds(lag, self.kept.get(shard.stream))
        word = LOST if is_lost else word_of(shard, state, lag)
        return Figure(target, shard.stream, shard.shard_id, word, lag, left, self.clock.monotonic() - state.progress_at)

    def health(self) -> str | None:
        """None while the coordinator attempts things that can succeed; else the reason to restart."""
        silent = self.clock.monotonic() - self._attempt_at
        if silent > _HEALTHY_SECONDS:
            return f"the coordinator attempted nothing for {silent:.0f} s"
        return next((reason for sign in self.fatal_signs if (reason := sign()) is not None), None)

    def held_rows(self) -> list[HeldRow]:
        """Everything that is held: what looks found, and what reading and writing ran into."""
        services = [Met(service, trouble.error, trouble.since) for service, trouble in self.services.items()]
        targets = [
            Met((shard.stream.table, state.place.target), state.trouble.error, state.trouble.since)
            for shard, state in self.targets()
            if state.trouble is not None
        ]
        return rows_of(self.rules, self.held, [*services, *targets])

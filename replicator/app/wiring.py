"""How the engine is put together: adapters of one process as the ports of sources, targets and shards.

Invariant: what is bounded per process is made once here - connections, bytes in flight, DescribeStream calls - and what
belongs to one table of one rule is made once per table, however often other tables come and go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from replicator.adapters.conflict_sinks import conflict_log
from replicator.adapters.dynamodb.cache_debt import DynamoCacheDebt
from replicator.adapters.dynamodb.coordination import (
    CoordinationTable,
    DynamoCoordination,
    DynamoMembership,
    DynamoRegistry,
    FunctionNotes,
    KnownTables,
)
from replicator.adapters.dynamodb.owed_keys import owed_keys
from replicator.adapters.dynamodb.table_claims import SideTableClaims
from replicator.adapters.dynamodb.tables import DynamoRegion
from replicator.adapters.sinks.opening import SinkId
from replicator.adapters.sources import stream_of
from replicator.app.bounds import limits_of
from replicator.app.table_identities import TableIdentities
from replicator.domain.held import HeldId
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.modes.versioned.own_writes import OwnWrites
from replicator.domain.owed_keys import OwedFor, OwedTo
from replicator.domain.pacing import Pace
from replicator.domain.rules import KinesisSource, OnRefusal, Rule, Target
from replicator.domain.shards.holdings import Holdings
from replicator.domain.targets import TargetId, replica_id
from replicator.domain.versions import STAMP
from replicator.domain.write_units import UnitBucket
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.applying.cache_debt import CacheDebt
from replicator.engine.applying.cache_settling import Settler
from replicator.engine.applying.cache_verifying import CacheVerifier
from replicator.engine.applying.context import TargetPorts
from replicator.engine.applying.event_funnel import EventFunnel
from replicator.engine.applying.gate import Gate, Gates
from replicator.engine.applying.kinds import parks_refusals
from replicator.engine.applying.owing import Looks, Owing
from replicator.engine.applying.paced_region import PacedRegion
from replicator.engine.applying.parking import Parking, ParkingBounds
from replicator.engine.applying.partner import Partner
from replicator.engine.applying.write_budget import WriteBudget
from replicator.engine.mapped_tables import as_mapped
from replicator.engine.ownership.sources import Source
from replicator.engine.ownership.target_succession import TargetSuccession
from replicator.engine.reading.memory_budget import ByteBudget
from replicator.engine.shard.worker import ShardPorts
from replicator.ports.events import PacedTable
from replicator.ports.targets import Region
from replicator.settings import choosing
from replicator.settings.compiled_rules import debt_policy, rule_per_source, verify_policy

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient

    from replicator.adapters.aws.clients import Place
    from replicator.adapters.redis.cluster import CacheClient
    from replicator.observability.traces import Traces
    from replicator.ports.clock import Clock
    from replicator.ports.events import Observer
    from replicator.ports.sources import Stream
    from replicator.ports.targets import Cache, Region, Sink
    from replicator.settings import RuleSettings, Settings

_OWN_WRITES_KEPT = 10_000
"""Keys per rule whose last write of our own is remembered, to save reads when it comes back."""

_OWN_WRITES_OF_MANY = 1000
"""The same for each table of a rule that chooses its tables."""

_RuleTable = tuple[str, str]
"""(rule, table as the rule names it): what is replicated as one, in all its regions."""


class Assembly:
    """The adapters of this process, and the sources that they make of settings."""

    def __init__(  # noqa: PLR0913, PLR0917 - the process's adapters, given once
        self,
        settings: Settings,
        places: Mapping[str, Place],
        home: DynamoDBClient,
        caches: Mapping[str, CacheClient],
        sinks: Mapping[SinkId, Sink],
        clock: Clock,
        observer: Observer,
        gates: Gates,
        *,
        settles: bool = True,
        traces: Traces | None = None,
    ) -> None:
        """`settings`: as they are written; sources are made of expanded ones. `sinks`: none where only jobs are done.

        `home`: the coordination region by connections of its own, so that no heartbeat waits behind writes of items.
        `settles`: whether something here settles what caches are owed; else a cache that is away is waited for.
        """
        where = settings.coordination
        self.rows = rows = CoordinationTable(home, table=where.table, group=settings.group, region_id=where.region)
        self.limits = limits_of(settings)
        self.membership = DynamoMembership(rows)
        self.registry = DynamoRegistry(rows)
        self.identities = TableIdentities(KnownTables(rows), rows.clock)
        self.coordination = DynamoCoordination(rows)
        self.function_notes = FunctionNotes(rows)
        claims = SideTableClaims(lambda region: places[region].dynamodb, settings.side_table_name)
        self.succession = TargetSuccession(self.coordination, self.registry, claims, observer)
        self._settings = settings
        self._places = places
        self._clock = clock
        self._observer = observer
        self._gates = gates
        self._settles = settles
        self.debts: list[Settler] = []
        self.verifiers: dict[str, CacheVerifier] = {}
        self._streams: dict[tuple[RegionId, KinesisSource | None], Stream] = {}
        self._traces = traces
        self._funnels: dict[str, CacheFunnel] = {}
        self._events: dict[SinkId, EventFunnel] = {}
        self.take_in(settings, caches, sinks)
        self._conflicts = conflict_log(places[where.region].dynamodb, settings)
        self._budget = ByteBudget(self.limits.in_flight_bytes)
        self._holdings = Holdings()
        self._write_budgets: dict[tuple[str, RegionId], tuple[set[tuple[RegionId, TableName]], WriteBudget]] = {}
        """With the tables whose streams it is shared by, by rule and region."""
        self._looks = Looks()
        self._made: dict[_RuleTable, dict[Rule, Mapping[TargetId, TargetPorts]]] = {}
        self._written: dict[_RuleTable, RuleSettings] = {}
        self._sources: dict[tuple[RegionId, TableName], Source] = {}

    def take_in(self, settings: Settings, caches: Mapping[str, CacheClient], sinks: Mapping[SinkId, Sink]) -> None:
        """Use these caches and sinks beside those of before; `settings`: as they are written now."""
        self._settings, self._many = settings, choosing(settings).keys()
        for name, cache in caches.items():
            debt = None
            if self._settles:
                settler = Settler(self._debt(name, cache))
                self.debts.append(settler)
                debt = settler.debt
                if (verifier := self._verifier(settler)) is not None:
                    self.verifiers[name] = verifier
            used: Cache = debt or cache
            self._funnels[name] = CacheFunnel(self._traces.cache(name, used) if self._traces else used, debt)
        traces = self._traces
        funnels = {  # one may serve several regions
            id(sink): EventFunnel(traces.sink(str(name[-1]), sink) if traces else sink) for name, sink in sinks.items()
        }
        self._events |= {name: funnels[id(sink)] for name, sink in sinks.items()}

    def sources(self, settings: Settings) -> list[Source]:
        """The sources of these settings; one that was there before, with the same rules, is the same again."""
        rules = {(rule.name, rule.table_name): rule for rule in settings.rules if rule.sources}
        for key in [key for key, rule in rules.items() if self._written.get(key, rule) != rule]:
            self._made.pop(key, None)  # it is another rule now, and so are its ports
            self._write_budgets = {where: each for where, each in self._write_budgets.items() if where[0] != key[0]}
        self._made = {key: self._made.get(key) or self._rule(settings, rule) for key, rule in rules.items()}
        self._written = rules
        for settler in self.debts:  # what a rule that is gone wrote may be there still
            settler.debt.policy = settler.debt.policy.along(debt_policy(settings, settler.debt.name))
        readers: dict[tuple[RegionId, TableName], dict[Rule, Mapping[TargetId, TargetPorts]]] = {}
        for made in self._made.values():
            for rule, targets in made.items():
                readers.setdefault((rule.source, rule.table), {})[rule] = targets
        self._sources = {where: self._source(where, made) for where, made in readers.items()}
        return list(self._sources.values())

    @property
    def rules(self) -> list[Rule]:
        """Every rule of the present sources, once per source."""
        return [rule for made in self._made.values() for rule in made]

    def made(self, rule: RuleName, table: TableName) -> Mapping[Rule, Mapping[TargetId, TargetPorts]] | None:
        """The ports of a rule's targets on one of its tables, once per source; None of a rule that does not run."""
        for (name, _), made in self._made.items():
            if name == rule and any(each.table == table for each in made):
                return made
        return None

    def _debt(self, name: str, cache: CacheClient) -> CacheDebt:
        """A cache with what it is owed, which stands in its region."""
        settings, region = self._settings, self._settings.caches[name].region
        rows = DynamoCacheDebt(
            self._places[region].dynamodb,
            table=settings.owed_table_name,
            group=settings.group,
            region_id=region,
            cache=name,
        )
        policy = debt_policy(settings, name)
        return CacheDebt(name, RegionId(region), cache, rows, policy, clock=self.rows.clock, observer=self._observer)

    def _verifier(self, settler: Settler) -> CacheVerifier | None:
        """What reads entries of a cache again, in front of which stands what it is owed."""
        debt, policy = settler.debt, verify_policy(self._settings, settler.debt.name)
        if policy is None:
            return None
        return CacheVerifier(debt.name, debt.region, debt, policy, clock=self.rows.clock, observer=self._observer)

    def _source(
        self, where: tuple[RegionId, TableName], readers: Mapping[Rule, Mapping[TargetId, TargetPorts]]
    ) -> Source:
        region, table = where
        known = self._sources.get(where)
        ports_now = {name: ports for targets in readers.values() for name, ports in targets.items()}
        if known is not None and known.rules == tuple(readers) and _are_same(known.ports.targets, ports_now):
            return known
        (read,) = {rule.stream for rule in readers}  # rules that read one table agree where
        ports = ShardPorts(
            self._stream(region, read),
            self.coordination,
            self.registry,
            ports_now,
            self._clock,
            self.rows.clock,
            self._observer,
            self._budget,
            self._holdings,
        )
        return Source(region, table, tuple(readers), ports, self.succession)

    def _stream(self, region: RegionId, read: KinesisSource | None) -> Stream:
        """The streams of a region of one kind, once per process."""
        if (region, read) not in self._streams:
            stream = stream_of(self._places[region], read)
            self._streams[region, read] = self._traces.stream(stream) if self._traces else stream
        return self._streams[region, read]

    def _rule(self, settings: Settings, written: RuleSettings) -> dict[Rule, Mapping[TargetId, TargetPorts]]:
        """Ports of a rule's targets on one table, by target id; a mesh has one `Rule` per region.

        All streams of a mesh write through the same regions and know each other's writes.
        """
        rules = rule_per_source(settings, written)
        regions: dict[RegionId, Region] = {
            target.region: self._gated(written, rule, target)
            for rule in rules
            for target in rule.targets
            if target.table is not None
        }
        partners = self._partners(rules, regions)
        own_writes = OwnWrites(_OWN_WRITES_OF_MANY if written.name in self._many else _OWN_WRITES_KEPT)
        return {
            rule: {
                target.target_id: TargetPorts(
                    regions.get(target.region) if target.table is not None else None,
                    self._funnels,
                    self._conflicts,
                    {other: regions[other] for other in (rule.mesh.others if rule.mesh else ())},
                    own_writes,
                    self._parking(rule, target.target_id) if parks_refusals(rule, target.kind) else None,
                    self._gates.of(HeldId(rule.name, TableName(written.table_name), target.target_id)),
                    {other: self._owing(rule, partners[other]) for other in (rule.mesh.others if rule.mesh else ())},
                    verifiers=self.verifiers,
                    events=self._events.get((rule.name, target.region, target.sink or "")),
                    source=self._looked_at(rule),
                )
                for target in rule.targets
            }
            for rule in rules
        }

    def _looked_at(self, rule: Rule) -> Region | None:
        """The source's table, of a rule of mode `ordered` whose times count milliseconds."""
        if rule.mesh is not None or rule.stream is None or rule.stream.in_microseconds:
            return None
        return self._table(rule.source, rule.table)

    def _table(self, region: RegionId, table: TableName, stamp: str = STAMP, *, metered: bool = False) -> DynamoRegion:
        """A table and its side table; `metered`: its answers say how many units they took."""
        return DynamoRegion(
            self._places[region].items,
            region_id=region,
            table=table,
            side_table=self._settings.side_table_name,
            tombstone_ttl=self._settings.tombstone_ttl,
            clock=self.rows.clock,
            stamp_attribute=stamp,
            metered=metered,
        )

    def _gated(self, written: RuleSettings, rule: Rule, target: Target) -> Region:
        """A table of a rule; of a mesh, behind a gate of its own."""
        budget = self._write_budget(written, target.region)
        if rule.mesh is None or target.table is None:
            return self._region(rule, target, budget)
        place = replica_id(rule.name, target.region, target.table)
        gate = self._gates.of(HeldId(rule.name, TableName(written.table_name), place))
        return self._region(rule, target, budget, gate)

    def _partners(self, rules: Sequence[Rule], regions: Mapping[RegionId, Region]) -> dict[RegionId, Partner]:
        """The regions of a mesh as others see them: how one stands is the same for every stream of the rule."""
        away_after = self.limits.away_seconds
        return {
            rule.source: Partner(
                rule.name,
                rule.source,
                regions[rule.source],
                away_after=away_after,
                observer=self._observer,
            )
            for rule in rules
            if rule.mesh is not None
        }

    def _owing(self, rule: Rule, partner: Partner) -> Owing:
        """What a rule's home region owes another one."""
        target_id = rule.as_replica(partner.name)
        refused = self._parking(rule, target_id) if rule.refused is OnRefusal.PARK else None
        self._looks.among += 1
        return Owing(
            partner,
            rule.source,
            OwedTo(rule.table, target_id, OwedFor.AWAY),
            owed_keys(self._places[rule.source], self._settings, self.rows.clock),
            refused,
            self.rows.clock,
            self._observer,
            self._looks,
        )

    def _parking(self, rule: Rule, target_id: TargetId) -> Parking:
        """Where a target's refusals are set aside: in the region of its source, by the table of the keys."""
        parking = self._settings.parking
        return Parking(
            owed_keys(self._places[rule.source], self._settings, self.rows.clock),
            rule.source,
            OwedTo(rule.table, target_id),
            bounds=ParkingBounds(parking.max, parking.max_unread),
            clock=self._clock,
            observer=self._observer,
        )

    def _write_budget(self, written: RuleSettings, region: RegionId) -> WriteBudget | None:
        """What a rule may take of a region's write units, all of its tables together; None: as much as it needs."""
        per_second = written.write_units.get(region)
        if per_second is None:
            return None
        sources, budget = self._write_budgets.setdefault((written.name, region), self._new_budget(per_second))
        sources.update((RegionId(source), TableName(table)) for source, table in written.sources)
        return budget

    def _new_budget(self, per_second: int) -> tuple[set[tuple[RegionId, TableName]], WriteBudget]:
        sources: set[tuple[RegionId, TableName]] = set()
        bucket = UnitBucket(per_second, self._clock.monotonic())
        return sources, WriteBudget(bucket, lambda: self._holdings.share(sources), self._clock)

    def _region(self, rule: Rule, target: Target, budget: WriteBudget | None, gate: Gate | None = None) -> PacedRegion:
        """A table of a rule, within the bounds that all shards of the process have there together."""
        assert target.table is not None, "only tables are regions"
        region = self._table(target.region, target.table, rule.stamp, metered=budget is not None)
        pace = Pace(self._settings.apply.concurrency, self._clock.monotonic())
        bucket = None if budget is None else budget.bucket
        self._observer.paces(PacedTable(rule.name, target.region, target.table, pace, bucket))
        return PacedRegion(as_mapped(region, target.keys), pace, self._clock, budget, gate=gate)


def _are_same(before: Mapping[TargetId, TargetPorts], now: Mapping[TargetId, TargetPorts]) -> bool:
    return before.keys() == now.keys() and all(before[name] is now[name] for name in now)

"""Settings as domain values: rules, targets, filters and cache rules."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256

import msgspec
from pydantic import SecretStr

from replicator.domain.cache_commands import CacheUse
from replicator.domain.cache_debt import DebtPolicy, OnFull
from replicator.domain.cache_horizons import VerifyPolicy
from replicator.domain.cache_keys import CacheRule, CacheVerb, Publication
from replicator.domain.cache_restores import OnRestore
from replicator.domain.cache_urls import parse_cache_url
from replicator.domain.cache_values import Shape
from replicator.domain.canary import canary_entry
from replicator.domain.filters import Equals, Filter, Where
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.item_events import EventShape, Numbers
from replicator.domain.key_templates import KeyTemplate
from replicator.domain.modes.active_active.mesh import ActivePolicy, Guard
from replicator.domain.modes.ordered import InsertGuard, OrderedPolicy, Unstamped
from replicator.domain.modes.versioned.ranks import VersionAttribute, VersionType
from replicator.domain.records import Event
from replicator.domain.rules import (
    ActivePlan,
    KinesisSource,
    OnGap,
    OnRefusal,
    Rule,
    Start,
    Sweep,
    Target,
    TtlDeletes,
    VersionedPlan,
)
from replicator.domain.transforms import Transform
from replicator.settings import (
    CacheAction,
    EventSink,
    FilterSettings,
    ItemConditions,
    MeshFilter,
    MeshRule,
    OrderedRule,
    RedisStreamSink,
    RuleSettings,
    Settings,
    VersionedRule,
)
from replicator.settings.transforms import TransformSettings

_DEFAULT_TTL = timedelta(hours=1)


def rules_of(settings: Settings) -> list[Rule]:
    """Every configured rule, once per source that it reads."""
    return [seen for rule in settings.rules for seen in rule_per_source(settings, rule)]


def rule_per_source(settings: Settings, rule: RuleSettings) -> list[Rule]:
    """One rule, once per source that it reads: a mesh is read in each of its regions, a choice of tables in none."""
    if not rule.sources:
        return []
    return [_ordered(settings, rule)] if isinstance(rule, OrderedRule) else _mesh(settings, rule)


def _ordered(settings: Settings, rule: OrderedRule) -> Rule:
    """One rule of mode `ordered`; its targets are its replicas, and the source when a cache is beside it."""
    caches = _caches(settings, rule)
    tables: dict[str, str | None] = dict(rule.replica_tables)
    transforms = {
        replica.region: transform_of(replica.transform, settings.secrets)
        for replica in rule.replicas
        if replica.transform is not None
    }
    if any(cache.region == rule.source for cache in caches):
        tables.setdefault(rule.source, None)
    written = [
        Target(
            rule=RuleName(rule.name),
            region=RegionId(region),
            table=None if table is None else TableName(table),
            caches=tuple(cache for cache in caches if cache.region == region),
            transform=transforms.get(region),
        )
        for region, table in tables.items()
    ]
    return Rule(
        name=RuleName(rule.name),
        source=RegionId(rule.source),
        table=TableName(rule.table_name),
        targets=(*written, *_sinks(settings, rule, rule.source)),
        policy=OrderedPolicy(insert_guard=InsertGuard(rule.insert_guard), unstamped=Unstamped(rule.unstamped)),
        epoch=rule.epoch,
        start=Start(rule.start),
        ttl_deletes=TtlDeletes(rule.ttl_deletes),
        on_gap=OnGap(rule.on_gap),
        refused=OnRefusal(rule.refused),
        filter=_filter(rule.filter),
        sweep=_sweep(rule),
        stream=kinesis_source(rule, rule.source, settings.group),
        canary=_canary(rule),
    )


def _sinks(settings: Settings, rule: RuleSettings, home: str) -> list[Target]:
    return [
        Target(RuleName(rule.name), region_of_sink(settings, sink, home), None, sink=sink.sink_name)
        for sink in rule.events
    ]


def region_of_sink(settings: Settings, sink: EventSink, home: str) -> RegionId:
    """Where a sink is that changes of a region go to: there, unless it says; a Redis stream is where its cache is."""
    beside = settings.caches[sink.cache].region if isinstance(sink, RedisStreamSink) else home
    return RegionId(sink.region or beside)


def event_shape(settings: Settings, sink: EventSink) -> EventShape:
    """What a sink is brought, and what its events show."""
    transform = None if sink.transform is None else transform_of(sink.transform, settings.secrets)
    return EventShape(sink.format == "dynamodb", Numbers(sink.numbers), transform, _filter(sink.filter))


def _mesh(settings: Settings, rule: MeshRule) -> list[Rule]:
    """One rule of a mesh, seen from each of its regions."""
    caches = _caches(settings, rule)
    return [
        Rule(
            name=RuleName(rule.name),
            source=RegionId(home),
            table=TableName(table),
            targets=(
                Target(
                    rule=RuleName(rule.name),
                    region=RegionId(home),
                    table=TableName(table),
                    caches=tuple(cache for cache in caches if cache.region == home),
                ),
                *_sinks(settings, rule, home),
            ),
            mesh=_plan(rule, home, table),
            start=Start(rule.start),
            on_gap=OnGap(rule.on_gap),
            refused=OnRefusal(rule.refused),
            filter=_key_filter(rule.filter),
            sweep=_sweep(rule),
            stream=kinesis_source(rule, home, settings.group),
            canary=_canary(rule),
        )
        for home, table in rule.sources
    ]


def kinesis_source(rule: RuleSettings, region: str, group: str) -> KinesisSource | None:
    """The Kinesis stream that a rule of a group reads in a region; None: the table's own stream."""
    named = rule.streams.get(region)
    if named is None:
        return None
    exact, late = named.precision == "microsecond", named.reorder.total_seconds()
    return KinesisSource(named.kinesis, exact, late, group if named.fan_out else "")


def _sweep(rule: RuleSettings) -> Sweep | None:
    asked = rule.verify
    return None if asked is None else Sweep(asked.every.total_seconds(), asked.read_units, asked.repair)


def _canary(rule: RuleSettings) -> float | None:
    return None if rule.canary is None else rule.canary.every.total_seconds()


def _plan(rule: MeshRule, home: str, table: str) -> VersionedPlan | ActivePlan:
    others = {RegionId(region): TableName(other) for region, other in rule.sources if region != home}
    tables = tuple((region, other) for region, other in others.items() if other != table)
    if isinstance(rule, VersionedRule):
        version = rule.version
        attribute = VersionAttribute(version.attribute, VersionType(version.type), version.width)
        return VersionedPlan(tuple(others), attribute, tables)
    # What lies ahead of a record says nothing of it where a source keeps no order.
    policy = ActivePolicy(guard=Guard(rule.guard), look_ahead=home not in rule.streams, attribute=rule.stamp)
    return ActivePlan(tuple(others), policy, tables)


def debt_policy(settings: Settings, cache: str) -> DebtPolicy:
    """What a cache may be owed, and what is done beyond that."""
    asked = settings.caches[cache].debt
    used = [action for rule in settings.rules for action in rule.cache if action.cache == cache]
    actions = [action for action in used if action.action != "publish"]
    keys = [*(action.template(settings.caches) for action in actions), *_canary_entries(settings, cache)]
    patterns = None if asked.flush == "database" else tuple(dict.fromkeys(key.pattern for key in keys))
    may_flush = patterns is None or all(key.prefix for key in keys)
    # A flush drops entries and tells of none, so messages are waited for.
    default = OnFull.FLUSH if may_flush and len(actions) == len(used) else OnFull.WAIT
    return DebtPolicy(
        asked.max_keys,
        default if asked.policy is None else OnFull(asked.policy),
        patterns,
        OnRestore(asked.on_restore),
        asked.restore_window.total_seconds(),
        may_flush,
    )


def cache_use(settings: Settings, name: str) -> CacheUse:
    """How a cache is used, which says what its user needs."""
    cache = settings.caches[name]
    actions = [action for rule in settings.rules for action in rule.cache if action.cache == name]
    sinks = [sink for rule in settings.rules for sink in rule.events if isinstance(sink, RedisStreamSink)]
    events = [sink.stream for sink in sinks if sink.cache == name]
    entries = [action for action in actions if action.action != "publish"]
    policy, canaries = debt_policy(settings, name), _canary_entries(settings, name)
    where = parse_cache_url(cache.url)
    return CacheUse(
        actions=dict.fromkeys([*(action.action for action in entries), *(["write_through"] if canaries else [])]),
        patterns=[
            *(action.template(settings.caches).pattern for action in entries),
            *(key.pattern for key in canaries),
            *events,
        ],
        channels=[action.channel for action in actions if action.channel is not None],
        streams=[action.stream for action in actions if action.stream is not None],
        scans=bool(entries) and policy.patterns is not None and policy.may_flush,
        drops_database=bool(entries) and policy.patterns is None,
        stores_hashes=any(action.value == "hash" for action in entries),
        refills=any(
            action.stores and action.cache == name
            for rule in settings.rules
            if isinstance(rule, VersionedRule)
            for action in rule.cache
        ),
        reads_again=bool(canaries)
        or (bool(entries) and (cache.verify.share > 0 or any(rule.verify for rule in settings.rules))),
        holds_events=bool(events),
        database=where.database,
        is_cluster=where.is_cluster,
        is_named="client_name" in where.options,
        is_pinged="health_check_interval" in where.options,
    )


def _canary_entries(settings: Settings, cache: str) -> list[KeyTemplate]:
    """The keys of canaries' entries in a cache."""
    used = [[action for action in rule.cache if action.cache == cache] for rule in settings.rules if rule.canary]
    return [canary_entry(actions[0].template(settings.caches)) for actions in used if actions]


def verify_policy(settings: Settings, cache: str) -> VerifyPolicy | None:
    """How much of a cache is read again behind actions; None: nothing."""
    asked = settings.caches[cache].verify
    return VerifyPolicy(max(1, round(1 / asked.share)), asked.reads) if asked.share else None


def _caches(settings: Settings, rule: RuleSettings) -> list[CacheRule]:
    return [
        CacheRule(
            cache=action.cache,
            region=RegionId(settings.caches[action.cache].region),
            key=action.template(settings.caches),
            verb=CacheVerb(action.action),
            ttl=action.ttl or _DEFAULT_TTL,
            jitter=action.jitter,
            marker_ttl=action.marker_ttl,
            shape=Shape(action.value, action.numbers, tuple(action.attributes)),
            max_bytes=action.max_bytes,
            publication=_publication(action),
            when=None if action.when is None else _filter(action.when),
        )
        for action in rule.cache
    ]


def _publication(action: CacheAction) -> Publication | None:
    name = action.stream or action.channel
    return None if name is None else Publication(name, action.stream is not None, action.maxlen, action.values)


def meanings_of(settings: Settings) -> dict[str, str]:
    """A digest of each rule as it is configured, the same for every worker that makes the same of it.

    What a rule leaves to its defaults is no part of it, so that workers of two versions agree; secrets are none either.
    """
    return {
        rule.name: _digest(
            _written(settings, rule)
            + "".join(f"|{action.cache}|{settings.caches[action.cache].prefix}" for action in rule.cache)
        )
        for rule in settings.rules
    }


def _written(settings: Settings, rule: RuleSettings) -> str:
    """A rule as JSON, without what it leaves to its defaults.

    Written by the model of the whole configuration: that of a rule alone is not made yet, and takes 30 ms to make.
    """
    alone = settings.model_copy(update={"rules": [rule]})
    text = alone.model_dump_json(include={"rules"}, exclude_defaults=True)
    return text.removeprefix('{"rules":[').removesuffix("]}")


def shape_of(settings: Settings, rule: RuleSettings, target: Target) -> str:
    """Digest of what decides which items a rule lets pass to a target, how they look there, and their cache keys."""
    text = rule.filter.model_dump_json() + "".join(_entries_text(settings, action) for action in rule.cache)
    return _digest(text + transform_text(settings, rule, target))


def _entries_text(settings: Settings, action: CacheAction) -> str:
    """What decides which entries an item has, as text."""
    parts = ["", action.cache, settings.caches[action.cache].prefix + action.key]
    return "|".join(parts if action.when is None else [*parts, action.when.model_dump_json()])


def transform_text(settings: Settings, rule: RuleSettings, target: Target) -> str:
    """The transform of a target and a digest of its secret, as text; nothing where it has none."""
    for replica in rule.replicas if isinstance(rule, OrderedRule) and target.table is not None else ():
        if replica.region == target.region and replica.transform is not None:
            made = transform_of(replica.transform, settings.secrets)
            # As it was before a key could be mapped, so that an upgrade is no change.
            written = replica.transform.model_dump_json(exclude={"key"} if made.key is None else None)
            return f"|{written}|{sha256(made.secret).hexdigest()}"
    return ""


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def transform_of(written: TransformSettings, secrets: Mapping[str, SecretStr]) -> Transform:
    """A transform as a domain value."""
    mask = written.mask
    return Transform(
        project=None if written.project is None else frozenset(written.project),
        drop=frozenset(written.drop),
        masked=frozenset() if mask is None else frozenset(mask.attributes),
        rename=tuple(written.rename.items()),
        constant=tuple((name, msgspec.json.encode(_typed(value))) for name, value in written.constant.items()),
        secret=b"" if mask is None else secrets[mask.hmac].get_secret_value().encode(),
        key=written.mapping,
    )


def _typed(value: str | bool | float | None) -> dict[str, str | bool]:  # noqa: FBT001 - a scalar of any kind
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    return {"S": value} if isinstance(value, str) else {"N": str(value)}


def _filter(settings: ItemConditions) -> Filter:
    events = settings.events if isinstance(settings, FilterSettings) else None
    return Filter(
        events=frozenset(Event) if events is None else frozenset(Event(name) for name in events),
        key_prefix=tuple(settings.key_prefix.items()),
        equals=tuple(_equals(name, value) for name, value in settings.equals.items()),
        exists=tuple(settings.exists),
        where=None if settings.where is None else Where(settings.where),
    )


def _key_filter(settings: MeshFilter) -> Filter:
    return Filter(
        key_prefix=tuple(settings.key_prefix.items()),
        equals=tuple(_equals(name, value) for name, value in settings.equals.items()),
    )


def _equals(attribute: str, value: str | bool | float | None) -> Equals:  # noqa: FBT001 - a scalar of any kind
    if value is None or isinstance(value, str | bool):
        return Equals(attribute, value)
    return Equals(attribute, str(value), is_number=True)
